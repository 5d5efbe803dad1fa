# The NBD server's tests: what they need beside their layer.

NBD_MEM_OBJ := $(addprefix $(BUILD)/tests/lib/,mem_bdev.o nbd_mem_exports.o)
NBD_SIM_OBJ := $(NBD_MEM_OBJ) $(addprefix $(BUILD)/tests/lib/,nbd_run.o nbd_pipe_client.o pipe_stream.o)
NBD_LIBS := $(call lib_of,nbd) $(call lib_of,engine/io) $(call lib_of,engine/base)
NBD_UNIT := $(addprefix $(BUILD)/tests/unit/nbd__,handshake transmission long_write extended turns)

# Prerequisites added to a unit test come after its layers on the linker's line, so what the objects need comes once more
# behind them, under another name (a thin archive).
$(NBD_UNIT): $(NBD_SIM_OBJ) $(BUILD)/tests/lib/nbd_below.a
$(BUILD)/tests/lib/nbd_below.a: $(NBD_LIBS)
	@mkdir -p $(@D)
	@rm -f $@
	@ar rcsT $@ $^

$(BUILD)/tests/proto/nbd_mem_server: $(BUILD)/tests/proto/nbd_mem_server.o $(NBD_MEM_OBJ) $(NBD_LIBS)
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

.PHONY: nbd-proto
nbd-proto: $(BUILD)/tests/proto/nbd_mem_server
	/usr/bin/python3 tests/proto/nbd_libnbd.py $<
	/usr/bin/python3 tests/proto/nbd_hostile.py $<
	/usr/bin/python3 tests/proto/nbd_tls.py $<
