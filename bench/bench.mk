# Measuring. `make bench` compares with other servers and says what redundancy and snapshots cost, `make micro` times the parts.

RAW_SERVER := $(BUILD)/bench/raw_server
BENCH_LOWER := $(call lib_of,engine/io) $(call lib_of,engine/base)
MICRO := $(patsubst bench/%_bench.c,%,$(wildcard bench/*_bench.c))

$(RAW_SERVER): $(BUILD)/bench/raw_server.o $(call lib_of,nbd) $(BENCH_LOWER)
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# Where libiscsi's headers are: iscsi.py leaves itself out elsewhere.
ISCSI_LOAD := $(if $(wildcard /usr/include/iscsi/iscsi.h),$(BUILD)/bench/iscsi_load)
$(BUILD)/bench/iscsi_load: $(BUILD)/bench/iscsi_load.o
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -o $@ $^ -liscsi

$(BUILD)/bench/co_bench: $(BUILD)/bench/co_bench.o $(BENCH_LOWER)
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# BENCH="--rounds 5 --seconds 3 --backend zram": see bench/run.py --help; RAID_BENCH, SNAPSHOT_BENCH, EVACUATE_BENCH, FAIR_BENCH,
# MOVES_BENCH, ISCSI_BENCH: see bench/raid.py, bench/snapshot.py, bench/evacuate.py, bench/fair.py, bench/moves.py, bench/iscsi.py
.PHONY: bench bench-smoke micro
bench: deps-bench
	@+$(MAKE) --no-print-directory all $(RAW_SERVER) $(BUILD)/bench/iscsi_load
	@bench/run.py --build $(BUILD) $(BENCH)
	@bench/raid.py --build $(BUILD) $(RAID_BENCH)
	@bench/snapshot.py --build $(BUILD) $(SNAPSHOT_BENCH)
	@bench/evacuate.py --build $(BUILD) $(EVACUATE_BENCH)
	@bench/fair.py --build $(BUILD) $(FAIR_BENCH)
	@bench/moves.py --build $(BUILD) $(MOVES_BENCH)
	@bench/iscsi.py --build $(BUILD) $(ISCSI_BENCH)

bench-smoke: all $(RAW_SERVER) $(ISCSI_LOAD)
	@bench/run.py --build $(BUILD) --smoke $(BENCH)
	@bench/raid.py --build $(BUILD) --smoke $(RAID_BENCH)
	@bench/snapshot.py --build $(BUILD) --smoke $(SNAPSHOT_BENCH)
	@bench/evacuate.py --build $(BUILD) --smoke $(EVACUATE_BENCH)
	@bench/fair.py --build $(BUILD) --smoke $(FAIR_BENCH)
	@bench/moves.py --build $(BUILD) --smoke $(MOVES_BENCH)
	@bench/iscsi.py --build $(BUILD) --smoke $(ISCSI_BENCH)

micro: $(patsubst %,$(BUILD)/bench/%_bench,$(MICRO))
	@for b in $^; do echo "== $${b##*/}"; $$b || exit 1; done
