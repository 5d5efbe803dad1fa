# The pool's tests: what they need beside their layer.

$(BUILD)/tests/unit/engine_pool__parity: $(addprefix $(BUILD)/tests/lib/,model.o model_family.o model_transfer.o model_share.o)

# What the object needs stands behind it once more, under another name (a thin archive).
$(BUILD)/tests/unit/engine_pool__send: $(BUILD)/tests/lib/pipe_stream.o $(BUILD)/tests/lib/send_below.a
$(BUILD)/tests/lib/send_below.a: $(call lib_of,engine/io) $(call lib_of,engine/base)
	@mkdir -p $(@D)
	@rm -f $@
	@ar rcsT $@ $^
