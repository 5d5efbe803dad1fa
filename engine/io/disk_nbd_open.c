/*
 * Connecting to remote disks, and letting go of them.
 *
 * Names are looked up and handshakes done by a thread that ends with that, so that no reactor waits for the network. The coroutine
 * that opens waits for it OPEN_NS; a thread that is still in the resolver then keeps what it has, and frees it.
 *
 * A network that has failed says nothing, so the kernel is told to give up: DEAD_MS without an acknowledgement while something is on
 * its way, or without an answer to probes while nothing is, end the connection. A server that acknowledges but does not answer is left
 * to the limits of the RAID layer, like any disk: its writes may still come.
 *
 * What a broken connection has not sent must never be sent: closing would leave it to the kernel, which goes on trying, and an old
 * write could arrive behind newer ones of the next connection. So it is reset (nconn_abort()). What the server has received by then it
 * may still carry out; the disk is not opened for writing again before BROKEN_NS have passed.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "engine/io/disk_nbd.h"
#include "engine/io/disk_uri.h"

#define OPEN_NS (5 * NS_PER_SEC)
#define OPEN_GRACE_NS (250 * NS_PER_MS) /* for the thread to say that its time is over */
#define DEAD_MS 5000
#define BROKEN_NS (3 * NS_PER_SEC)
#define MAX_BYTES (4 * MIB)
#define MAX_BYTES_MIN (256 * KIB) /* what is written in one request, zeros for one */
#define PROBE_HEAD (2 * MIB) /* where signatures are looked for */
#define PROBE_TAIL MIB

const char *nbd_reason(void)
{
	const char *text = nbd_get_error(), *colon;

	if (!text)
		return "";
	colon = !strncmp(text, "nbd_", 4) ? strstr(text, ": ") : NULL;
	return colon ? colon + 2 : text;
}

/* ---- the thread that connects ---- */

struct opening {
	pthread_mutex_t lock;
	bool is_abandoned, is_over; /* under the lock */
	struct reactor *from;
	struct msg msg;
	bool has_ended; /* of `from`, as what follows */
	struct co_queue waiter;
	/* of the thread until it is over */
	char *uri;
	unsigned n_wanted, n;
	uint64_t deadline_ns;
	struct nbd_handle *h[NCONNS_MAX];
	struct err e;
};

static void opening_free(struct opening *o)
{
	while (o->n)
		nbd_close(o->h[--o->n]);
	pthread_mutex_destroy(&o->lock);
	xfree(o->uri);
	xfree(o);
}

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static int refuse_late(const char *uri, struct err *e)
{
	return err_set(e, -ETIMEDOUT, "cannot connect to %.300s: no answer within %llu s (if it serves one client at a time, it may have one)",
		       uri, OPEN_NS / NS_PER_SEC);
}

static int refuse(const struct opening *o, struct err *e)
{
	int r = nbd_get_errno();

	return err_set(e, r ? -r : -EIO, "cannot connect to %.300s: %.150s", o->uri, nbd_reason());
}

/* Until it is ready for commands. */
static int handshake(struct opening *o, struct nbd_handle *h, struct err *e)
{
	uint64_t now;

	while (!nbd_aio_is_ready(h)) {
		if (nbd_aio_is_dead(h) > 0 || nbd_aio_is_closed(h) > 0)
			return refuse(o, e);
		now = monotonic_ns();
		if (now >= o->deadline_ns)
			return refuse_late(o->uri, e);
		if (nbd_poll(h, (int)((o->deadline_ns - now) / NS_PER_MS) + 1) < 0)
			return refuse(o, e);
	}
	return 0;
}

static int connect_one(struct opening *o, struct err *e)
{
	struct nbd_handle *h = nbd_create();
	int r;

	if (!h)
		return refuse(o, e);
	nbd_set_uri_allow_local_file(h, true); /* certificates and keys: whoever names a disk may name files */
	nbd_set_uri_allow_transports(h, LIBNBD_ALLOW_TRANSPORT_TCP | LIBNBD_ALLOW_TRANSPORT_UNIX);
	nbd_set_pread_initialize(h, false);
	nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION); /* where there is nothing, if the server can tell */
	r = nbd_aio_connect_uri(h, o->uri) < 0 ? refuse(o, e) : handshake(o, h, e);
	if (r < 0)
		nbd_close(h);
	else
		o->h[o->n++] = h;
	return r;
}

static void opening_arrived(struct msg *m)
{
	struct opening *o = container_of(m, struct opening, msg);

	o->has_ended = true;
	co_queue_wake_all(&o->waiter);
}

static void *opening_main(void *arg)
{
	struct opening *o = arg;
	bool is_abandoned;

	if (connect_one(o, &o->e) == 0 && nbd_can_multi_conn(o->h[0]) > 0)
		while (o->n < o->n_wanted && connect_one(o, NULL) == 0)
			;
	pthread_mutex_lock(&o->lock);
	is_abandoned = o->is_abandoned;
	o->is_over = true;
	if (!is_abandoned) /* under the lock: the other side may end it all as soon as it is sent */
		reactor_post(o->from, &o->msg);
	pthread_mutex_unlock(&o->lock);
	if (is_abandoned)
		opening_free(o);
	return NULL;
}

static int thread_start(struct opening *o, struct err *e)
{
	pthread_attr_t attr;
	pthread_t t;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	r = -pthread_create(&t, &attr, opening_main, o);
	pthread_attr_destroy(&attr);
	return r < 0 ? err_set(e, r, "cannot start a thread to connect to %.300s: %s", o->uri, strerror(-r)) : 0;
}

/* Coroutine. Connected, in *out; or -errno, and nothing is left. */
static int opening_co_run(struct real_world *w, const char *uri, unsigned n_wanted, struct opening **out, struct err *e)
{
	struct opening *o = xcalloc(1, sizeof(*o));
	uint64_t end = monotonic_ns() + OPEN_NS;
	int r;

	pthread_mutex_init(&o->lock, NULL);
	co_queue_init(&o->waiter);
	o->from = reactor_self();
	o->msg.run = opening_arrived;
	o->uri = xstrdup(uri);
	o->n_wanted = n_wanted;
	o->deadline_ns = end;
	r = thread_start(o, e);
	if (r < 0) {
		opening_free(o);
		return r;
	}
	while (!o->has_ended && r == 0)
		r = co_queue_wait_until(&o->waiter, end + OPEN_GRACE_NS);
	pthread_mutex_lock(&o->lock);
	o->is_abandoned = !o->is_over;
	pthread_mutex_unlock(&o->lock);
	if (o->is_abandoned)
		return refuse_late(uri, e);
	while (!o->has_ended)
		co_queue_wait(&o->waiter);
	pthread_mutex_lock(&o->lock); /* it has let go of it */
	pthread_mutex_unlock(&o->lock);
	if (!o->n) {
		r = err_set(e, o->e.code, "%s", o->e.text);
		opening_free(o);
		return r;
	}
	*out = o;
	return 0;
}

/* ---- what has broken not long ago ---- */

struct broken {
	struct list link; /* real_world.broken */
	uint64_t until_ns;
	char *uri;
};

static void broken_free(struct broken *b)
{
	list_del(&b->link);
	xfree(b->uri);
	xfree(b);
}

void ndisk_note_broken(struct ndisk *d)
{
	struct broken *b;

	if (d->disk.bdev.read_only)
		return;
	b = xcalloc(1, sizeof(*b));
	b->uri = xstrdup(d->disk.path);
	b->until_ns = monotonic_ns() + BROKEN_NS;
	pthread_mutex_lock(&d->w->lock);
	list_push_back(&d->w->broken, &b->link);
	pthread_mutex_unlock(&d->w->lock);
}

void ndisk_forget_broken(struct real_world *w)
{
	while (!list_is_empty(&w->broken))
		broken_free(list_first(&w->broken, struct broken, link));
}

static uint64_t broken_until(struct real_world *w, const char *uri)
{
	uint64_t now = monotonic_ns(), until = 0;
	struct broken *b, *next;

	pthread_mutex_lock(&w->lock);
	list_for_each_safe (b, next, &w->broken, link) {
		if (b->until_ns <= now)
			broken_free(b);
		else if (!strcmp(b->uri, uri))
			until = b->until_ns;
	}
	pthread_mutex_unlock(&w->lock);
	return until > now ? until - now : 0;
}

/* ---- connections ---- */

static void set_option(int fd, int level, int name, int value)
{
	(void)!setsockopt(fd, level, name, &value, sizeof(value)); /* on a unix socket most are nothing */
}

/* A broken connection is noticed, and what it has not sent is thrown away with it, also if this process is killed. */
static void set_options(int fd)
{
	struct linger drop = { .l_onoff = 1 };

	set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, DEAD_MS / 2000);
	set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, DEAD_MS / 2000 + 1);
	set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, DEAD_MS);
	(void)!setsockopt(fd, SOL_SOCKET, SO_LINGER, &drop, sizeof(drop));
}

void nconn_abort(struct nconn *c)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };

	if (connect(c->fd, &none, sizeof(none)) < 0) /* TCP: reset; libnbd's close() would not, for polls keep the socket */
		shutdown(c->fd, SHUT_RDWR);
}

void ndisk_put(struct ndisk *d)
{
	if (atomic_fetch_sub(&d->n_refs, 1) > 1)
		return;
	pthread_mutex_destroy(&d->lock);
	xfree(d->disk.path);
	xfree(d);
}

void nconn_free(struct nconn *c)
{
	list_del(&c->link);
	if (c->h)
		nbd_close(c->h);
	close(c->fd);
	ndisk_put(c->disk);
}

/* Home, or a world without threads. */
static void nconn_close(struct nconn *c)
{
	struct linger orderly = { .l_onoff = 0 };

	c->is_closing = true;
	if (!c->is_dead) {
		(void)!setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &orderly, sizeof(orderly));
		(void)!nbd_aio_disconnect(c->h, 0);
	}
	nbd_close(c->h);
	c->h = NULL;
	shutdown(c->fd, SHUT_RDWR); /* the polls end */
	if (!c->in.is_armed && !c->out.is_armed)
		nconn_free(c);
}

static void close_arrived(struct msg *m)
{
	nconn_close(container_of(m, struct nconn, close));
}

static void begin_arrived(struct msg *m)
{
	struct nconn *c = container_of(m, struct nconn, begin);

	list_push_back(&c->home->nconns, &c->link);
	nconn_look(c); /* from now on it is seen when the server goes */
}

void ur_nconns_fini(struct ur *u)
{
	while (!list_is_empty(&u->nconns))
		nconn_free(list_first(&u->nconns, struct nconn, link));
}

static void nconn_init(struct ndisk *d, unsigned i, struct nbd_handle *h)
{
	struct nconn *c = &d->conns[i];

	c->disk = d;
	c->home = d->n_conns > 1 ? d->w->ur[i] : ur_self();
	c->h = h;
	c->fd = dup(nbd_aio_get_fd(h));
	CHECK(c->fd >= 0);
	set_options(c->fd);
	c->in = (struct npoll){ .conn = c, .events = POLLIN };
	c->out = (struct npoll){ .conn = c, .events = POLLOUT };
	list_init(&c->link);
	list_init(&c->finished);
	list_init(&c->finished_task.link);
	c->finished_task.run = nconn_finished_run;
	c->begin.run = begin_arrived;
	c->kill.run = nconn_kill_arrived;
	c->close.run = close_arrived;
}

/* ---- the disk ---- */

static void ndisk_close(struct disk *disk)
{
	struct ndisk *d = container_of(disk, struct ndisk, disk);
	unsigned i;

	for (i = 0; i < d->n_conns; i++)
		reactor_post(&d->conns[i].home->r, &d->conns[i].close);
	ndisk_put(d);
}

/* NBD has no way to say that an export has changed its size. */
static int ndisk_refresh(struct disk *disk, struct err *e)
{
	return 0;
}

static int ndisk_co_alive(struct disk *disk, uint64_t size_bytes, struct err *e)
{
	struct ndisk *d = container_of(disk, struct ndisk, disk);
	int r = 0;

	if (atomic_load(&d->is_dead)) {
		pthread_mutex_lock(&d->lock);
		r = err_set(e, -ENODEV, "its connection broke: %s", d->why);
		pthread_mutex_unlock(&d->lock);
	} else if (disk->bdev.size_bytes < size_bytes) {
		r = err_set(e, -EIO, "it has shrunk to %llu bytes", (unsigned long long)disk->bdev.size_bytes);
	}
	return r;
}

/* Coroutine. Copies a range into the file. */
static int copy_co_range(struct disk *disk, int fd, uint64_t off, uint64_t len, void *buf)
{
	struct bdev *b = &disk->bdev;
	uint64_t end = MIN(off + len, b->size_bytes), part;
	int r = 0;

	for (off = ALIGN_DOWN(off, (uint64_t)b->block_bytes); off < end && r == 0; off += part) {
		part = MIN(end - off, MAX_BYTES_MIN);
		r = bdev_co_read(b, off, buf, part);
		if (r == 0 && pwrite(fd, buf, part, (off_t)off) != (ssize_t)part)
			r = -EIO;
	}
	return r;
}

/* libblkid looks at files: it gets one in memory, of the disk's size, with its start and its end. */
static int ndisk_co_probe(struct disk *disk, char *what, size_t len, struct err *e)
{
	uint64_t size = disk->bdev.size_bytes;
	void *buf = xaligned(4096, MAX_BYTES_MIN);
	int fd = memfd_create("remote disk", MFD_CLOEXEC), r = fd < 0 ? -errno : 0;

	if (r == 0 && ftruncate(fd, (off_t)size) < 0)
		r = -errno;
	if (r == 0)
		r = copy_co_range(disk, fd, 0, PROBE_HEAD, buf);
	if (r == 0 && size > PROBE_HEAD)
		r = copy_co_range(disk, fd, MAX(PROBE_HEAD, size - MIN(size, PROBE_TAIL)), PROBE_TAIL, buf);
	if (r < 0)
		err_set(e, r, "cannot look for foreign data on %.300s: %s", disk->path, err_text(r));
	else
		r = udisk_probe_fd(fd, disk->path, what, len, e);
	if (fd >= 0)
		close(fd);
	xfree(buf);
	return r;
}

static const struct disk_ops ndisk_ops = { .close = ndisk_close, .refresh = ndisk_refresh, .co_alive = ndisk_co_alive,
					   .co_probe = ndisk_co_probe };

static uint64_t hash_bytes(const void *p, size_t len)
{
	const uint8_t *b = p;
	uint64_t h = 0xcbf29ce484222325; /* FNV-1a */

	while (len--)
		h = (h ^ *b++) * 0x100000001b3;
	return h;
}

/* The same export by another name has the same server's address, in most cases. */
static void describe_ident(struct ndisk *d)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);
	char *name = nbd_get_export_name(d->conns[0].h);

	memset(&a, 0, sizeof(a));
	if (getpeername(d->conns[0].fd, (struct sockaddr *)&a, &len) < 0)
		len = 0;
	d->disk.ident[0] = len > sizeof(a.ss_family) ? hash_bytes(&a, MIN(len, (socklen_t)sizeof(a))) : hash_bytes(d->disk.path, strlen(d->disk.path));
	d->disk.ident[1] = name ? hash_bytes(name, strlen(name)) : 0;
	free(name);
}

static int describe_sizes(struct ndisk *d, struct err *e)
{
	struct nbd_handle *h = d->conns[0].h;
	int64_t size = nbd_get_size(h), min = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM), max = nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM),
		opt = nbd_get_block_size(h, LIBNBD_SIZE_PREFERRED);
	struct bdev *b = &d->disk.bdev;

	if (size < 0)
		return err_set(e, -EIO, "cannot find out the size of %.300s: %s", d->disk.path, nbd_reason());
	if (min > 4096 || (max > 0 && max < (int64_t)MAX_BYTES_MIN))
		return err_set(e, -EINVAL, "%.300s takes requests of %lld to %lld bytes; what is needed is 4096 or less to %llu or more", d->disk.path,
			       (long long)min, (long long)max, MAX_BYTES_MIN);
	b->block_bytes = min > 512 ? 4096 : 512;
	d->disk.tail_bytes = (uint32_t)((uint64_t)size % b->block_bytes);
	b->size_bytes = (uint64_t)size - d->disk.tail_bytes;
	b->opt_bytes = opt > 4096 && opt <= (int64_t)MAX_BYTES ? (uint32_t)opt : 4096;
	b->max_bytes = max > 0 ? (uint32_t)ALIGN_DOWN(MIN((uint64_t)max, MAX_BYTES), 4096ULL) : (uint32_t)MAX_BYTES;
	return 0;
}

static int describe(struct ndisk *d, unsigned flags, struct err *e)
{
	struct nbd_handle *h = d->conns[0].h;
	struct bdev *b = &d->disk.bdev;

	if (!(flags & DISK_RDONLY) && nbd_is_read_only(h) > 0)
		return err_set(e, -EROFS, "%.300s is exported read-only: have its server allow writing, or name another disk", d->disk.path);
	d->can_flush = nbd_can_flush(h) > 0;
	d->can_fua = nbd_can_fua(h) > 0;
	d->can_trim = nbd_can_trim(h) > 0;
	d->can_zero = nbd_can_zero(h) > 0;
	d->can_fast_zero = nbd_can_fast_zero(h) > 0;
	d->can_status = nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
	describe_ident(d);
	d->disk.is_own = net_peer_is_self(d->conns[0].fd);
	b->ops = &ndisk_bdev_ops;
	b->name = d->disk.path;
	b->copies = 1;
	b->read_only = flags & DISK_RDONLY;
	b->can_discard = d->can_trim;
	return describe_sizes(d, e);
}

static struct ndisk *ndisk_new(struct real_world *w, const char *uri, struct opening *o)
{
	struct ndisk *d = xcalloc(1, sizeof(*d) + o->n * sizeof(d->conns[0]));
	unsigned i;

	d->w = w;
	d->disk.world = &w->world;
	d->disk.path = xstrdup(uri);
	d->disk.ops = &ndisk_ops;
	d->n_conns = o->n;
	pthread_mutex_init(&d->lock, NULL);
	atomic_store(&d->n_refs, 1 + o->n);
	for (i = 0; i < o->n; i++)
		nconn_init(d, i, o->h[i]);
	o->n = 0;
	return d;
}

int ndisk_co_open(struct real_world *w, const char *uri, unsigned flags, struct disk **out, struct err *e)
{
	bool is_look = (flags & DISK_RDONLY) && (flags & DISK_NO_LOCK);
	struct opening *o = NULL;
	struct ndisk *d;
	uint64_t wait;
	unsigned i;
	int r = disk_uri_check(uri, e);

	if (r < 0)
		return r;
	CHECK(co_self());
	while (!(flags & DISK_RDONLY) && (wait = broken_until(w, uri)) > 0)
		co_sleep_ns(wait);
	r = opening_co_run(w, uri, is_look ? 1 : MIN(w->world.n_reactors, NCONNS_MAX), &o, e);
	if (r < 0)
		return r;
	d = ndisk_new(w, uri, o);
	opening_free(o);
	r = describe(d, flags, e);
	for (i = 0; i < d->n_conns; i++)
		reactor_post(&d->conns[i].home->r, &d->conns[i].begin);
	if (r < 0)
		ndisk_close(&d->disk);
	else
		*out = &d->disk;
	return r;
}
