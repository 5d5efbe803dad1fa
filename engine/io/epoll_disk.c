/*
 * Disks without io_uring: what AIO does not take goes to worker threads (worker.h): discards and zeros, requests to disks whose
 * submission may block, requests that would have to wait (RWF_NOWAIT), questions about files.
 *
 * A job holds the disk, so that its descriptor stays open, and has a list of buffers of its own: that of a rest changes.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/io/real_priv.h"

enum job_kind { JOB_READ, JOB_WRITE, JOB_FSYNC, JOB_FALLOCATE, JOB_DISCARD, JOB_STAT };

struct job {
	struct work work;
	struct ur *u;
	struct udisk *disk;
	struct io *io; /* NULL: JOB_STAT */
	enum job_kind kind;
	int mode, result; /* of fallocate(), of pwritev2() */
	uint64_t off_bytes, len_bytes;
	unsigned n;
	struct iovec iov[];
};

static int64_t job_call(struct job *j)
{
	uint64_t range[2] = { j->off_bytes, j->len_bytes };
	int fd = j->disk->fd;

	switch (j->kind) {
	case JOB_READ:
		return preadv2(fd, j->iov, (int)j->n, (off_t)j->off_bytes, 0);
	case JOB_WRITE:
		return pwritev2(fd, j->iov, (int)j->n, (off_t)j->off_bytes, j->mode);
	case JOB_FSYNC:
		return fdatasync(fd);
	case JOB_FALLOCATE:
		return fallocate(fd, j->mode, (off_t)j->off_bytes, (off_t)j->len_bytes);
	case JOB_DISCARD:
		return ioctl(fd, BLKDISCARD, range);
	case JOB_STAT:
		return statx(fd, "", AT_EMPTY_PATH, STATX_NLINK | STATX_SIZE, &j->disk->stat);
	}
	return 0;
}

static void job_run(struct work *w)
{
	struct job *j = container_of(w, struct job, work);
	int64_t r = job_call(j);

	j->result = r < 0 ? -errno : (int)r;
}

static void job_arrived(struct msg *m)
{
	struct job j = *container_of(m, struct job, work.msg);

	xfree(container_of(m, struct job, work.msg));
	atomic_fetch_sub(&j.disk->n_works, 1);
	if (j.io)
		udisk_complete(j.u, j.io, j.result);
	else
		udisk_stat_complete(j.u, j.disk, j.result);
	udisk_put(j.disk);
}

static struct job *job_new(struct ur *u, struct udisk *d, struct io *io, enum job_kind kind, unsigned n)
{
	struct job *j = xcalloc(1, sizeof(*j) + n * sizeof(j->iov[0]));

	j->work.run = job_run;
	j->work.msg.run = job_arrived;
	j->u = u;
	j->disk = d;
	j->io = io;
	j->kind = kind;
	j->n = n;
	if (io) {
		j->off_bytes = io->off_bytes;
		j->len_bytes = io->len_bytes;
	}
	return j;
}

static void job_submit(struct job *j)
{
	atomic_fetch_add(&j->disk->n_works, 1);
	atomic_fetch_add(&j->disk->n_users, 1);
	worker_submit(j->u->w->workers, &j->disk->works, &j->work);
}

void epoll_rw(struct ur *u, struct io *io)
{
	struct uio *s = uio_of(io);
	const struct iovec *iov;
	struct iovec one;
	unsigned n = uio_left(io, &one, &iov);
	struct job *j = job_new(u, s->disk, io, io->op == IO_WRITE ? JOB_WRITE : JOB_READ, n);

	memcpy(j->iov, iov, n * sizeof(*iov));
	j->off_bytes += s->at_bytes;
	j->mode = io->op == IO_WRITE && (io->flags & IO_FUA) ? RWF_DSYNC : 0;
	job_submit(j);
}

void epoll_zeros(struct ur *u, struct io *io, const struct iovec *iov, unsigned n, uint64_t off_bytes)
{
	struct job *j = job_new(u, uio_of(io)->disk, io, JOB_WRITE, n);

	memcpy(j->iov, iov, n * sizeof(*iov));
	j->off_bytes = off_bytes;
	job_submit(j);
}

void epoll_fsync(struct ur *u, struct io *io)
{
	if (uio_of(io)->disk->by_aio && ur_aio_is_usable(u))
		ur_aio_queue(u, io);
	else
		job_submit(job_new(u, uio_of(io)->disk, io, JOB_FSYNC, 0));
}

void epoll_fallocate(struct ur *u, struct io *io, int mode)
{
	struct job *j = job_new(u, uio_of(io)->disk, io, JOB_FALLOCATE, 0);

	j->mode = mode;
	job_submit(j);
}

void epoll_discard(struct ur *u, struct io *io)
{
	job_submit(job_new(u, uio_of(io)->disk, io, JOB_DISCARD, 0));
}

void epoll_stat(struct ur *u, struct udisk *d)
{
	job_submit(job_new(u, d, NULL, JOB_STAT, 0));
}

/* AIO has refused it, or it would have had to wait: a thread may. */
void epoll_aio_refused(struct ur *u, struct io *io)
{
	if (io->op > IO_WRITE) /* the one step of these that went by AIO */
		job_submit(job_new(u, uio_of(io)->disk, io, JOB_FSYNC, 0));
	else
		epoll_rw(u, io);
}
