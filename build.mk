# What people type besides `make`: help, deps, run, demo, install, uninstall, clean. Included by the Makefile.

DEPS_BUILD := gcc make libc6-dev liburing-dev libisal-dev libblkid-dev libnbd-dev libjansson-dev libsmartcols-dev libgnutls28-dev \
	nbdkit-plugin-dev pkg-config
DEPS_RUN := libnbd-bin
DEPS_DEMO := e2fsprogs
DEPS_CHECK := libcunit1-dev clang llvm python3 python3-libnbd qemu-utils fio libnbd-bin e2fsprogs nbdkit iproute2 openssl libiscsi-bin libiscsi-dev qemu-block-extra
DEPS_BENCH := fio qemu-utils nbdkit tgt libiscsi-dev

.PHONY: help
help:
	@echo "make            build $(BUILD)/ashlar, and the nbdkit plugin where nbdkit's header is"
	@echo "make run        build, make a pool of four sparse files in ./run and serve a volume over NBD"
	@echo "make demo       build, and show on files of its own what snapshots do; ends by itself after some seconds"
	@echo "make check      run all tests"
	@echo "make bench      measure, beside other NBD servers and iSCSI targets"
	@echo "make sim SEED=N replay one seed of the simulation"
	@echo "make deps       install the packages that building and running need (deps-demo, deps-check, deps-bench)"
	@echo "make install    install under PREFIX ($(PREFIX)), below DESTDIR; make uninstall takes it away"
	@echo "make clean      remove $(BUILD)"
	@echo
	@echo "Knobs: BUILD=DIR CC=clang SAN=asan|tsan|fuzz OPT=-O0 WERROR="

# Stamps keep it cheap; they are as old as the list of packages.
.PHONY: deps deps-demo deps-check deps-bench
deps: $(BUILD)/.deps
deps-demo: $(BUILD)/.deps $(BUILD)/.deps-demo
deps-check: $(BUILD)/.deps $(BUILD)/.deps-check
deps-bench: $(BUILD)/.deps $(BUILD)/.deps-bench
$(BUILD)/.deps: build.mk scripts/deps.sh
	@mkdir -p $(@D)
	@scripts/deps.sh $(DEPS_BUILD) $(DEPS_RUN)
	@touch $@
$(BUILD)/.deps-demo: build.mk scripts/deps.sh
	@mkdir -p $(@D)
	@scripts/deps.sh $(DEPS_DEMO)
	@touch $@
$(BUILD)/.deps-check: build.mk scripts/deps.sh
	@mkdir -p $(@D)
	@scripts/deps.sh $(DEPS_CHECK)
	@touch $@
$(BUILD)/.deps-bench: build.mk scripts/deps.sh
	@mkdir -p $(@D)
	@scripts/deps.sh $(DEPS_BENCH)
	@touch $@

# The build is a second make, so that it starts after the packages are there.
.PHONY: run
run: deps
	@+$(MAKE) --no-print-directory all
	@RUN_ONCE=$(RUN_ONCE) scripts/run.sh $(BUILD)/ashlar

.PHONY: demo
demo: deps-demo
	@+$(MAKE) --no-print-directory all
	@scripts/demo.sh $(BUILD)/ashlar

# ---- the library: the engine's layers in one archive ----

ENGINE_LIBS := $(foreach l,engine/pool thin engine/meta raid engine/io engine/base,$(call lib_of,$(l)))
HEADERS_PUBLIC := engine/pool/ashlar.h $(addprefix engine/base/,base.h err.h list.h uuid.h) \
	$(addprefix engine/io/,bdev.h co.h net.h reactor.h real.h)

$(BUILD)/libashlar.a: $(ENGINE_LIBS)
	@echo "  AR    $@"
	@rm -f $@
	@(echo "CREATE $@"; for l in $^; do echo "ADDLIB $$l"; done; echo SAVE; echo END) | ar -M

# ---- the nbdkit plugin: the engine once more, as code for a shared library; where nbdkit's header is ----
# nodelete: a thread that hangs in a call to a disk may be left when the plugin is unloaded.

PLUGIN := $(BUILD)/nbdkit-ashlar-plugin.so
PLUGIN_SRC := $(foreach l,engine/base engine/io raid engine/meta thin engine/pool frontends/nbdkit,$(wildcard $(l)/*.c))
HAVE_NBDKIT := $(wildcard /usr/include/nbdkit-plugin.h)
NBDKIT_PLUGINS ?= $(or $(shell pkg-config --variable=plugindir nbdkit 2>/dev/null),$(LIBDIR)/nbdkit/plugins)

$(BUILD)/pic/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $< (shared)"
	@$(CC) $(CFLAGS) -fPIC -fvisibility=hidden -ftls-model=initial-exec -MMD -MP -c -o $@ $<

$(PLUGIN): $(patsubst %.c,$(BUILD)/pic/%.o,$(PLUGIN_SRC))
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -shared -Wl,-z,nodelete -o $@ $^ $(LDLIBS_ENGINE)

.PHONY: plugin
plugin: $(PLUGIN)
ifneq ($(HAVE_NBDKIT),)
ifeq ($(SAN),none)
all: $(PLUGIN)
endif
endif

# ---- install ----

BINDIR := $(PREFIX)/bin
LIBDIR := $(PREFIX)/lib
INCDIR := $(PREFIX)/include/ashlar
DOCDIR := $(PREFIX)/share/doc/ashlar
MANDIR := $(PREFIX)/share/man/man1
UNITDIR := $(PREFIX)/lib/systemd/system
DOCS := README.md CHANGELOG.md LICENSE $(wildcard docs/*.md)

.PHONY: install uninstall
install: $(BUILD)/ashlar $(BUILD)/libashlar.a
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(DOCDIR)
	install -m 0755 $(BUILD)/ashlar $(DESTDIR)$(BINDIR)/ashlar
	install -m 0644 $(BUILD)/libashlar.a $(DESTDIR)$(LIBDIR)/libashlar.a
	@for h in $(HEADERS_PUBLIC); do install -D -m 0644 $$h $(DESTDIR)$(INCDIR)/$$h; done
	@printf '%s\n' 'Name: ashlar' 'Description: storage virtualization engine' 'Version: $(VERSION)' \
		'Cflags: -I$(INCDIR)' 'Libs: -L$(LIBDIR) -lashlar $(LDLIBS_ENGINE)' \
		>$(DESTDIR)$(LIBDIR)/pkgconfig/ashlar.pc
	install -m 0644 $(DOCS) $(DESTDIR)$(DOCDIR)
	install -d $(DESTDIR)$(UNITDIR)
	@for u in service socket; do sed 's,@BINDIR@,$(BINDIR),; s,@DOCDIR@,$(DOCDIR),' dist/ashlar.$$u >$(DESTDIR)$(UNITDIR)/ashlar.$$u && \
		chmod 0644 $(DESTDIR)$(UNITDIR)/ashlar.$$u; done
	@if [ -f $(PLUGIN) ]; then install -d $(DESTDIR)$(NBDKIT_PLUGINS) && install -m 0644 $(PLUGIN) $(DESTDIR)$(NBDKIT_PLUGINS); fi
	@if command -v help2man >/dev/null; then install -d $(DESTDIR)$(MANDIR) && \
		help2man -N --no-discard-stderr -n 'pool disks and serve thin volumes over NBD' $(BUILD)/ashlar >$(DESTDIR)$(MANDIR)/ashlar.1; fi

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/ashlar $(DESTDIR)$(LIBDIR)/libashlar.a $(DESTDIR)$(LIBDIR)/pkgconfig/ashlar.pc \
		$(DESTDIR)$(MANDIR)/ashlar.1 $(DESTDIR)$(UNITDIR)/ashlar.service $(DESTDIR)$(UNITDIR)/ashlar.socket \
		$(DESTDIR)$(NBDKIT_PLUGINS)/nbdkit-ashlar-plugin.so
	rm -rf $(DESTDIR)$(INCDIR) $(DESTDIR)$(DOCDIR)

.PHONY: clean
clean:
	rm -rf $(BUILD)
