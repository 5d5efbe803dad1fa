# Fuzz targets: every tests/fuzz/fuzz_*.c. They are built by a second make, with clang, in a directory of their own.
#   make fuzz-bins    build them
#   make fuzz-smoke   each replays its corpus, then runs SMOKE_SECONDS; for CI
#   make fuzz SECONDS=600 [TARGET=fuzz_pages]    new inputs are kept in $(BUILD)-fuzz/corpus

FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_BIN := $(patsubst %.c,$(BUILD)/%,$(FUZZ_SRC))
FUZZ_HELP_SRC := $(filter-out $(FUZZ_SRC),$(wildcard tests/fuzz/*.c)) $(wildcard tests/lib/*.c)
FUZZ_HELP := $(BUILD)/lib/tests_fuzz.a
FUZZ_BUILD := $(BUILD)-fuzz
SMOKE_SECONDS ?= 10
SECONDS ?= 60
TARGET ?=

ifeq ($(SAN),fuzz)
$(FUZZ_HELP): $(patsubst %.c,$(BUILD)/%.o,$(FUZZ_HELP_SRC))
	@mkdir -p $(@D)
	@rm -f $@
	@ar rcs $@ $^

$(FUZZ_BIN): %: %.o $(FUZZ_HELP) $(LIBS)
	@echo "  LD    $@"
	@$(CC) $(subst fuzzer-no-link,fuzzer,$(LDFLAGS)) -o $@ $^ $(LDLIBS)
endif

.PHONY: fuzz-targets fuzz-bins fuzz-smoke fuzz
fuzz-targets: $(FUZZ_BIN)

fuzz-bins:
	@+$(MAKE) --no-print-directory CC=clang SAN=fuzz OPT=-O1 BUILD=$(FUZZ_BUILD) fuzz-targets

fuzz-smoke: fuzz-bins
	@tests/fuzz/run.sh smoke $(FUZZ_BUILD) $(SMOKE_SECONDS) $(TARGET)

fuzz: fuzz-bins
	@tests/fuzz/run.sh long $(FUZZ_BUILD) $(SECONDS) $(TARGET)
