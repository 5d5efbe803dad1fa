/*
 * scsi_internal.h: what the files of the SCSI half share.
 *
 *   scsi.c          a command from its arrival to its end; the task set
 *   scsi_tmf.c      task management
 *   scsi_table.c    which operations there are: handlers, CDB layouts, who may under whose reservation
 *   scsi_sense.c    sense data, errors of the engine as sense, unit attentions
 *   scsi_lu.c       logical units and nexuses
 *   scsi_inquiry.c scsi_mode.c scsi_report.c    what an LU says of itself
 *   scsi_space.c    thin provisioning thresholds: free space of the pool
 *   scsi_rw.c       the medium, simply: reads, writes, flushes
 *   scsi_more.c     the medium, with more than one step: verify, compare and write, write same, unmap
 *   scsi_reserve.c scsi_pr.c scsi_pr_in.c scsi_pr_out.c    who may
 *   scsi_copy.c scsi_token.c    third-party copy
 *
 * Everything of an LU is on its home reactor, without locks. A handler is called with all checks of its row done, and ends in
 * scsi_task_end() (from a later turn) or scsi_task_end_later() (from within the handler), exactly once.
 */
#ifndef FRONTENDS_ISCSI_SCSI_INTERNAL_H
#define FRONTENDS_ISCSI_SCSI_INTERNAL_H

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "frontends/iscsi/scsi.h"
#include "frontends/iscsi/scsi_pr.h"
#include "frontends/iscsi/scsi_wire.h"

#define SCSI_TASKS_MAX 4096	 /* of an LU, all nexuses: beyond it TASK SET FULL */
#define SCSI_CO_MAX 64		 /* of them in coroutines at once; others wait */
#define SCSI_PIECES 8		 /* requests in flight of one long command */
#define SCSI_ATTENTIONS_MAX 16	 /* of a nexus; the oldest stay */
#define SCSI_CAW_BLOCKS_MAX 255	 /* and never more than SCSI_CAW_BYTES_MAX */
#define SCSI_CAW_BYTES_MAX (128 * KIB)
#define SCSI_UNMAP_DESCRIPTORS_MAX 256
#define SCSI_UNMAP_BLOCKS_MAX (1024 * 1024)
#define SCSI_SAME_BLOCKS_MAX 65535 /* of WRITE SAME, whatever it writes */
#define SCSI_COPY_TARGETS_MAX 4
#define SCSI_COPY_SEGMENTS_MAX 16
#define SCSI_COPY_LIST_MAX (SCSI_COPY_TARGETS_MAX * 32 + SCSI_COPY_SEGMENTS_MAX * 32)
#define SCSI_COPY_LISTS_MAX 64	    /* results kept, of an LU */
#define SCSI_TOKEN_RANGES_MAX 64
#define SCSI_TOKEN_BYTES_MAX (256 * MIB)
#define SCSI_TOKEN_SECONDS 60	    /* a token lives so long */
#define SCSI_TOKEN_SECONDS_MAX 600
#define SCSI_TOKENS_MAX 256
#define SCSI_THRESHOLD_BYTES MIB	/* thresholds and log page count these */
#define SCSI_THRESHOLD_AGAIN_PERCENT 2	/* of the space: that much more than the threshold must be free before it is told of again */
#define SCSI_ABORT_NS (5 * NS_PER_SEC)	/* what is aborted is waited for so long */
#define SCSI_LEFT_BYTES_MAX (64 * MIB)	/* data-out of what has been left to itself, of an LU */
#define SCSI_LINGER_NS (NS_PER_SEC / 10)
#define SCSI_PARAM_MAX (64 * KIB) /* a parameter list is no longer */

/* Who may, when a reservation is another's; as SPC-4 5.12.1 and SBC-3 5.1 table. */
enum scsi_access {
	ACCESS_ANY,	   /* always, under RESERVE(6) too */
	ACCESS_UNRESERVED, /* always, unless under RESERVE(6) */
	ACCESS_READ,	   /* not if exclusive access is another's */
	ACCESS_WRITE,	   /* not if anything is another's */
	ACCESS_REGISTERED, /* whoever is registered */
	ACCESS_OWN,	   /* the handler looks */
};

enum {
	OPF_NO_ATTENTION = 1 << 0, /* is not told of unit attentions */
	OPF_WRITES = 1 << 1,	   /* not on what is read-only */
	OPF_CO = 1 << 2,	   /* the handler is a coroutine */
	OPF_ABORT_READ = 1 << 3,   /* may be left to itself when aborted, and needs its command no more: reads, flushes */
	OPF_LEAVE = 1 << 5,	   /* may be left to itself when a disk does not answer: does not need its nexus once it has begun */
	OPF_OUT = 1 << 4,	   /* has data-out of its own length: scsi_op.out_bytes */
};

struct scsi_op {
	uint8_t opcode;
	uint8_t has_sa; /* service action in byte 1 (bits 4..0) */
	uint8_t sa;
	uint8_t cdb_len;
	uint8_t access; /* enum scsi_access */
	uint8_t flags;
	void (*run)(struct scsi_task *t);
	uint8_t usage[16]; /* CDB usage data of REPORT SUPPORTED OPERATION CODES, from byte 1; byte 0 is the opcode */
};

/* scsi_table.c. NULL: unknown; *opcode_known: the opcode is, its service action is not. */
const struct scsi_op *scsi_op_find(const uint8_t *cdb, bool *opcode_known);
const struct scsi_op *scsi_op_at(size_t i); /* NULL beyond the last */

enum scsi_task_state { TASK_WAITING, TASK_RUNNING, TASK_ENDED };

struct scsi_task {
	struct list link;	/* lu->tasks, in order of arrival */
	struct list co_link;	/* lu->co_waiting */
	struct scsi_cmd *c;	/* NULL: it has been left to itself */
	struct scsi_lu *lu;
	struct scsi_nexus *nexus; /* NULL likewise */
	const struct scsi_op *op;
	uint8_t state, attr;
	bool aborted;		/* ends without a response; long work looks at it between steps */
	bool in_co;
	bool left;		/* goes on without its nexus: scsi_tmf.c; c is our own */
	struct co *co;		/* that runs it; NULL: none */
	struct task end;
	/* the outcome */
	uint8_t status, key;
	uint16_t asc;
	bool has_info, has_pointer, pointer_in_cdb;
	uint8_t pointer_bit;	/* 0..7; 8: the whole byte */
	uint16_t pointer;	/* the field that is wrong */
	uint64_t info;
	/* data-in */
	uint8_t *buf;
	size_t buf_bytes, in_bytes;
	/* the range, of commands that have one */
	uint64_t lba, off_bytes, len_bytes;
	uint32_t blocks;
	/* reads and writes: scsi_rw.c */
	uint8_t io_op;
	uint16_t io_flags;
	bool again, pumping;
	uint8_t pending, n_pieces;
	int result;
	uint64_t next_bytes;
	struct iovec *iovs;	/* of the pieces */
	struct io *pieces;	/* SCSI_PIECES; NULL: one request, io */
	struct io io;
};

struct scsi_nexus {
	struct list link;	/* lu->nexuses */
	struct list target_link; /* target->nexuses; reactor 0 */
	struct scsi_target *target;
	struct scsi_lu *lu;
	struct scsi_nexus_conf conf;
	uint16_t attentions[SCSI_ATTENTIONS_MAX]; /* oldest first */
	unsigned n_attentions;
	bool prevents_removal;
	unsigned n_tasks;
	/* its registration, if it was looked up after the last change */
	struct scsi_pr_reg *reg;
	uint32_t reg_version;
};

struct scsi_mode {
	bool d_sense, swp;
	bool write_through; /* WCE is off: each write is durable when it has ended */
	/* of free space, in MiB: thresholds that an initiator has turned off, or chosen (a bit each) */
	uint8_t off, chosen;
	uint32_t threshold[ASHLAR_LOW_LEVELS];
};

struct scsi_lu {
	struct scsi_target *target;
	/* reactor 0 */
	struct list link; /* target->lus */
	unsigned refs;	  /* 0: it is there for the sake of its reservation, or */
	bool lingers;	  /* of commands that a disk does not answer */
	/* constant */
	struct reactor *home;
	struct ashlar_attach *at;
	struct uuid uuid;
	uint8_t naa[8];
	uint32_t lba_bytes;
	unsigned lba_shift;
	/* home */
	_Atomic uint32_t cluster_bytes; /* what copies can share; read anywhere */
	struct bdev *bdev;
	bool read_only, gone;
	struct list nexuses, tasks, co_waiting;
	unsigned n_tasks, n_waiting, n_ordered, n_co, n_left;
	uint64_t left_bytes;
	struct co_queue task_ended;
	struct scsi_mode mode, saved; /* saved: what it is after a reset */
	struct scsi_nexus *reserved_by; /* RESERVE(6) */
	struct scsi_pr *pr;
	struct list copies; /* struct scsi_copy_result, oldest first */
	uint64_t free_bytes, total_bytes; /* of the pool; total 0: not known yet */
	uint8_t reached;		  /* thresholds that have been told of: a bit each */
};

struct scsi_target {
	struct ashlar *a;
	struct world *world;
	/* reactor 0 */
	struct co_mutex admin; /* LUs come and go */
	struct list lus, nexuses, idle_prs;
	_Atomic unsigned n_gone; /* words of it that have not been heard */
	unsigned n_lingering;
	struct list tokens; /* scsi_token.c */
	unsigned n_tokens;
	const struct scsi_store *store; /* NULL: nothing persists */
};

/* ---- scsi.c ---- */
void scsi_task_end(struct scsi_task *t);
void scsi_task_end_later(struct scsi_task *t);
/* Data-in of n bytes, zeros; cut to the allocation length when it ends. Returns it. */
uint8_t *scsi_task_in(struct scsi_task *t, size_t n);
/* The same, and the command ends: all n bytes, or what the initiator allows. */
void scsi_task_reply(struct scsi_task *t, size_t n, size_t allocation);
/* The CDB. */
static inline const uint8_t *scsi_task_cdb(const struct scsi_task *t) { return t->c->cdb; }
/* Copies up to n bytes of data-out from `skip` on; returns how many there were. */
size_t scsi_task_out(const struct scsi_task *t, size_t skip, void *buf, size_t n);
/* The command is not this task's any more. */
void scsi_task_let_go(struct scsi_task *t);
/* Coroutines of commands may begin. */
void scsi_lu_co_pump(struct scsi_lu *lu);

/* ---- scsi_tmf.c ---- */
/* Is there something before it that has been left to itself, and may still write there? */
bool scsi_task_is_after_left(struct scsi_task *t);
void scsi_task_left_end(struct scsi_task *t);
/* Coroutine. Nothing has been left to itself any more. */
void scsi_lu_co_settle(struct scsi_lu *lu);
/* The LU is reset, or a nexus lost: for scsi_lu.c. Coroutine. Aborts what `match` says, all if NULL; tas: others than `by` are answered
 * TASK ABORTED if the control mode page says so. */
void scsi_lu_co_abort(struct scsi_lu *lu, bool (*match)(const struct scsi_task *t, void *arg), void *arg);

/* ---- scsi_sense.c ---- */
void scsi_fail(struct scsi_task *t, uint8_t key, uint16_t asc);
/* ILLEGAL REQUEST: a field of the CDB, or of the parameter list, is wrong. bit 8: the whole byte. */
void scsi_bad_cdb(struct scsi_task *t, unsigned byte, unsigned bit);
void scsi_bad_list(struct scsi_task *t, unsigned byte, unsigned bit);
void scsi_fail_info(struct scsi_task *t, uint8_t key, uint16_t asc, uint64_t info);
/* An error of the engine. */
void scsi_fail_errno(struct scsi_task *t, int r);
/* Sense bytes; returns their number. */
uint8_t scsi_sense_make(const struct scsi_task *t, bool descriptors, uint8_t out[SCSI_SENSE_MAX]);
/* All nexuses of the LU but `except` (may be NULL) get it. */
void scsi_lu_attention(struct scsi_lu *lu, const struct scsi_nexus *except, uint16_t asc);
void scsi_nexus_attention_asc(struct scsi_nexus *n, uint16_t asc);
/* Takes the oldest: 0: there is none. */
uint16_t scsi_nexus_attention_take(struct scsi_nexus *n);

/* ---- scsi_rw.c ---- */
/* Fills t->lba, blocks, off_bytes, len_bytes from the CDB; false after it has set the failure: beyond the end. */
bool scsi_range_parse(struct scsi_task *t);
bool scsi_range_check(struct scsi_task *t, uint64_t lba, uint64_t blocks);
/* A write whose initiator has said that it sends less than the CDB says: so many blocks are written. False: none, or it
 * has failed. */
bool scsi_write_cut(struct scsi_task *t);
/* Sends t->io_op for off_bytes .. len_bytes with the payload, t->buf or data-out; ends the task when it is done. */
void scsi_io_start(struct scsi_task *t);
/* Coroutine. Reads len bytes into memory of buf_alloc(buf_bytes), which a stuck disk may make another: *buf changes. */
int scsi_co_read(struct scsi_lu *lu, uint64_t off_bytes, uint8_t **buf, size_t buf_bytes, size_t len) __must_check;
/* Coroutine. Makes a range read as zeros, in pieces as large as the bdev takes; -ERANGE: it has shrunk. */
int scsi_co_zero(struct scsi_lu *lu, uint64_t off_bytes, uint64_t len_bytes, unsigned flags) __must_check;
/* Write protection that is the LU's: 0, or an ASC. */
uint16_t scsi_write_protection(const struct scsi_lu *lu, const struct scsi_nexus *n);

/* ---- scsi_reserve.c ---- */
/* On the LU's home: may this session do so there? By a copy, that is sent to another LU. */
bool scsi_lu_session_may(struct scsi_lu *lu, uint64_t session, enum scsi_access access);
bool scsi_may(const struct scsi_task *t);
struct scsi_pr_reg *scsi_nexus_registration(struct scsi_nexus *n); /* NULL: not registered */
/* Who is not a nexus may not either: after each change of a reservation. */
void scsi_lu_fence(struct scsi_lu *lu);
void scsi_lu_release_nexus(struct scsi_lu *lu, const struct scsi_nexus *n);

/* ---- scsi_space.c ---- */
/* Mode page 1Ch, subpage 02h; returns its length. changeable: its mask. */
size_t scsi_threshold_page_put(const struct scsi_lu *lu, const struct scsi_mode *m, bool changeable, uint8_t *p);
/* What MODE SELECT has sent, checked. */
void scsi_threshold_page_take(const struct scsi_lu *lu, struct scsi_mode *m, const uint8_t *p);
/* The pool's space has changed, or the thresholds have: attentions for those that are reached now. */
void scsi_lu_space(struct scsi_lu *lu, uint64_t free_bytes, uint64_t total_bytes);
static inline unsigned scsi_threshold_exponent(const struct scsi_lu *lu) { return (unsigned)__builtin_ctz(SCSI_THRESHOLD_BYTES) - lu->lba_shift; }

/* ---- scsi_lu.c ---- */
/* Coroutine on any reactor. The LU of this designator (NAA) that the session of `n` has a nexus to: it stays until it is put. -ENOENT. */
int scsi_lu_co_find(struct scsi_nexus *n, const uint8_t naa[8], struct scsi_lu **out) __must_check;
void scsi_lu_co_put(struct scsi_lu *lu);

/* ---- scsi_copy.c ---- */
/* What became of a copy, for who asks by its list identifier. */
struct scsi_copy_result {
	struct list link;
	uint64_t session;
	uint32_t list_id;
	uint8_t service_action, status; /* 1: done, 2: failed, 0: under way */
	uint16_t segments;
	uint64_t moved; /* bytes, or blocks if of tokens */
	uint8_t sense[SCSI_SENSE_MAX], sense_len;
	uint8_t *token; /* of POPULATE TOKEN, SCSI_TOKEN_LEN, or NULL */
};
#define SCSI_TOKEN_LEN 512
struct scsi_copy_result *scsi_copy_result_begin(struct scsi_task *t, uint32_t list_id);
void scsi_copy_result_end(struct scsi_task *t, struct scsi_copy_result *r);
struct scsi_copy_result *scsi_copy_result_find(const struct scsi_task *t, uint32_t list_id);
void scsi_copies_free(struct scsi_lu *lu);
/* One end of a copy: checked as a command of the session would be. */
struct scsi_copy_end {
	struct scsi_lu *lu;
	uint64_t off_bytes;
};
/* Coroutine on any reactor. from.lu NULL: zeros. Returns 0 and *moved bytes, or an error; -EACCES: a reservation or write protection. */
int scsi_co_copy(struct scsi_task *t, struct scsi_copy_end from, struct scsi_copy_end to, uint64_t len_bytes, uint64_t *moved)
	__must_check;

/* Coroutine on any reactor. Is the range there? */
int scsi_copy_co_check(struct scsi_copy_end end, uint64_t len_bytes) __must_check;

/* ---- scsi_token.c ---- */
void scsi_tokens_init(struct scsi_target *t);
void scsi_tokens_fini(struct scsi_target *t);

/* Handlers, by file. */
void scsi_run_inquiry(struct scsi_task *t);
void scsi_run_test_unit_ready(struct scsi_task *t);
void scsi_run_request_sense(struct scsi_task *t);
void scsi_run_start_stop(struct scsi_task *t);
void scsi_run_prevent_allow(struct scsi_task *t);
void scsi_run_read_capacity_10(struct scsi_task *t);
void scsi_run_read_capacity_16(struct scsi_task *t);
void scsi_run_get_lba_status(struct scsi_task *t);
void scsi_run_report_target_port_groups(struct scsi_task *t);
void scsi_run_report_opcodes(struct scsi_task *t);
void scsi_run_report_tmf(struct scsi_task *t);
void scsi_run_log_sense(struct scsi_task *t);
/* scsi_mode.c. Coroutine, of a new LU: what is saved. */
int scsi_mode_co_load(struct scsi_lu *lu) __must_check;
void scsi_run_mode_sense(struct scsi_task *t);
void scsi_run_mode_select(struct scsi_task *t);
void scsi_run_read(struct scsi_task *t);
void scsi_run_write(struct scsi_task *t);
void scsi_run_sync(struct scsi_task *t);
void scsi_run_pre_fetch(struct scsi_task *t);
void scsi_run_verify(struct scsi_task *t);
void scsi_run_write_and_verify(struct scsi_task *t);
void scsi_run_compare_and_write(struct scsi_task *t);
void scsi_run_write_same(struct scsi_task *t);
void scsi_run_unmap(struct scsi_task *t);
void scsi_run_reserve(struct scsi_task *t);
void scsi_run_release(struct scsi_task *t);
void scsi_run_pr_in(struct scsi_task *t);
void scsi_run_pr_out(struct scsi_task *t);
void scsi_run_extended_copy(struct scsi_task *t);
void scsi_run_copy_status(struct scsi_task *t);
void scsi_run_copy_parameters(struct scsi_task *t);
void scsi_run_populate_token(struct scsi_task *t);
void scsi_run_write_using_token(struct scsi_task *t);
void scsi_run_receive_token(struct scsi_task *t);

#endif
