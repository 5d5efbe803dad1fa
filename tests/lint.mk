# Style and golden images.

.PHONY: lint golden
lint: $(LIBS)
	@python3 tests/lint/lint.py $(BUILD) $(CC)

golden: $(BUILD)/ashlar
	@bash tests/golden/check.sh $(BUILD)/ashlar
