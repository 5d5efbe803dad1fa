/*
 * nbd_run.h: builds what an NBD client sends, runs the server over it in a simulated world, and reads what came back.
 */
#ifndef TESTS_LIB_NBD_RUN_H
#define TESTS_LIB_NBD_RUN_H

#include "nbd/nbd.h"
#include "nbd/proto.h"
#include "tests/lib/nbd_mem_exports.h"

/* ---- what the client sends ---- */

struct nbd_script {
	uint8_t *p;
	size_t len, cap;
	bool extended; /* form of the requests' headers */
};

void script_add(struct nbd_script *s, const void *p, size_t len);
void script_flags(struct nbd_script *s, uint32_t flags);
void script_option(struct nbd_script *s, uint32_t opt, const void *data, size_t len);
/* INFO or GO with NBD_INFO_BLOCK_SIZE, NAME, DESCRIPTION asked for. */
void script_go(struct nbd_script *s, uint32_t opt, const char *name);
/* LIST or SET_META_CONTEXT with one query (NULL: none). */
void script_context(struct nbd_script *s, uint32_t opt, const char *name, const char *query);
void script_contexts(struct nbd_script *s, uint32_t opt, const char *name, const char *const *queries, unsigned n);
/* Flags, structured replies and base:allocation (if wanted), GO. */
void script_handshake(struct nbd_script *s, const char *name, bool structured);
/* Flags, extended headers and, if there are any, contexts, GO. */
void script_handshake_extended(struct nbd_script *s, const char *name, const char *const *contexts, unsigned n);
void script_request(struct nbd_script *s, uint16_t cmd, uint16_t flags, uint64_t cookie, uint64_t off, uint64_t len);
void script_write(struct nbd_script *s, uint16_t flags, uint64_t cookie, uint64_t off, uint32_t len, uint8_t fill);
void script_free(struct nbd_script *s);

/* ---- running it ---- */

struct nbd_run {
	uint64_t seed;
	unsigned n_reactors;	 /* 0: 1 */
	size_t chunk;		 /* bytes per receive; 0: all */
	struct nbd_options o;
	/* Coroutine on reactor 0, before the stream is served and after. NULL: nothing. */
	void (*co_before)(struct nbd_run *run);
	void (*co_after)(struct nbd_run *run);
	/* Instead of serving `in`. */
	void (*co_body)(struct nbd_run *run);
	const void *in;
	size_t in_len;
	/* ---- set by nbd_run() ---- */
	struct world *w;
	struct nbd_mem_exports *exports; /* see nbd_run.c: "mem", "ro", "block4k", "delay", "faulty", "nofast", "marked", "huge" */
	struct nbd_server *server;
	uint8_t *out;		 /* what the server sent; freed by nbd_run_free() */
	size_t out_len;
	size_t at;		 /* reader's place in out */
	int result;		 /* of sim_run(): 0, or -EDEADLK: somebody hangs */
	size_t leaked;		 /* allocations left over */
};

enum { RUN_MEM, RUN_RO, RUN_BLOCK4K, RUN_DELAY, RUN_FAULTY, RUN_NOFAST, RUN_MARKED, RUN_HUGE, RUN_EXPORTS };
#define RUN_SIZE (8u << 20)
#define RUN_HUGE_SIZE (6ull << 30)

void nbd_run(struct nbd_run *run);
void nbd_run_free(struct nbd_run *run);

/* ---- reading what came back: next bytes of out, NULL if there are not that many ---- */
const void *run_take(struct nbd_run *run, size_t len);
/* Next option reply: its type; its data is in *data. 0 at the end or if it is malformed. */
uint32_t run_option_reply(struct nbd_run *run, uint32_t opt, const uint8_t **data, uint32_t *len);
/* Skips greeting and option replies up to and with the acknowledgement of GO. False if there is none. */
bool run_skip_handshake(struct nbd_run *run);

struct run_reply {
	uint64_t cookie;
	uint32_t error;
	bool structured, extended;
	uint16_t type;	  /* of the chunk */
	uint64_t request_off; /* extended: of the request, in the header */
	bool done;	  /* its last one; chunks of block status and of long reads are several */
	uint32_t context; /* of block status */
	const uint8_t *data; /* payload of the chunk after its fixed part, or of a simple reply to a read */
	uint32_t len;
	uint64_t off;
};
/* Next reply. read_len: bytes that follow a successful simple reply. False at the end or if malformed. */
bool run_reply(struct nbd_run *run, uint32_t read_len, struct run_reply *r);

#endif
