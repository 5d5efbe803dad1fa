/*
 * nbd_mem_exports.h: a provider for the NBD server over memory devices, for tests and fuzzers.
 */
#ifndef TESTS_LIB_NBD_MEM_EXPORTS_H
#define TESTS_LIB_NBD_MEM_EXPORTS_H

#include "nbd/nbd.h"
#include "tests/lib/mem_bdev.h"

struct nbd_mem_export_spec {
	const char *name, *description;
	bool read_only;
	const char *allow; /* access.h; NULL: all */
	unsigned home; /* reactor, modulo their number */
	/* Metadata contexts "test:1", "test:2", ...: of the k-th, every other stretch of k * NBD_MEM_STRETCH bytes has the flags k. */
	unsigned n_contexts;
	struct mem_bdev_options o;
};

#define NBD_MEM_STRETCH 65536ULL

struct nbd_mem_exports;

/* Coroutine on reactor 0. The first export is the default one. */
struct nbd_mem_exports *nbd_mem_exports_co_create(struct world *w, const struct nbd_mem_export_spec *specs, size_t n);
/* Coroutine on reactor 0; nobody attached. */
void nbd_mem_exports_co_destroy(struct nbd_mem_exports *x);
void nbd_mem_exports_provider(struct nbd_mem_exports *x, struct nbd_provider *out);
struct mem_bdev *nbd_mem_export(struct nbd_mem_exports *x, size_t i);
/* How often it is attached now. */
unsigned nbd_mem_export_attached(struct nbd_mem_exports *x, size_t i);
/* Home reactor of the export: tells every attached session that the volume goes away. */
void nbd_mem_export_gone(struct nbd_mem_exports *x, size_t i);

#endif
