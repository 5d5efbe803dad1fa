/*
 * transfer.h: what send and receive share: the list of those under way, reading a stream, and batches of requests to a volume.
 *
 * A transfer's coroutine, and its stream, are on the pool's home reactor; the requests go to the volume's. Two batches take
 * turns: while one is with the volume, the other is filled from the stream, or written to it.
 */
#ifndef ENGINE_POOL_TRANSFER_H
#define ENGINE_POOL_TRANSFER_H

#include "engine/io/net.h"
#include "engine/pool/pool_internal.h"
#include "engine/pool/stream.h"

/* ---- those under way ---- */

struct pool_transfer {
	struct list link; /* p->transfers */
	struct ashlar_pool *p;
	struct stream *io;
	uint64_t volumes[2]; /* ids of what it holds; 0: none */
	bool stopping;	     /* the pool, or a volume, goes away: the stream has been shut down */
};

void pool_transfer_begin(struct pool_transfer *t, struct ashlar_pool *p, struct stream *io);
void pool_transfer_end(struct pool_transfer *t);
/* Those that hold the volume end soon, with an error. */
void pool_transfers_stop(struct ashlar_pool *p, uint64_t volume);
/* Coroutine. All of them end; returns when they have. */
void pool_co_transfers_stop(struct ashlar_pool *p);
/* Coroutine. Takes a->admin, never waiting for who waits for this transfer; an error as of pool_transfer_check(): it is not taken. */
int pool_transfer_co_admin(struct pool_transfer *t, struct err *e) __must_check;
/* -ESHUTDOWN with a sentence if it has been told to stop, else 0. */
int pool_transfer_check(const struct pool_transfer *t, struct err *e) __must_check;

/* ---- reading ahead: records are small ---- */

#define STREAM_READER_BYTES (64 * 1024)
struct stream_reader {
	struct stream *io;
	uint8_t *buf;
	size_t at, len;
	uint64_t n_bytes; /* that have been asked for and were there */
};
void stream_reader_init(struct stream_reader *r, struct stream *io);
void stream_reader_fini(struct stream_reader *r);
/* Coroutine. Exactly len bytes. -ECONNRESET: it ended before; else what the stream says. */
int stream_reader_co_read(struct stream_reader *r, void *buf, size_t len) __must_check;

/* ---- batches ---- */

#define BATCH_PIECES 32
#define BATCH_BYTES (2u << 20)
static_assert(BATCH_BYTES >= STREAM_PAYLOAD_MAX, "a payload fits");

struct batch_piece {
	uint8_t type; /* STREAM_DATA, STREAM_ZERO */
	uint64_t off_bytes, len_bytes;
	uint8_t *buf; /* of DATA */
	struct io io;
};
struct batch {
	struct bdev *b;
	struct reactor *home; /* b's */
	bool is_write;	      /* else DATA is read, and ZERO left alone */
	unsigned n;
	uint32_t used; /* of mem */
	uint8_t *mem;
	struct batch_piece v[BATCH_PIECES];
	bool is_running;
	int result;
	struct co_queue ended;
};
void batch_init(struct batch *b, struct bdev *bdev, struct reactor *home, bool is_write);
void batch_fini(struct batch *b); /* not running */
void batch_clear(struct batch *b);
static inline bool batch_has_room(const struct batch *b, uint32_t bytes)
{
	return b->n < BATCH_PIECES && bytes <= BATCH_BYTES - b->used;
}
/* There is room. Returns it, the buffer (of DATA) to be filled. */
struct batch_piece *batch_add(struct batch *b, uint8_t type, uint64_t off_bytes, uint64_t len_bytes);
/* All pieces at once, in the background. */
void batch_start(struct batch *b);
/* Coroutine. The result of the newest start; 0 if there was none. */
int batch_co_wait(struct batch *b) __must_check;

#endif
