# The NBD server's tests: what they need beside their layer.

NBD_MEM_OBJ := $(BUILD)/tests/lib/mem_bdev.o $(BUILD)/tests/lib/nbd_mem_exports.o
NBD_LIBS := $(call lib_of,nbd) $(call lib_of,engine/io) $(call lib_of,engine/base)
NBD_UNIT := $(BUILD)/tests/unit/nbd__handshake $(BUILD)/tests/unit/nbd__transmission
NBD_FUZZ := $(BUILD)/tests/fuzz/fuzz_nbd_handshake $(BUILD)/tests/fuzz/fuzz_nbd_transmission

# nbd_ashlar.o is linked only by who asks for it, so the engine below is not needed here.
$(NBD_UNIT): $(NBD_MEM_OBJ)
$(NBD_UNIT): LDLIBS := $(NBD_LIBS) $(LDLIBS)

$(BUILD)/tests/proto/nbd_mem_server: $(BUILD)/tests/proto/nbd_mem_server.o $(NBD_MEM_OBJ) $(NBD_LIBS)
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# SAN=fuzz CC=clang
$(NBD_FUZZ): $(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/%.o $(BUILD)/tests/fuzz/nbd_fuzz.o $(NBD_MEM_OBJ) $(NBD_LIBS)
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) $(subst fuzzer-no-link,fuzzer,$(LDFLAGS)) -o $@ $^ $(LDLIBS)

.PHONY: nbd-proto nbd-fuzz
nbd-proto: $(BUILD)/tests/proto/nbd_mem_server
	/usr/bin/python3 tests/proto/nbd_libnbd.py $<
	/usr/bin/python3 tests/proto/nbd_hostile.py $<

nbd-fuzz: $(NBD_FUZZ)
