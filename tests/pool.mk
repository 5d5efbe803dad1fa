# The pool's tests: what they need beside their layer.

$(BUILD)/tests/unit/engine_pool__parity: $(BUILD)/tests/lib/model.o
