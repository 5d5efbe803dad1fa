/*
 * scsi.h: volumes as SCSI disks (SPC-5, SBC-4), whatever carries the commands. What a transport sees.
 *
 * A `struct scsi_target` knows all logical units of an engine. A logical unit (LU) is one export, attached while somebody has a
 * nexus to it, shared by all sessions; it lives on its volume's home reactor, and so do the commands for it. A nexus is one initiator
 * port, one target port and one LU: what a session may reach is what it has a nexus to, by any opcode, copies between LUs included.
 *
 * A command (struct scsi_cmd) is the transport's. It is submitted with all of its data-out there, on the nexus's home reactor, and
 * ends in done(), exactly once, there; never inside scsi_submit(). The data-in is this half's until scsi_cmd_fini().
 */
#ifndef FRONTENDS_ISCSI_SCSI_H
#define FRONTENDS_ISCSI_SCSI_H

#include "engine/io/bdev.h"
#include "engine/pool/ashlar.h"

#define SCSI_CDB_MAX 260     /* with an additional header segment */
#define SCSI_SENSE_MAX 64
#define SCSI_TRANSFER_MAX (8 * 1024 * 1024U) /* bytes of one READ or WRITE; the block limits page says so */
#define SCSI_NAME_MAX 255    /* of a port, without the NUL */

struct scsi_target;
struct scsi_lu;
struct scsi_nexus;
struct scsi_task;

enum scsi_status {
	SCSI_GOOD = 0x00,
	SCSI_CHECK_CONDITION = 0x02,
	SCSI_CONDITION_MET = 0x04,
	SCSI_BUSY = 0x08,
	SCSI_RESERVATION_CONFLICT = 0x18,
	SCSI_TASK_SET_FULL = 0x28,
	SCSI_TASK_ABORTED = 0x40,
};

/* As iSCSI codes them. */
enum scsi_attr { SCSI_UNTAGGED = 0, SCSI_SIMPLE = 1, SCSI_ORDERED = 2, SCSI_HEAD_OF_QUEUE = 3, SCSI_ACA = 4 };

struct scsi_cmd {
	/* before scsi_submit() */
	struct scsi_nexus *nexus;
	uint8_t attr;		    /* enum scsi_attr */
	uint16_t cdb_len;	    /* at least 6; what is missing of the CDB reads as zeros */
	uint8_t cdb[16];
	const uint8_t *cdb_long;    /* the whole CDB if cdb_len > 16, else NULL */
	const struct iovec *out_iov; /* data-out: all that has come; untouched until done() */
	unsigned out_iov_n;
	uint32_t out_bytes;	    /* their sum: at most what the initiator wanted to send */
	uint32_t out_expected;	    /* what it wanted to send: may be more */
	uint32_t in_max;	    /* what it wants to receive; only for the limit of memory: residuals are the transport's */
	void (*done)(struct scsi_cmd *c);
	/* Home reactor, at most once, before done(): it is being aborted, and a disk may still read the data-out: whose memory, of
	 * buf_alloc(*bytes), is not the transport's any more. NULL: then it is waited for. */
	void *(*out_take)(struct scsi_cmd *c, size_t *bytes);
	void *owner;
	/* after done() */
	uint8_t status;		    /* enum scsi_status */
	bool aborted;		    /* by task management: no response is sent */
	uint8_t sense_len;	    /* 0: none */
	uint8_t sense[SCSI_SENSE_MAX];
	struct iovec in;	    /* data-in: in.iov_len bytes, at most SCSI_TRANSFER_MAX; in_max is not looked at: cut it and set residuals */
	uint64_t want_bytes;	    /* what the CDB says is transferred, also if it failed: overflow or underflow is this against the
				     * expected length */
	/* this half's */
	struct scsi_task *task;
	void *in_buf;
	size_t in_buf_bytes;
};

/* On the home reactor of the nexus. Once per submitted command, after done(). Frees the data-in. */
void scsi_cmd_fini(struct scsi_cmd *c);

/* How much data-out the CDB asks for, for R2T: at least 0; UINT64_MAX: it cannot be told from the CDB alone (what the initiator
 * expects to send is taken). Any reactor. block_bytes: scsi_nexus_block_bytes(). */
uint64_t scsi_cdb_data_out(const uint8_t *cdb, uint16_t cdb_len, uint32_t block_bytes);

/* Commands that need no LU: REPORT LUNS to any LUN, and whatever is sent to a LUN that the session has not (is_mapped false). True:
 * it has been answered, in the call, without done(); then scsi_cmd_fini(). False: submit it. nexus may be NULL. Any reactor. */
struct scsi_lun_list {
	const uint16_t *lun; /* the session's, any order; at most 16383 each */
	size_t n;
};
bool scsi_answer_without_lu(struct scsi_cmd *c, const struct scsi_lun_list *luns, bool is_mapped);
/* LUN as eight bytes on the wire, both ways. -1: not one of ours. Any reactor. */
void scsi_lun_encode(uint16_t lun, uint8_t out[8]);
int scsi_lun_decode(const uint8_t in[8]);

/* Home reactor of the nexus. */
void scsi_submit(struct scsi_cmd *c);

/* ---- task management ---- */
enum scsi_tmf {
	SCSI_TMF_ABORT_TASK,	 /* one command, `ref` */
	SCSI_TMF_ABORT_TASK_SET, /* all of this nexus */
	SCSI_TMF_CLEAR_TASK_SET, /* of all nexuses; others get a unit attention */
	SCSI_TMF_LUN_RESET,	 /* likewise, and reservations of RESERVE(6), mode pages */
};
/* Coroutine on the nexus's home. What is aborted ends in done() with `aborted` before it returns; with reads that a stuck disk does
 * not answer too. Writes are waited for, five seconds (longer: copies between LUs, reservations): what a disk has not answered then
 * is over for whoever looks: commands that come where it may still write wait for it. -ENOENT: there is no such command. */
int scsi_co_tmf(struct scsi_nexus *n, enum scsi_tmf what, struct scsi_cmd *ref);

/* ---- targets and nexuses ---- */

/* Keeps the persistent reservations of LUs that ask for it (APTPL), by their uuid. */
enum scsi_kept { SCSI_KEPT_RESERVATIONS, SCSI_KEPT_MODE, SCSI_KEPT_N };

struct scsi_store {
	/* Coroutine on any reactor. -ENOENT: nothing is kept. *len: in: room, out: bytes. */
	int (*co_load)(void *arg, const struct uuid *lu, enum scsi_kept what, uint8_t *buf, size_t *len);
	/* The same; durable when it returns 0. len 0: nothing is to be kept any more. */
	int (*co_save)(void *arg, const struct uuid *lu, enum scsi_kept what, const uint8_t *buf, size_t len);
	/* The same. Is it still a disk for initiators? Where it is not, reservations that nobody has a session for end. NULL: it is. */
	bool (*co_is_disk)(void *arg, const struct uuid *lu);
	void *arg;
};

/* store.c: the one that keeps them as notes of their volumes. */
void iscsi_store_init(struct scsi_store *s, struct ashlar *a);

/* store: outlives the target; NULL: APTPL is refused. */
struct scsi_target *scsi_target_create(struct ashlar *a, const struct scsi_store *store);
/* Coroutine on reactor 0. No nexus left. */
void scsi_target_co_destroy(struct scsi_target *t);

/* Coroutine on any reactor. There may be fewer disks now (scsi_store.co_is_disk). */
void scsi_target_co_tidy(struct scsi_target *t);
/* What is kept of reservations, as ashlar_options.fence asks. */
uint8_t scsi_pr_fence(const void *state, size_t len);

struct scsi_nexus_ops {
	/* Home reactor, must not suspend. The volume goes away: commands in flight fail, new ones do too, and the nexus is to be closed. */
	void (*gone)(void *arg);
	/* Home reactor, must not suspend, may be NULL. There is a unit attention (the size has changed, ...): an asynchronous message may
	 * be sent; the next command gets it anyway. asc, ascq: which. */
	void (*attention)(void *arg, uint8_t asc, uint8_t ascq);
};

struct scsi_nexus_conf {
	char initiator[SCSI_NAME_MAX + 1]; /* initiator port: "iqn.1993-08.org.debian:01:abc,i,0x00023d000001" */
	char target[SCSI_NAME_MAX + 1];	   /* target port: "iqn.2026-01.org.ashlar:pool.vol,t,0x0001" */
	uint16_t port;			   /* relative target port identifier, from 1 */
	uint16_t tpg;			   /* target port group, from 1 */
	uint64_t session;		   /* the same for all nexuses of a session, of no other: copies reach LUs with it alone */
	bool read_only;			   /* by this export's rules; the volume may be so by itself */
	const struct scsi_nexus_ops *ops;
	void *arg;
};

/* Coroutine on any reactor. export_name as for ashlar_co_attach(). -ENOENT. */
int scsi_nexus_co_open(struct scsi_target *t, const char *export_name, const struct scsi_nexus_conf *c, struct scsi_nexus **out,
		       struct err *e) __must_check;
/* Coroutine on any reactor. Its commands have ended. What a session holds by persistent reservation stays. */
void scsi_nexus_co_close(struct scsi_nexus *n);
struct reactor *scsi_nexus_home(const struct scsi_nexus *n); /* any reactor */
uint32_t scsi_nexus_block_bytes(const struct scsi_nexus *n); /* any reactor: of one LBA */
/* Home reactor. The next command of this nexus ends with this unit attention (ASC, ASCQ): 3F 0E after the LUN map has changed. */
void scsi_nexus_attention(struct scsi_nexus *n, uint8_t asc, uint8_t ascq);

#endif
