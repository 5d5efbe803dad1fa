/*
 * The ring of a reactor: set up on its own thread (it is the single issuer), with the best flags the kernel knows, files
 * and buffers registered as far as the memlock limit goes, and restricted to the operations in use. Registered memory is pinned,
 * so of the arena a part is registered when it is first used: a reactor that has nothing to do takes next to no memory. And its
 * part of the loop: while there is work the kernel is entered only to submit, or to have it run completions that it has announced.
 */
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "engine/io/uring_priv.h"

#define SQ_ENTRIES 1024
#define CQ_ENTRIES 8192
#define WORKERS_MAX 256

static const uint8_t ops_in_use[] = {
	IORING_OP_READ,	      IORING_OP_WRITE,	     IORING_OP_READV, IORING_OP_WRITEV,	   IORING_OP_READ_FIXED,
	IORING_OP_WRITE_FIXED, IORING_OP_FSYNC,	     IORING_OP_FALLOCATE, IORING_OP_URING_CMD, IORING_OP_RECV,
	IORING_OP_SEND,	      IORING_OP_RECVMSG,     IORING_OP_SENDMSG,	  IORING_OP_ACCEPT,    IORING_OP_TIMEOUT,
	IORING_OP_STATX,      IORING_OP_POLL_ADD,
};

static const uint8_t registers_in_use[] = { IORING_REGISTER_FILES_UPDATE, IORING_REGISTER_BUFFERS_UPDATE, IORING_UNREGISTER_RING_FDS };

/* Two calls that some builds of liburing do not export. */
static int ring_register_raw(struct io_uring *ring, unsigned op, void *arg, unsigned n)
{
	return syscall(SYS_io_uring_register, ring->ring_fd, op, arg, n) < 0 ? -errno : 0;
}

static void ring_restrict(struct io_uring *ring)
{
	struct io_uring_restriction res[ARRAY_LEN(ops_in_use) + ARRAY_LEN(registers_in_use) + 1];
	unsigned i, n = 0;

	memset(res, 0, sizeof(res));
	for (i = 0; i < ARRAY_LEN(ops_in_use); i++, n++) {
		res[n].opcode = IORING_RESTRICTION_SQE_OP;
		res[n].sqe_op = ops_in_use[i];
	}
	for (i = 0; i < ARRAY_LEN(registers_in_use); i++, n++) {
		res[n].opcode = IORING_RESTRICTION_REGISTER_OP;
		res[n].register_op = registers_in_use[i];
	}
	res[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	res[n].sqe_flags = IOSQE_FIXED_FILE | IOSQE_ASYNC;
	/* An old kernel may not know an operation or restrictions at all: then there are none. */
	(void)!ring_register_raw(ring, IORING_REGISTER_RESTRICTIONS, res, n + 1);
}

static void ring_register(struct ur *u)
{
	unsigned n = (unsigned)MIN(u->arena_len / UR_PIN_BYTES, (size_t)UR_PINS);

	if (n && io_uring_register_buffers_sparse(&u->ring, n) == 0) /* Linux 5.19 */
		u->n_pins = n;
	u->files_registered = io_uring_register_files_sparse(&u->ring, UR_SLOTS) == 0;
}

bool ur_pin(struct ur *u, unsigned part)
{
	struct iovec iov = { .iov_base = u->arena + (size_t)part * UR_PIN_BYTES, .iov_len = UR_PIN_BYTES };
	__u64 tag = 0;

	if (u->pins[part] == UR_PIN_NOT_YET)
		u->pins[part] = io_uring_register_buffers_update_tag(&u->ring, part, &iov, &tag, 1) == 1 ? UR_PINNED : UR_PIN_REFUSED;
	return u->pins[part] == UR_PINNED;
}

/* A disk that does not answer keeps a worker for each request that has none of the kernel's asynchronous ways. By default there
 * are four per CPU for all files, and the flushes of the other disks would wait behind it. Older kernels keep the default. */
static void ring_set_workers(struct io_uring *ring)
{
	unsigned max[2] = { WORKERS_MAX, 0 /* as it is */ };

	(void)!ring_register_raw(ring, IORING_REGISTER_IOWQ_MAX_WORKERS, max, ARRAY_LEN(max));
}

static int ring_init(struct ur *u)
{
	static const unsigned tries[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED |
			IORING_SETUP_SUBMIT_ALL,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL,
		IORING_SETUP_R_DISABLED,
		0,
	};
	struct io_uring_params p;
	int r = -ENOSYS;
	unsigned i;

	for (i = 0; i < ARRAY_LEN(tries); i++) {
		memset(&p, 0, sizeof(p));
		p.flags = tries[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
		p.cq_entries = CQ_ENTRIES;
		r = io_uring_queue_init_params(SQ_ENTRIES, &u->ring, &p);
		if (r != -EINVAL)
			break;
	}
	if (r < 0)
		return r;
	io_uring_ring_dontfork(&u->ring);
	if (!u->w->opt.no_register)
		ring_register(u);
	ring_set_workers(&u->ring);
	if (p.flags & IORING_SETUP_R_DISABLED) {
		ring_restrict(&u->ring);
		r = ring_register_raw(&u->ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
		if (r < 0) {
			io_uring_queue_exit(&u->ring);
			return r;
		}
	}
	return 0;
}

struct io_uring_sqe *ur_sqe_slow(struct ur *u)
{
	struct io_uring_sqe *sqe;
	int r;

	do {
		r = io_uring_submit(&u->ring);
		CHECK(r >= 0 || r == -EBUSY || r == -EAGAIN || r == -EINTR);
		sqe = io_uring_get_sqe(&u->ring);
		if (!sqe && r < 0)
			io_uring_get_events(&u->ring);
	} while (!sqe);
	return sqe;
}

/* ---- the loop's part ---- */

static void kick_arm(struct ur *u)
{
	struct io_uring_sqe *sqe = ur_sqe(u);

	io_uring_prep_read(sqe, u->kick_fd, &u->kick_value, sizeof(u->kick_value), 0);
	ur_sqe_tag(sqe, NULL, UR_KICK);
}

static void aio_watch(struct ur *u)
{
	struct io_uring_sqe *sqe = ur_sqe(u);

	io_uring_prep_read(sqe, u->aio.event_fd, &u->aio.event_value, sizeof(u->aio.event_value), 0);
	ur_sqe_tag(sqe, NULL, UR_AIO_EVENT);
}

static void complete(struct ur *u, uint64_t user_data, int res)
{
	void *p = (void *)(uintptr_t)(user_data & ~(uint64_t)UR_TAG_MASK);

	if (unlikely(user_data == LIBURING_UDATA_TIMEOUT))
		return;
	switch (user_data & UR_TAG_MASK) {
	case UR_IO:
		udisk_complete(u, p, res);
		break;
	case UR_NET:
		ur_net_complete(u, p, res);
		break;
	case UR_KICK:
		kick_arm(u);
		break;
	case UR_AIO_EVENT:
		ur_aio_event(u);
		break;
	case UR_STAT:
		udisk_stat_complete(u, p, res);
		break;
	case UR_POLL:
		npoll_complete(p);
		break;
	default:
		CHECK(!"unknown completion");
	}
}

/* Completions may queue new requests, which may fill and so submit the ring: each entry is given back before it is acted
 * upon. */
static void reap(struct ur *u)
{
	struct io_uring *ring = &u->ring;
	unsigned head = *ring->cq.khead, tail = io_uring_smp_load_acquire(ring->cq.ktail);
	struct io_uring_cqe cqe;

	while (head != tail) {
		cqe = ring->cq.cqes[head & *ring->cq.kring_mask];
		io_uring_smp_store_release(ring->cq.khead, ++head);
		complete(u, cqe.user_data, cqe.res);
	}
}

static void submit_busy(struct ur *u)
{
	unsigned flags = IO_URING_READ_ONCE(*u->ring.sq.kflags);

	if (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))
		io_uring_submit_and_get_events(&u->ring);
	else if (io_uring_sq_ready(&u->ring))
		io_uring_submit(&u->ring);
}

static void submit_and_sleep(struct ur *u, uint64_t limit_ns)
{
	struct __kernel_timespec ts = { .tv_sec = (int64_t)(limit_ns / NS_PER_SEC), .tv_nsec = (long long)(limit_ns % NS_PER_SEC) };
	struct io_uring_cqe *cqe;

	if (limit_ns == UINT64_MAX)
		io_uring_submit_and_wait(&u->ring, 1);
	else
		io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
}

static int uring_init(struct ur *u, char *why, size_t len)
{
	int r = ring_init(u);

	if (r == 0)
		kick_arm(u);
	else
		snprintf(why, len, "cannot set up io_uring: %s%s", strerror(-r),
			 r == -EPERM || r == -ENOSYS ? " (is it forbidden here? see sysctl kernel.io_uring_disabled; --io aio does without)" : "");
	return r;
}

static void uring_fini(struct ur *u)
{
	io_uring_queue_exit(&u->ring);
}

const struct ur_ops ur_uring_ops = {
	.name = "uring",
	.is_nowait_aware = true,
	.init = uring_init,
	.fini = uring_fini,
	.submit = submit_busy,
	.sleep = submit_and_sleep,
	.reap = reap,
	.rw = uring_rw,
	.zeros = uring_zeros,
	.fsync = uring_fsync,
	.fallocate = uring_fallocate,
	.discard = uring_discard,
	.stat = uring_stat,
	.aio_watch = aio_watch,
	.aio_refused = uring_rw,
	.net = uring_net,
	.poll = uring_poll,
};
