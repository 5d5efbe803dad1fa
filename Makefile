# Ashlar. `make help` lists what there is to do.

VERSION := 0.1.0
PREFIX ?= /usr/local
DESTDIR ?=
BUILD ?= build
CC ?= gcc
# SAN: none, asan (address + undefined), tsan (clang only), fuzz (clang: libFuzzer + asan)
SAN ?= none
OPT ?= -O2
WERROR ?= -Werror

WARN := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wno-unused-parameter
CFLAGS_none :=
CFLAGS_asan := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
CFLAGS_tsan := -fsanitize=thread -fno-omit-frame-pointer
CFLAGS_fuzz := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
CFLAGS += -std=gnu11 -g $(OPT) $(WARN) $(WERROR) -I. -D_GNU_SOURCE -DASHLAR_VERSION='"$(VERSION)"' $(CFLAGS_$(SAN)) $(EXTRA_CFLAGS)
LDFLAGS += $(CFLAGS_$(SAN))
CFLAGS += $(shell pkg-config --cflags gnutls 2>/dev/null)
LDLIBS_ENGINE := -luring -lisal -lblkid -lnbd $(or $(shell pkg-config --libs gnutls 2>/dev/null),-lgnutls) -lpthread
LDLIBS := $(LDLIBS_ENGINE) -ljansson -lsmartcols

# One static library per folder, in link order: a folder may call only what stands after it.
LAYERS := frontends/cli frontends/control frontends/iscsi nbd engine/pool thin engine/meta raid engine/io engine/base
lib_of = $(BUILD)/lib/$(subst /,_,$(1)).a
LIBS := $(foreach l,$(LAYERS),$(call lib_of,$(l)))
src_of = $(filter-out $(1)/main.c,$(wildcard $(1)/*.c))

.PHONY: all
all: $(BUILD)/ashlar

define layer_rule
$(call lib_of,$(1)): $(patsubst %.c,$(BUILD)/%.o,$(call src_of,$(1)))
	@mkdir -p $$(@D)
	@rm -f $$@
	@ar rcs $$@ $$^
endef
$(foreach l,$(LAYERS),$(eval $(call layer_rule,$(l))))

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/ashlar: $(BUILD)/frontends/cli/main.o $(LIBS)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

include build.mk
include tests/tests.mk

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
