# The proof: simulation, crash explorer, and the tests of the tests.

PROOF_LIB := $(addprefix $(BUILD)/tests/lib/,model.o model_family.o model_transfer.o model_share.o sim_rig.o sim_io.o sim_pools.o sim_family.o sim_adopt.o sim_limits.o sim_share.o sim_transfer.o parcel_stream.o)
PROOF_LAYERS := engine/pool thin engine/meta raid engine/io engine/base
PROOF_LIBS := $(foreach l,$(PROOF_LAYERS),$(call lib_of,$(l)))
SIM_BIN := $(BUILD)/tests/sim/sim
CRASH_BIN := $(BUILD)/tests/crash/crash

$(SIM_BIN): $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/sim/*.c)) $(PROOF_LIB) $(PROOF_LIBS)
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(CRASH_BIN): $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/crash/*.c)) $(PROOF_LIB) $(PROOF_LIBS)
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# Unit tests of the whole pool against the model.
PROOF_UNIT := $(addprefix $(BUILD)/tests/unit/,engine_pool__losses engine_pool__historic engine_pool__life engine_pool__disks \
	engine_pool__relocate engine_pool__reshape engine_pool__watch engine_pool__order engine_pool__leaving engine_pool__switching \
	engine_pool__label_rot engine_pool__trouble)
$(PROOF_UNIT): $(PROOF_LIB)
$(PROOF_UNIT): LDLIBS := $(PROOF_LIBS) $(LDLIBS)

JOBS ?= $(shell nproc)

# make sim SEED=N repeats one run. COUNT, MINUTES: so many, or so long, from a fresh seed; the regression seeds first.
.PHONY: sim crash mutants
sim: $(SIM_BIN)
	$(SIM_BIN) --jobs $(JOBS) $(if $(SEED),--seed $(SEED) $(if $(COUNT),--count $(COUNT)),--file tests/sim/seeds.txt \
		$(if $(MINUTES),--minutes $(MINUTES),--count $(if $(COUNT),$(COUNT),200)))

# make crash STATES=N, or WORKLOAD=W POINT=P VARIANT=V for one state. PARITY=1: raid5 and raid6, with every set of missing disks.
# OP=NAME: that operation alone, crashed at every event of the disks.
crash: $(CRASH_BIN)
	$(CRASH_BIN) --jobs $(JOBS) $(if $(PARITY),--parity) $(if $(WORKLOAD),--workload $(WORKLOAD) $(if $(POINT),--point $(POINT) --variant $(VARIANT)),$(if $(OP),--op $(OP),\
		$(if $(MINUTES),--minutes $(MINUTES),--states $(if $(STATES),$(STATES),50000))))

# Tests of the tests: the engine broken on purpose, in one way at a time. MUTANTS="NAME...": some of them.
mutants:
	@+$(MAKE) --no-print-directory BUILD=$(BUILD)/mutants EXTRA_CFLAGS="$(EXTRA_CFLAGS) -DASHLAR_MUTANTS" \
		$(BUILD)/mutants/tests/sim/sim $(BUILD)/mutants/tests/crash/crash $(BUILD)/mutants/tests/unit/engine_pool__move_pools \
		$(addprefix $(BUILD)/mutants/tests/unit/,engine_pool__leaving engine_pool__reshape raid__parity_crash)
	tests/crash/mutants.sh $(BUILD)/mutants $(JOBS) $(MUTANTS)

# What takes too long for every change: about two hours, and a virtual machine.
.PHONY: nightly
nightly: mutants
	@+$(MAKE) --no-print-directory BUILD=$(BUILD) check CHECK_ONLY="asan unit-asan-all cli-asan"
	@+$(MAKE) --no-print-directory BUILD=$(BUILD) sim MINUTES=30
	@+$(MAKE) --no-print-directory BUILD=$(BUILD) crash MINUTES=15 STATES=1000000
	@+$(MAKE) --no-print-directory BUILD=$(BUILD) crash PARITY=1 MINUTES=15 STATES=1000000
	@+$(MAKE) --no-print-directory BUILD=$(BUILD) crash OP=passes
	@+$(MAKE) --no-print-directory BUILD=$(BUILD) crash OP=passes PARITY=1
	@+$(MAKE) --no-print-directory BUILD=$(BUILD) e2e E2E_CYCLES=100
	@+ASHLAR_IO=aio $(MAKE) --no-print-directory BUILD=$(BUILD) e2e E2E_CYCLES=20
	@BUILD=$(BUILD) ASHLAR_IO=aio bash tests/proto/cli.sh
	@+$(MAKE) --no-print-directory BUILD=$(BUILD) walk WALKS=5 SECONDS=240
	@+$(MAKE) --no-print-directory BUILD=$(BUILD) vm
