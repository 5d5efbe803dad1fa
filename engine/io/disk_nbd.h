/*
 * disk_nbd.h: what the two files of remote disks share: disk_nbd.c (requests) and disk_nbd_open.c (connecting, closing).
 *
 * A remote disk has one connection, or several if the server says that a flush on one covers the writes of all (multi-conn): then
 * one for each reactor, up to NCONNS_MAX. A connection belongs to its home reactor, which alone calls libnbd for it and which
 * polls its socket. Requests of other reactors are sent there by message and their results back.
 *
 * There is no reconnecting: when one connection breaks, the disk is gone. All its requests end with -ENODEV, and so do later ones;
 * whoever wants it back opens it anew.
 */
#ifndef ENGINE_IO_DISK_NBD_H
#define ENGINE_IO_DISK_NBD_H

#include <libnbd.h>

#include "engine/io/real_priv.h"

#define NCONNS_MAX 16

struct ndisk;
struct nconn;

struct npoll {
	struct nconn *conn;
	unsigned events;
	bool is_armed;
};

/* Everything but `disk` and `home` is of the home reactor. */
struct nconn {
	struct list link; /* ur.nconns */
	struct ndisk *disk;
	struct ur *home;
	struct nbd_handle *h;
	int fd; /* a duplicate of libnbd's: it is there until polls have ended */
	struct npoll in, out;
	bool is_dead, is_closing;
	struct list finished; /* requests that libnbd is done with: io.link */
	struct task finished_task;
	struct msg begin, kill, close;
};

struct ndisk {
	struct disk disk;
	struct real_world *w;
	bool can_flush, can_fua, can_trim, can_zero, can_fast_zero, can_status;
	_Atomic bool zero_refused;
	_Atomic bool is_dead;
	_Atomic unsigned n_refs; /* the handle; connections; messages */
	pthread_mutex_t lock;	 /* why */
	char why[160];		 /* it is dead */
	unsigned n_conns;
	struct nconn conns[];
};

/* disk_nbd.c */
extern const struct bdev_ops ndisk_bdev_ops;
/* Home. After each call of libnbd: has the connection broken, what is to be polled. */
void nconn_look(struct nconn *c);
void nconn_kill_arrived(struct msg *m);
void nconn_finished_run(struct task *t);

/* disk_nbd_open.c */
void ndisk_put(struct ndisk *d);
/* Home. It has no polls any more. */
void nconn_free(struct nconn *c);
/* What is with the server when a connection breaks may still be carried out: opening the disk for writing waits a while. */
void ndisk_note_broken(struct ndisk *d);
/* Gives up what has not been sent, at once, and wakes the polls. */
void nconn_abort(struct nconn *c);
const char *nbd_reason(void); /* libnbd's last error without the name of its function */

#endif
