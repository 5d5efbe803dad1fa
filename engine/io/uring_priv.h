/*
 * uring_priv.h: what the files of the real world share. `struct ur` is one reactor with its ring; all of it is touched by
 * its own thread only, but for what says otherwise.
 */
#ifndef ENGINE_IO_URING_PRIV_H
#define ENGINE_IO_URING_PRIV_H

#include <liburing.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <sys/stat.h>

#include "engine/io/disk.h"
#include "engine/io/net.h"
#include "engine/io/uring.h"

#define UR_SLOTS 256 /* disks with a place in the table of registered files */
#define AIO_BATCH 128
#define AIO_EVENTS 1024

/* Low bits of user_data say what completes. */
enum ur_tag { UR_IO, UR_NET, UR_KICK, UR_AIO_EVENT, UR_STAT, UR_POLL, UR_TAG_MASK = 7 };

struct udisk;
struct npoll;

/* What a reactor remembers of a disk: that its file is registered, and counts of this loop. */
struct ur_slot {
	struct udisk *registered;
	struct udisk *counted; /* NULL: nothing counted */
	uint64_t n_reads, bytes_read, bytes_written;
};

/* Inline submission for disks that refuse RWF_NOWAIT: see uring_aio.c. */
struct ur_aio {
	aio_context_t ctx;
	bool tried;
	unsigned n;	   /* gathered */
	unsigned inflight; /* submitted, not reaped */
	unsigned blind;	   /* of these, without event_fd */
	uint32_t seq;	   /* number of the batch */
	int event_fd;
	bool armed; /* a ring read of event_fd is in flight */
	uint64_t event_value;
	struct iocb iocbs[AIO_BATCH];
	struct iocb *ptrs[AIO_BATCH];
};

struct ur {
	struct reactor r;
	struct uring_world *w;
	struct io_uring ring;
	pthread_t thread;
	bool stop;
	bool files_registered;
	int kick_fd; /* written by any thread */
	uint64_t kick_value;
	char *arena;
	size_t arena_len;
	size_t arena_registered; /* bytes from its start that the kernel has pinned */
	struct list soon; /* requests that complete at the next turn: io.link */
	struct task soon_task;
	struct ur_aio aio;
	unsigned n_counted;
	uint8_t counted[UR_SLOTS]; /* slots with counts of this loop */
	struct ur_slot slots[UR_SLOTS];
	struct list nconns; /* connections of remote disks whose home this is */
	struct msg stop_msg;
	int start_result; /* guarded by uring_world.lock */
	char start_error[160];
};

struct uring_world {
	struct world world;
	struct uring_options opt;
	pthread_mutex_t lock; /* control path: what follows */
	pthread_cond_t started;
	unsigned n_started;
	struct udisk *slots[UR_SLOTS]; /* who owns which slot */
	struct list closing;	       /* udisk.closing: still registered with some reactor */
	struct list broken;	       /* remote disks: disk_nbd_open.c */
	struct ur *ur[REACTORS_MAX];
};

struct udisk {
	struct disk disk;
	struct uring_world *w;
	int fd;
	int slot; /* -1: none left */
	unsigned flags;
	bool by_aio;		 /* see uring_aio.c */
	bool by_worker;		 /* whoever submits to it may have to wait */
	bool flush_is_nothing;	 /* there is no volatile cache below */
	_Atomic bool aio_late;	 /* completions have been seen after io_submit() returned */
	_Atomic bool no_zero[2]; /* fallocate refused: [0] punching, [1] zeroing in place */
	_Atomic bool no_discard_cmd;
	_Atomic unsigned n_users; /* one while open; reactors that have still to forget it; questions and who waits for them */
	_Atomic bool is_used_by[REACTORS_MAX]; /* has it in the table or in its counts */
	struct list closing;
	struct msg forget[REACTORS_MAX];
	/* co_alive(): of the reactor that calls it */
	struct statx stat;
	uint64_t stat_bytes;
	bool had_name, stat_has_name;
	int stat_result;
	unsigned n_stats_begun, n_stats_ended;
	struct co_queue stat_waiters;
};

/* io.scratch while a udisk has the request */
struct uio {
	struct udisk *disk;
	uint64_t at_bytes;  /* done so far */
	struct iovec *rest; /* after a short transfer of several buffers: what is left; xmalloc */
	uint32_t aio_seq;
	uint8_t stage;
	bool aio_blind;
};
_Static_assert(sizeof(struct uio) <= sizeof(((struct io *)0)->scratch), "scratch");

static inline struct ur *ur_self(void)
{
	return container_of(reactor_self(), struct ur, r);
}

static inline struct uio *uio_of(struct io *io)
{
	return (struct uio *)(void *)io->scratch;
}

/* A free submission entry; submits what is there when the ring is full. */
struct io_uring_sqe *ur_sqe_slow(struct ur *u);
static inline struct io_uring_sqe *ur_sqe(struct ur *u)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	return likely(sqe) ? sqe : ur_sqe_slow(u);
}

static inline void ur_sqe_tag(struct io_uring_sqe *sqe, void *p, enum ur_tag tag)
{
	sqe->user_data = (uint64_t)(uintptr_t)p | tag;
}

static inline bool ur_is_pinned(const struct ur *u, const void *p, size_t len)
{
	size_t at = (size_t)((const char *)p - u->arena);

	return at < u->arena_registered && len <= u->arena_registered - at;
}

/* uring_ring.c */
int ur_ring_init(struct ur *u); /* on the reactor's own thread */
void ur_ring_fini(struct ur *u);

/* uring_aio.c */
bool ur_aio_is_usable(struct ur *u);
void ur_aio_queue(struct ur *u, struct io *io);
unsigned ur_aio_poll(struct ur *u); /* submits what was gathered, completes what is done; number completed */
void ur_aio_event(struct ur *u);
void ur_aio_fini(struct ur *u);

/* disk_uring.c */
void udisk_init(struct udisk *d);
void udisk_ring_rw(struct ur *u, struct io *io);
/* What is left to transfer; the list's length. */
unsigned uio_left(struct io *io, struct iovec *one, const struct iovec **iov);
void udisk_complete(struct ur *u, struct io *io, int res);
void ur_publish_counts(struct ur *u); /* at the end of each loop in which u->n_counted */

/* disk_uring_open.c */
int udisk_co_open(struct world *w, const char *path, unsigned flags, struct disk **out, struct err *e);
extern const struct disk_ops udisk_ops;
void udisk_stat_complete(struct ur *u, struct udisk *d, int res);
/* Puts the file into the reactor's table; false: not possible, use the descriptor. */
bool udisk_register(struct ur *u, struct udisk *d);

/* disk_probe.c */
int udisk_probe_fd(int fd, const char *path, char *what, size_t len, struct err *e);
int udisk_probe(struct world *w, const char *path, char *what, size_t len, struct err *e);

/* disk_nbd_open.c, disk_nbd.c */
int ndisk_co_open(struct uring_world *w, const char *uri, unsigned flags, struct disk **out, struct err *e);
void npoll_complete(struct npoll *p);
void ur_nconns_fini(struct ur *u);	      /* the ring is no more */
void ndisk_forget_broken(struct uring_world *w); /* the world's end */

/* uring_net.c */
void ur_net_submit(struct world *w, struct net_op *op);
void ur_net_complete(struct ur *u, struct net_op *op, int res);

#endif
