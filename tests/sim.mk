# The proof: simulation, crash explorer, and the tests of the tests.

PROOF_LIB := $(addprefix $(BUILD)/tests/lib/,model.o sim_rig.o)
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
