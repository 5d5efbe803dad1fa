# Tests. A unit test tests/unit/LAYER__NAME.c links its layer (slashes as one underscore: engine_io__co.c) and what lies below.

TEST_LIB_SRC := $(wildcard tests/lib/*.c)
TEST_LIB := $(BUILD)/lib/tests_lib.a
UNIT_SRC := $(wildcard tests/unit/*.c)
UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(UNIT_SRC))

# libraries from layer $(1) (underscored) downwards
libs_from = $(shell echo $(LIBS) | tr ' ' '\n' | sed -n '\,/$(1)\.a$$,,$$p')

define unit_rule
$(BUILD)/tests/unit/$(1): $(BUILD)/tests/unit/$(1).o $(call libs_from,$(firstword $(subst __, ,$(1))))
	@mkdir -p $$(@D)
	@echo "  LD    $$@"
	@$(CC) $(LDFLAGS) -o $$@ $$^ -lcunit $$(LDLIBS)
endef
$(foreach u,$(patsubst tests/unit/%.c,%,$(UNIT_SRC)),$(eval $(call unit_rule,$(u))))

.PHONY: unit-bins
unit-bins: $(UNIT_BIN)


# The parts: tests/NAME.mk, bench/NAME.mk.
include $(filter-out tests/tests.mk,$(wildcard tests/*.mk)) $(wildcard bench/*.mk)

# All of it, as CI runs it. CHECK_ONLY="unit lint" runs some steps alone.
.PHONY: check
check: deps deps-check
	@BUILD=$(BUILD) MAKE="$(MAKE)" bash tests/check.sh $(CHECK_ONLY)
