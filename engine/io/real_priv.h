/*
 * real_priv.h: what the files of the real world share. `struct ur` is one real reactor; all of it is touched by its own thread
 * only, but for what says otherwise.
 *
 * `struct ur_ops` is the way to the kernel: io_uring (uring_ring.c, uring_submit.c) or epoll (epoll_loop.c, epoll_net.c,
 * epoll_disk.c). Above it are the threads (real_world.c), what makes a request of several steps (disk_real.c, real_net.c), and
 * how disks are opened; beside it AIO, which both use (real_aio.c).
 */
#ifndef ENGINE_IO_REAL_PRIV_H
#define ENGINE_IO_REAL_PRIV_H

#include <liburing.h> /* struct io_uring */
#include <linux/aio_abi.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "engine/io/disk.h"
#include "engine/io/net.h"
#include "engine/io/real.h"
#include "engine/io/worker.h"

#define UR_SLOTS 256 /* disks with a place in the table of registered files */
#define UR_PIN_BYTES (1u << 20) /* of the arena, with the kernel as one registered buffer; no block of buf.h lies in two */
#define UR_PINS 64
/* So many requests to disks do not wait for the end of the loop's turn: the disk works while the reactor goes on with what it has
 * received (docs/decisions.md). */
#define UR_SUBMIT_AT 8
#define AIO_EVENTS 1024
#define EPOLL_EVENTS 64

struct udisk;
struct npoll;
struct ur;

/* On the reactor's own thread. */
struct ur_ops {
	const char *name;
	bool is_nowait_aware; /* requests to disks that can do RWF_NOWAIT need not go by AIO */
	int (*init)(struct ur *u, char *why, size_t len); /* -errno and a sentence */
	void (*fini)(struct ur *u);
	/* Hands over what is queued: without waiting; or it waits for a completion, a kick, or so many ns (UINT64_MAX: no limit). */
	void (*submit)(struct ur *u);
	void (*sleep)(struct ur *u, uint64_t limit_ns);
	void (*reap)(struct ur *u); /* acts on what has completed */
	/* Steps of a disk's request; they end by udisk_complete(), never inside the call. rw is for what does not go by AIO. */
	void (*rw)(struct ur *u, struct io *io);
	void (*zeros)(struct ur *u, struct io *io, const struct iovec *iov, unsigned n, uint64_t off_bytes);
	void (*fsync)(struct ur *u, struct io *io);
	void (*fallocate)(struct ur *u, struct io *io, int mode);
	void (*discard)(struct ur *u, struct io *io); /* of a block device */
	void (*stat)(struct ur *u, struct udisk *d); /* d->stat; ends by udisk_stat_complete() */
	void (*aio_watch)(struct ur *u); /* aio.event_fd: ur_aio_event() when it is written to */
	void (*aio_refused)(struct ur *u, struct io *io); /* by io_submit(), or for RWF_NOWAIT: the step is to be done otherwise */
	/* One step of a socket's; ends by ur_net_complete(), never inside the call. */
	void (*net)(struct ur *u, struct net_op *op);
	/* POLLIN or POLLOUT, once, and never of one descriptor what a step of a socket's waits for; ends by npoll_complete(). */
	void (*poll)(struct ur *u, int fd, unsigned events, struct npoll *p);
};
extern const struct ur_ops ur_uring_ops, ur_epoll_ops;

/* What a reactor remembers of a disk: that its file is registered, and counts of this loop. */
struct ur_slot {
	struct udisk *registered;
	struct udisk *counted; /* NULL: nothing counted */
	uint64_t n_reads, bytes_read, bytes_written;
};

/* See real_aio.c. */
struct ur_aio {
	aio_context_t ctx;
	bool tried;
	unsigned n;	   /* gathered */
	unsigned inflight; /* submitted, not reaped */
	unsigned blind;	   /* of these, without event_fd */
	uint32_t seq;	   /* polls so far */
	int event_fd;
	bool armed; /* event_fd is watched */
	uint64_t event_value;
	struct iocb iocbs[UR_SUBMIT_AT];
	struct iocb *ptrs[UR_SUBMIT_AT];
};

/* Who waits for a descriptor to become ready: at most one to read (or accept) and one to write. */
struct ur_fd {
	struct net_op *in, *out;
	struct npoll *poll_in, *poll_out;
};

struct ur_epoll {
	int fd;
	int n; /* events */
	struct epoll_event events[EPOLL_EVENTS];
	struct ur_fd *fds; /* by number */
	unsigned n_fds;
	bool is_aio_watched; /* once is for good */
	bool is_old; /* there is no epoll_pwait2() (Linux 5.11), or it is forbidden */
	struct list net_soon; /* operations that have ended, and will have at the next turn: unet.link */
	struct task net_task;
};

struct ur {
	struct reactor r;
	struct real_world *w;
	struct io_uring ring;
	pthread_t thread;
	bool stop;
	bool files_registered;
	int kick_fd; /* written by any thread */
	uint64_t kick_value;
	char *arena;
	size_t arena_len;
	unsigned n_pins; /* parts of the arena that the kernel may pin */
	uint8_t pins[UR_PINS]; /* enum ur_pin_state */
	struct list soon; /* requests that complete at the next turn: io.link */
	struct task soon_task;
	struct ur_aio aio;
	struct ur_epoll epoll;
	unsigned n_counted;
	uint8_t counted[UR_SLOTS]; /* slots with counts of this loop */
	struct ur_slot slots[UR_SLOTS];
	struct list nconns; /* connections of remote disks whose home this is */
	struct msg stop_msg;
	int start_result; /* guarded by real_world.lock */
	char start_error[160];
};

struct real_world {
	struct world world;
	struct real_options opt;
	const struct ur_ops *ops;
	int uring_refused; /* -errno */
	struct worker_pool *workers; /* NULL with io_uring: the kernel has its own */
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
	struct real_world *w;
	int fd;
	int slot; /* -1: none left */
	unsigned flags;
	bool is_nowait_ok;	 /* it can do RWF_NOWAIT */
	bool by_aio;		 /* see real_aio.c */
	bool by_worker;		 /* whoever submits to it may have to wait */
	bool is_closed;
	bool flush_is_nothing;	 /* there is no volatile cache below */
	_Atomic bool aio_late;	 /* completions have been seen after io_submit() returned */
	_Atomic bool no_zero[2]; /* fallocate refused: [0] punching, [1] zeroing in place */
	_Atomic bool no_discard_cmd;
	_Atomic unsigned n_users; /* one while open; reactors that have still to forget it; questions and who waits for them; works */
	_Atomic unsigned n_works; /* with our worker threads: fd stays open for them */
	struct work_queue works;
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
	bool aio_nowait; /* -EAGAIN: it would have to wait, and has to go another way */
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

/* real_aio.c */
bool ur_aio_is_usable(struct ur *u);
void ur_aio_queue(struct ur *u, struct io *io);
unsigned ur_aio_poll(struct ur *u); /* submits what was gathered, completes what is done; number completed */
void ur_aio_event(struct ur *u);
void ur_aio_fini(struct ur *u);

/* disk_real.c */
void udisk_init(struct udisk *d);
/* What is left to transfer; the list's length. */
unsigned uio_left(struct io *io, struct iovec *one, const struct iovec **iov);
void udisk_complete(struct ur *u, struct io *io, int res);
void ur_publish_counts(struct ur *u); /* at the end of each loop in which u->n_counted */

/* disk_real_open.c */
int udisk_co_open(struct world *w, const char *path, unsigned flags, struct disk **out, struct err *e);
extern const struct disk_ops udisk_ops;
void udisk_put(struct udisk *d); /* of n_users: the last one frees it */
void udisk_stat_complete(struct ur *u, struct udisk *d, int res);
/* Puts the file into the reactor's table; false: not possible, use the descriptor. */
bool udisk_register(struct ur *u, struct udisk *d);

/* disk_probe.c */
int udisk_probe_fd(int fd, const char *path, char *what, size_t len, struct err *e);
int udisk_probe(struct world *w, const char *path, char *what, size_t len, struct err *e);

/* disk_nbd_open.c, disk_nbd.c */
int ndisk_co_open(struct real_world *w, const char *uri, unsigned flags, struct disk **out, struct err *e);
void npoll_complete(struct npoll *p);
void ur_nconns_fini(struct ur *u);		/* there are no polls any more */
void ndisk_forget_broken(struct real_world *w); /* the world's end */

/* real_keep.c */
int real_keep_open(struct world *w, const char *name, bool read_only, void **mem, size_t *bytes);
int real_keep_create(struct world *w, const char *name, size_t bytes, void **mem);
void real_keep_close(struct world *w, const char *name, void *mem, size_t bytes, bool forget);
/* real_net.c */

/* net_op.scratch */
struct unet {
	struct msghdr mh; /* of the rest */
	struct iovec *cut; /* entry that was sent in part, NULL if none */
	struct iovec whole; /* what it was */
	struct list link;
	int res;
};
_Static_assert(sizeof(struct unet) <= sizeof(((struct net_op *)0)->scratch), "scratch");

static inline struct unet *unet_of(struct net_op *op)
{
	return (struct unet *)(void *)op->scratch;
}

void ur_net_submit(struct world *w, struct net_op *op);
void ur_net_complete(struct ur *u, struct net_op *op, int res);

/* epoll_loop.c, epoll_net.c, epoll_disk.c */
void epoll_net(struct ur *u, struct net_op *op);
void epoll_net_is_ready(struct ur *u, struct net_op *op, bool is_over);
void epoll_net_init(struct ur *u);
/* The operation waits until fd is ready; 0 or -errno. */
int epoll_wait_for(struct ur *u, struct net_op *op);
void epoll_rw(struct ur *u, struct io *io);
void epoll_zeros(struct ur *u, struct io *io, const struct iovec *iov, unsigned n, uint64_t off_bytes);
void epoll_fsync(struct ur *u, struct io *io);
void epoll_fallocate(struct ur *u, struct io *io, int mode);
void epoll_discard(struct ur *u, struct io *io);
void epoll_stat(struct ur *u, struct udisk *d);
void epoll_aio_refused(struct ur *u, struct io *io);

#endif
