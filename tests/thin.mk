# The thin layer's tests and benches: what they need beside their layer.

THIN_RIG := $(BUILD)/tests/lib/thin_rig.o $(BUILD)/tests/lib/thin_flags.o
THIN_LIBS := $(call lib_of,thin) $(call lib_of,engine/meta) $(call lib_of,engine/io) $(call lib_of,engine/base)

THIN_UNIT := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/thin__*.c))

$(THIN_UNIT): $(THIN_RIG)
$(THIN_UNIT): LDLIBS := $(THIN_LIBS) $(LDLIBS)

$(BUILD)/bench/map_bench: $(BUILD)/bench/map_bench.o $(THIN_RIG) $(THIN_LIBS)
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# Of the pool, on the same rig.
$(BUILD)/tests/unit/engine_pool__mirror: $(THIN_RIG) $(BUILD)/tests/lib/mem_bdev.o
$(BUILD)/tests/unit/engine_pool__mirror: LDLIBS := $(THIN_LIBS) $(LDLIBS)
