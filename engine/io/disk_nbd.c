/*
 * Requests of remote disks.
 *
 * On a connection's home, a request becomes a command of libnbd, which sends as much as the socket takes; the rest, and the
 * answers, when the kernel says that the socket is ready. libnbd calls back in the middle of its work; what it has finished is put on
 * a list and looked at by a task, for nothing may be called in there, and `done` never runs inside submit.
 *
 * - Several buffers go through one of our own: libnbd knows only flat memory.
 * - IO_FUA without the server's help is the command and then a flush. A server without flush is believed to have no cache.
 * - Block status is a request of our own, a read of nothing by its looks.
 * - Discard and zero go in parts of PART_MAX, by the server's commands, or as written zeros; a discard may also be nothing.
 */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "engine/base/units.h"
#include "engine/io/disk_nbd.h"

#define PART_MAX ((uint32_t)GIB)
#define ZEROS_BYTES (256 * KIB)
#define REPLIES_AT_ONCE 64

enum { STAGE_FIRST, STAGE_WRITE_ZEROS, STAGE_FLUSH, STAGE_STATUS };

static char zeros[ZEROS_BYTES]; /* const would be a part of the program's file */

/* io.scratch while a remote disk has the request */
struct nreq {
	struct msg msg;
	struct nconn *conn;
	void *bounce;
	uint64_t at_bytes;   /* of discard and zero: done so far */
	uint32_t part_bytes; /* under way */
	uint8_t from;	     /* reactor */
	uint8_t stage;
};
_Static_assert(sizeof(struct nreq) <= sizeof(((struct io *)0)->scratch), "scratch");
_Static_assert(REACTORS_MAX <= 256, "nreq.from");

static inline struct nreq *nreq_of(struct io *io)
{
	return (struct nreq *)(void *)io->scratch;
}

/* A question for block status. */
struct nstatus {
	struct io io;
	uint64_t off_bytes, len_bytes; /* of the question; len also of the answer */
	uint32_t flags;
	struct co *co;
};

static inline struct io *io_of(struct msg *m)
{
	return (struct io *)(void *)((char *)m - offsetof(struct io, scratch)); /* msg comes first */
}

static inline bool is_range(const struct io *io)
{
	return io->op == IO_DISCARD || io->op == IO_ZERO;
}

static inline void count(_Atomic uint64_t *c, uint64_t n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

/* ---- the end, where it was submitted ---- */

static void nreq_count(struct disk *d, const struct io *io)
{
	if (nreq_of((struct io *)(uintptr_t)io)->stage == STAGE_STATUS)
		return;
	if (io->op == IO_READ && !io->result) {
		count(&d->n_reads, 1);
		count(&d->bytes_read, io->len_bytes);
	} else if (io->op == IO_FLUSH && !io->result) {
		count(&d->n_flushes, 1);
	} else if (io->op == IO_WRITE || is_range(io)) {
		count(&d->n_writes, 1);
		if (!(io->flags & IO_FUA) || io->result)
			count(&d->n_volatile, 1);
		if (io->op == IO_WRITE && !io->result)
			count(&d->bytes_written, io->len_bytes);
	}
	if (io->result && io->result != -EOPNOTSUPP)
		count(&d->n_errors, 1);
}

static void nreq_finish(struct io *io)
{
	struct nreq *n = nreq_of(io);

	if (n->bounce && io->op == IO_READ && !io->result)
		iov_from_buf(io->iov, io->iov_n, 0, n->bounce, io->len_bytes);
	if (n->bounce)
		xfree(n->bounce);
	nreq_count(&n->conn->disk->disk, io);
	io_done(io, io->result);
}

static void finish_arrived(struct msg *m)
{
	nreq_finish(io_of(m));
}

/* ---- commands, on the connection's home ---- */

/* libnbd is done with it, or never got it. Any context of the home. */
static void nreq_end(struct nconn *c, struct io *io, int result)
{
	io->result = result;
	list_push_back(&c->finished, &io->link);
	if (list_is_empty(&c->finished_task.link))
		reactor_ready(&c->finished_task);
}

static int answered(void *user_data, int *error)
{
	struct io *io = user_data;

	nreq_end(nreq_of(io)->conn, io, -*error);
	return 1; /* retire it */
}

static uint32_t fua_flag(const struct ndisk *d, const struct io *io)
{
	return io->flags & IO_FUA && d->can_fua ? LIBNBD_CMD_FLAG_FUA : 0;
}

static int64_t command_zero(struct nconn *c, struct io *io, nbd_completion_callback cb)
{
	struct ndisk *d = c->disk;
	struct nreq *n = nreq_of(io);
	uint64_t left = io->len_bytes - n->at_bytes, off = io->off_bytes + n->at_bytes;
	uint32_t flags = fua_flag(d, io);

	if (n->stage == STAGE_WRITE_ZEROS) {
		n->part_bytes = (uint32_t)MIN(left, ZEROS_BYTES);
		return nbd_aio_pwrite(c->h, zeros, n->part_bytes, off, cb, flags);
	}
	n->part_bytes = (uint32_t)MIN(left, (uint64_t)PART_MAX);
	if (io->op == IO_DISCARD)
		return nbd_aio_trim(c->h, n->part_bytes, off, cb, flags);
	flags |= (io->flags & IO_NO_HOLE ? LIBNBD_CMD_FLAG_NO_HOLE : 0) | (io->flags & IO_FAST_ZERO ? LIBNBD_CMD_FLAG_FAST_ZERO : 0);
	return nbd_aio_zero(c->h, n->part_bytes, off, cb, flags);
}

/* The first extent is enough. */
static int status_answered(void *user_data, const char *context, uint64_t off, uint32_t *entries, size_t n, int *error)
{
	struct nstatus *s = user_data;

	if (n < 2 || off != s->off_bytes || strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION))
		return 0;
	s->len_bytes = MIN(s->len_bytes, (uint64_t)entries[0]);
	s->flags = entries[1];
	return 0;
}

static int64_t command_status(struct nconn *c, struct io *io, nbd_completion_callback cb)
{
	struct nstatus *s = container_of(io, struct nstatus, io);
	nbd_extent_callback ecb = { .callback = status_answered, .user_data = s };

	return nbd_aio_block_status(c->h, s->len_bytes, s->off_bytes, ecb, cb, LIBNBD_CMD_FLAG_REQ_ONE);
}

/* Gives libnbd the command of the request's stage. */
static int64_t command(struct nconn *c, struct io *io)
{
	nbd_completion_callback cb = { .callback = answered, .user_data = io };
	struct nreq *n = nreq_of(io);
	void *buf = n->bounce ? n->bounce : io->iov_n ? io->iov->iov_base : NULL;

	if (n->stage == STAGE_STATUS)
		return command_status(c, io, cb);
	if (n->stage == STAGE_FLUSH || io->op == IO_FLUSH)
		return nbd_aio_flush(c->h, cb, 0);
	if (io->op == IO_READ)
		return nbd_aio_pread(c->h, buf, io->len_bytes, io->off_bytes, cb, 0);
	if (io->op == IO_WRITE)
		return nbd_aio_pwrite(c->h, buf, io->len_bytes, io->off_bytes, cb, fua_flag(c->disk, io));
	return command_zero(c, io, cb);
}

static bool zero_is_refused(struct ndisk *d)
{
	return !d->can_zero || atomic_load_explicit(&d->zero_refused, memory_order_relaxed);
}

/* 1: it needs no command any more; negative: refused. */
static int nreq_prepare(struct ndisk *d, struct io *io)
{
	struct nreq *n = nreq_of(io);

	if ((n->stage == STAGE_FLUSH || io->op == IO_FLUSH) && !d->can_flush)
		return 1;
	if (n->stage != STAGE_FIRST || !is_range(io))
		return 0;
	if (io->op == IO_DISCARD)
		return d->can_trim ? 0 : 1;
	if ((io->flags & IO_FAST_ZERO) && (!d->can_fast_zero || zero_is_refused(d)))
		return -EOPNOTSUPP;
	if (zero_is_refused(d))
		n->stage = STAGE_WRITE_ZEROS;
	return 0;
}

static void nreq_issue(struct nconn *c, struct io *io)
{
	int r = c->is_dead ? -ENODEV : nreq_prepare(c->disk, io);

	if (r) {
		nreq_of(io)->part_bytes = (uint32_t)MIN(io->len_bytes - nreq_of(io)->at_bytes, (uint64_t)PART_MAX);
		nreq_end(c, io, MIN(r, 0));
		return;
	}
	if (command(c, io) < 0) {
		r = nbd_get_errno();
		nreq_end(c, io, r ? -r : -EIO);
	}
	nconn_look(c);
}

static void issue_arrived(struct msg *m)
{
	struct io *io = io_of(m);

	nreq_issue(nreq_of(io)->conn, io);
}

static bool is_unsupported(int res)
{
	return res == -EOPNOTSUPP || res == -EINVAL;
}

/* The next command of a request; false: that was the last. */
static bool nreq_goes_on(struct nconn *c, struct io *io)
{
	struct ndisk *d = c->disk;
	struct nreq *n = nreq_of(io);

	if (io->op == IO_ZERO && n->stage == STAGE_FIRST && is_unsupported(io->result) && !(io->flags & IO_FAST_ZERO)) {
		atomic_store_explicit(&d->zero_refused, true, memory_order_relaxed);
		n->stage = STAGE_WRITE_ZEROS;
	} else if (io->result < 0) {
		if (io->op == IO_DISCARD && is_unsupported(io->result))
			io->result = 0;
		return false;
	} else if (is_range(io) && n->stage != STAGE_FLUSH && (n->at_bytes += n->part_bytes) < io->len_bytes) {
		/* the next part */
	} else if ((io->flags & IO_FUA) && !d->can_fua && n->stage != STAGE_FLUSH && (io->op == IO_WRITE || is_range(io))) {
		n->stage = STAGE_FLUSH;
	} else {
		return false;
	}
	nreq_issue(c, io);
	return true;
}

void nconn_finished_run(struct task *t)
{
	struct nconn *c = container_of(t, struct nconn, finished_task);
	struct list now, *l;
	struct nreq *n;
	struct io *io;

	list_init(&now);
	list_splice_back(&now, &c->finished);
	while ((l = list_pop_front(&now))) {
		io = list_entry(l, struct io, link);
		n = nreq_of(io);
		if (io->result == -ESHUTDOWN || (c->is_dead && io->result < 0))
			io->result = -ENODEV;
		if (nreq_goes_on(c, io))
			continue;
		if (n->from == c->home->r.index) {
			nreq_finish(io);
		} else {
			n->msg.run = finish_arrived;
			reactor_post(c->disk->w->world.reactors[n->from], &n->msg);
		}
	}
}

static void nreq_start(struct ndisk *d, struct io *io, unsigned stage)
{
	struct nreq *n = nreq_of(io);
	struct ur *u = ur_self();

	*n = (struct nreq){ .conn = &d->conns[u->r.index % d->n_conns], .from = (uint8_t)u->r.index, .stage = (uint8_t)stage };
	if (io->op <= IO_WRITE && io->iov_n > 1) {
		n->bounce = xmalloc(io->len_bytes);
		if (io->op == IO_WRITE)
			iov_to_buf(io->iov, io->iov_n, 0, n->bounce, io->len_bytes);
	}
	if (n->conn->home == u) {
		nreq_issue(n->conn, io);
	} else {
		n->msg.run = issue_arrived;
		reactor_post(&n->conn->home->r, &n->msg);
	}
}

static void ndisk_submit(struct bdev *b, struct io *io)
{
	CHECK(io->op == IO_READ || io->op == IO_FLUSH || !b->read_only);
	nreq_start(container_of(b, struct ndisk, disk.bdev), io, STAGE_FIRST);
}

static void status_done(struct io *io)
{
	co_wake(container_of(io, struct nstatus, io)->co);
}

static int ndisk_co_status(struct bdev *b, uint64_t off_bytes, uint64_t len_bytes, struct bdev_extent *ext, size_t *n)
{
	struct ndisk *d = container_of(b, struct ndisk, disk.bdev);
	struct nstatus s = { .off_bytes = off_bytes, .len_bytes = MIN(len_bytes, (uint64_t)PART_MAX), .co = co_self() };

	CHECK(*n > 0);
	*n = 1;
	if (d->can_status) {
		io_prep(&s.io, IO_READ, 0, 0, NULL, 0);
		s.io.done = status_done;
		nreq_start(d, &s.io, STAGE_STATUS);
		co_suspend();
		if (s.io.result < 0)
			return s.io.result;
		s.len_bytes = ALIGN_DOWN(s.len_bytes, (uint64_t)b->block_bytes);
	}
	if (d->can_status && s.len_bytes)
		*ext = (struct bdev_extent){ .len_bytes = s.len_bytes, .flags = s.flags & (BDEV_HOLE | BDEV_ZERO) };
	else
		*ext = (struct bdev_extent){ .len_bytes = MIN(len_bytes, (uint64_t)b->block_bytes) };
	if (!d->can_status)
		ext->len_bytes = len_bytes;
	return 0;
}

const struct bdev_ops ndisk_bdev_ops = { .submit = ndisk_submit, .co_status = ndisk_co_status };

/* ---- a connection: polling, breaking ---- */

static void npoll_arm(struct npoll *p)
{
	struct ur *u = p->conn->home;

	if (p->is_armed)
		return;
	p->is_armed = true;
	u->w->ops->poll(u, p->conn->fd, p->events, p);
}

/* The first one says why, and takes the others with it: what they have written is not covered by any flush any more. */
static void nconn_broke(struct nconn *c, const char *why)
{
	struct ndisk *d = c->disk;
	unsigned i;

	c->is_dead = true;
	nconn_abort(c);
	pthread_mutex_lock(&d->lock);
	if (!d->why[0])
		strncpy(d->why, why && *why ? why : "the server closed the connection", sizeof(d->why) - 1);
	pthread_mutex_unlock(&d->lock);
	if (atomic_exchange(&d->is_dead, true))
		return;
	ndisk_note_broken(d);
	for (i = 0; i < d->n_conns; i++) {
		if (&d->conns[i] == c)
			continue;
		atomic_fetch_add(&d->n_refs, 1);
		reactor_post(&d->conns[i].home->r, &d->conns[i].kill);
	}
}

static bool is_over(struct nconn *c)
{
	return nbd_aio_is_dead(c->h) > 0 || nbd_aio_is_closed(c->h) > 0;
}

void nconn_look(struct nconn *c)
{
	unsigned dir;

	if (c->is_dead || c->is_closing)
		return;
	if (is_over(c)) {
		nconn_broke(c, nbd_aio_is_dead(c->h) > 0 ? nbd_reason() : NULL);
		return;
	}
	dir = nbd_aio_get_direction(c->h);
	if (dir & LIBNBD_AIO_DIRECTION_READ)
		npoll_arm(&c->in);
	if (dir & LIBNBD_AIO_DIRECTION_WRITE)
		npoll_arm(&c->out);
}

/* One answer takes one call; what is there already is taken at once. A call for nothing would be a mistake: libnbd (seen in 1.14) then
 * waits for an answer, with commands unsent that it could be the answer to. And polls do end for nothing. */
static void nconn_read(struct nconn *c)
{
	char byte;
	int i;

	for (i = 0; i < REPLIES_AT_ONCE; i++) {
		if (recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (!(nbd_aio_get_direction(c->h) & LIBNBD_AIO_DIRECTION_READ) || nbd_aio_notify_read(c->h) < 0)
			return;
	}
}

void npoll_complete(struct npoll *p)
{
	struct nconn *c = p->conn;

	p->is_armed = false;
	if (c->is_closing) {
		if (!c->in.is_armed && !c->out.is_armed)
			nconn_free(c);
		return;
	}
	if (c->is_dead)
		return;
	if (p == &c->in)
		nconn_read(c);
	else if (nbd_aio_get_direction(c->h) & LIBNBD_AIO_DIRECTION_WRITE)
		(void)!nbd_aio_notify_write(c->h);
	nconn_look(c);
}

void nconn_kill_arrived(struct msg *m)
{
	struct nconn *c = container_of(m, struct nconn, kill);

	if (!c->is_dead && !c->is_closing) {
		nconn_abort(c);
		npoll_arm(&c->in); /* both end at once, and libnbd sees it */
		npoll_arm(&c->out);
	}
	ndisk_put(c->disk);
}
