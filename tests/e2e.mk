# End to end: the real daemon, real clients. E2E_CYCLES: how often kill9.sh kills.

E2E_CYCLES ?= 10
# Two halves, which check.sh runs side by side.
E2E_1 := kill9 fs_image limits damage big_pool move aio iscsi
E2E_2 := disks backup send remote move_disks adopt move_out exports clients idle full nbdkit
E2E := $(E2E_1) $(E2E_2)

NO_URING := $(BUILD)/tests/e2e/no_uring

$(NO_URING): $(NO_URING).o
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -o $@ $^

.PHONY: e2e vm
e2e: all $(NO_URING)
	@n=0; bad=; for s in $(E2E); do \
		echo "== $$s"; \
		arg=; [ $$s != kill9 ] || arg=$(E2E_CYCLES); \
		bash tests/e2e/$$s.sh $(BUILD) $$arg || bad="$$bad $$s"; \
		n=$$((n + 1)); \
	done; \
	[ -z "$$bad" ] || { echo "failed:$$bad"; exit 1; }; \
	echo "$$n passed, 0 failed (end-to-end tests)"

# Random commands on two pools while clients write, with a model. make walk [SECONDS=60] [SEED=N] [WALKS=1]
.PHONY: walk
walk: all
	@for i in $$(seq $(or $(WALKS),1)); do \
		/usr/bin/python3 tests/e2e/walk.py $(BUILD) --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) || exit 1; \
	done

# Slow: boots a virtual machine three times, once, and once.
vm: all
	@bash tests/e2e/vm.sh $(BUILD)
	@bash tests/e2e/vm_nbd.sh $(BUILD)
	@bash tests/e2e/vm_iscsi.sh $(BUILD)
