/*
 * conn.h: a connection, which is a session: at error recovery level 0 with MaxConnections=1 there is no more to one. Private to the
 * target.
 *
 * Life: made and registered on the server's reactor (net_server.h), where the login runs as a coroutine (login.c); then
 * iscsi_conn_co_run() runs on the home of its first LU (conn.c: its turn, receiving; command.c: SCSI commands and their data;
 * task_mgmt.c; other.c: NOP, text, logout; reply.c: sending); then back on the server's reactor it is taken off the lists and freed.
 * The stream belongs to whichever reactor the connection is on.
 *
 * A command of an LU that lives elsewhere hops: there for scsi_submit(), back when it is done, there again for scsi_cmd_fini(). One
 * struct iscsi_task, and its one message, go all the way.
 *
 * Memory is bounded: one receive buffer; ISCSI_TASKS_MAX tasks; payload of max_session_bytes, or one command's. A command that would
 * go beyond waits in line before its data is asked for (R2T) or it is submitted (reads); data that comes unasked is limited
 * by FirstBurstLength.
 */
#ifndef FRONTENDS_ISCSI_CONN_H
#define FRONTENDS_ISCSI_CONN_H

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/net_server.h"
#include "frontends/iscsi/iscsi.h"
#include "frontends/iscsi/proto.h"
#include "frontends/iscsi/scsi.h"
#include "frontends/iscsi/text.h"

#define ISCSI_RECV_BYTES (256 * KIB)
#define ISCSI_SEGMENT_MAX (256U * 1024)	     /* data segment that we take; declared */
#define ISCSI_BURST_MAX (1024U * 1024)
#define ISCSI_FIRST_BURST_MAX (64U * 1024)
#define ISCSI_R2T_MAX 8			     /* outstanding per task */
#define ISCSI_WINDOW 128U		     /* commands in flight, by CmdSN */
#define ISCSI_IMMEDIATE_MAX 32U		     /* and so many immediate ones */
#define ISCSI_AHS_MAX (4 * 255U)
#define ISCSI_RESERVE_BYTES (256 * KIB)	     /* that a session always gets */
#define ISCSI_CTRL_MAX 32U		     /* replies to other than commands that wait to be sent: no more is taken meanwhile */
#define ISCSI_CTRL_BYTES MIB		     /* and so much payload of them */
#define ISCSI_TMF_MAX 64U		     /* under way */
#define ISCSI_LUNS_MAX 256U		     /* per session */
#define ISCSI_SEND_IOV 1024
#define ISCSI_SEND_BYTES (4 * MIB)
#define ISCSI_HDR_SLOT 64		     /* header and its digest, padding and digest of the data */
#define ISCSI_SEND_PDUS 256
#define ISCSI_TAG_BUCKETS 64
#define ISCSI_TSIH_NONE 0
#define ISCSI_TPGT 1
#define ISCSI_END_NS (2 * NS_PER_SEC)    /* for what is under way when it ends */
#define ISCSI_LOGOUT_NS (5 * NS_PER_SEC) /* after that, who was asked to log out is dropped */

struct iscsi_conn;

/* What login has agreed upon. */
struct iscsi_params {
	bool header_digest, data_digest, initial_r2t, immediate_data;
	uint32_t send_segment;	/* the initiator's MaxRecvDataSegmentLength */
	uint32_t max_burst, first_burst, max_r2t, time2wait;
};
#define ISCSI_PARAMS_DEFAULT                                                                                                         \
	{ .initial_r2t = true, .immediate_data = true, .send_segment = ISCSI_TEXT_SEGMENT_DEFAULT, .max_burst = 262144,            \
	  .first_burst = 65536, .max_r2t = 1, .time2wait = 2 }

/* An LU of the session. */
enum { LUN_GONE = 1, LUN_ATTENTION = 2 };
struct iscsi_lun {
	struct iscsi_conn *conn;
	uint16_t lun;
	struct scsi_nexus *nexus;
	struct reactor *home;
	/* From its home to the connection's: what has happened. The message is under way while events is not 0; clearing that is the last
	 * that is done there. */
	struct msg msg;
	_Atomic unsigned events;
	_Atomic unsigned attention; /* ASC << 8 | ASCQ */
	/* the connection's reactor */
	bool gone, closed; /* closed: it has no nexus any more */
	bool is_free;	   /* and nobody knows of it */
	unsigned n_tasks;
};

/* Something to be sent. */
enum iscsi_out_kind { ISCSI_OUT_CTRL, ISCSI_OUT_TASK, ISCSI_OUT_R2T };
struct iscsi_out {
	struct list link; /* conn.ready, conn.sent */
	enum iscsi_out_kind kind;
};

/* A PDU that is whole: everything but Data-In, R2T and SCSI responses. */
struct iscsi_ctrl {
	struct iscsi_out out;
	struct iscsi_bhs bhs;
	void *data;	/* xfree'd after sending; may be NULL */
	uint32_t data_len;
	bool takes_sn;	/* its StatSN is its own; otherwise it carries the next one, and its ITT is none */
	bool is_last;	/* the connection closes after it */
};

enum iscsi_task_state {
	TASK_DATA,    /* takes data-out, or waits for memory before it may ask for it */
	TASK_ORDERED, /* all is there; waits for commands before it, or for memory (reads) */
	TASK_RUNNING, /* with the LU, or on the way to it or back */
	TASK_REPLY,   /* its reply is being sent */
	TASK_FREEING, /* hops to the LU's home for scsi_cmd_fini() */
};

struct iscsi_r2t {
	uint32_t ttt, off, len, got, data_sn; /* len 0: free */
	bool unsent;
};

/* A SCSI command from its arrival until its reply has been sent. From the connection's free list. */
struct iscsi_task {
	struct iscsi_out out;
	struct list link;	/* conn.tasks, or the free list */
	struct list tag_link;
	struct list wait_link;	/* conn.waiting: for memory */
	struct iscsi_conn *conn;
	struct iscsi_lun *lun;	/* NULL: not mapped */
	struct msg msg;
	enum iscsi_task_state state;
	uint32_t itt, cmd_sn, edtl;
	bool immediate, is_read, is_write, is_held;
	bool counted;		/* in conn.n_window */
	bool aborting;		/* no reply */
	bool is_local;		/* answered here, not by the LU */
	bool is_busy;		/* there is no memory even for what comes unasked: it is dropped, and the answer is BUSY */
	bool is_released;	/* but for pins */
	unsigned pins;		/* task management looks at it */
	uint8_t attr, cdb[16];
	uint16_t cdb_len;
	uint8_t *long_cdb;	/* of more than 16 bytes */
	/* data-out */
	uint8_t *buf;
	uint32_t buf_bytes;	/* its size; at first only what may come unasked */
	uint32_t want;		/* of it, by the CDB: at most edtl */
	uint64_t mem;		/* counted in conn.n_bytes */
	uint32_t got;		/* bytes of data-out that have come */
	uint32_t unsolicited_end; /* more is not taken without being asked for */
	uint32_t unsolicited_sn;
	bool unsolicited;	/* Data-Out without R2T is still to come */
	uint32_t r2t_off, r2t_sn; /* next to be asked for */
	unsigned n_r2t;
	struct iscsi_r2t r2t[ISCSI_R2T_MAX];
	struct iscsi_out r2t_out;
	bool r2t_queued;
	uint64_t since_ns;	/* of the last data-out */
	/* reply */
	uint32_t sent, data_sn, send_len, residual;
	uint8_t residual_flag;
	uint8_t sense[2 + SCSI_SENSE_MAX];
	struct iovec out_iov;
	struct scsi_cmd cmd;
};

/* What is being received. */
struct iscsi_rx {
	enum { RX_HEADER, RX_DATA, RX_TAIL } state;
	struct iscsi_bhs bhs;
	uint8_t ahs[ISCSI_AHS_MAX];
	uint32_t ahs_len, len, got, tail;
	uint8_t *dest;		  /* NULL: dropped */
	struct iscsi_task *task;  /* whose data it is */
	struct iscsi_r2t *r2t;
	bool keep;		  /* dest is xmalloc'ed: ping data, text */
	bool ignored;		  /* the PDU is not for us, or rejected: its data is dropped */
	uint32_t crc;
};

enum iscsi_stop { STOP_NONE, STOP_LOGOUT, STOP_SERVER, STOP_NOW }; /* asked to log out; what is under way is finished; aborted */

struct iscsi_conn {
	struct iscsi_server *srv;
	struct net_conn net;

	/* server's reactor */
	bool is_discovery, is_listed; /* listed: it is a session that others find */
	unsigned n_changing; /* somebody is changing its LUNs: it stays until that is over */
	_Atomic unsigned stop_want; /* enum iscsi_stop; the message is under way while it is not 0 */

	/* results of the login; rules and LUNs are home's from then on, the others constant */
	char initiator[ISCSI_NAME_MAX + 1], target[ISCSI_NAME_MAX + 1];
	uint8_t isid[6];
	uint16_t tsih, cid;
	struct iscsi_params prm;
	struct iscsi_rule *rules;
	size_t n_rules;
	struct iscsi_lun **luns; /* those that are free too: a LUN stays in its place */
	size_t n_luns;
	_Atomic unsigned n_luns_there; /* that are not gone */
	uint16_t *lun_numbers;	       /* room for as many */
	uint64_t session;
	_Atomic(struct reactor *) home; /* the server's until all LUNs are there */
	uint32_t stat_sn, exp_cmd_sn;

	/* home from here on */
	bool running, closing, dead, shut, ended, logging_out, aborted;
	struct co *waiter;
	struct iscsi_shard *shard;
	struct list shard_link;
	struct loop_hook hook;
	struct timer ping;
	uint64_t heard_ns, pinged_ns; /* 0: no ping is out */
	uint32_t ping_ttt;
	uint64_t stop_ns;	      /* asked to log out, or closing: until when; 0: neither */

	struct net_op recv_op;
	struct iovec recv_iov[2];
	bool receiving;
	size_t recv_direct;
	uint8_t *rbuf;
	size_t rpos, rlen;
	struct iscsi_rx rx;
	struct iscsi_text text_in;
	uint8_t *text_rest;	/* of an answer in pieces */
	size_t text_rest_len;
	uint32_t text_ttt;

	struct list tasks, free_tasks, waiting;
	struct list by_tag[ISCSI_TAG_BUCKETS];
	unsigned n_tasks, n_window, n_immediate, n_co; /* n_co: coroutines that work for it */
	struct list held;	/* commands that came before others: by CmdSN (iscsi_task.wait_link) */
	uint64_t n_bytes;
	uint32_t max_cmd_sn, next_ttt;

	struct net_op send_op;
	struct iovec *send_iov;
	uint8_t *send_hdrs;
	bool sending, close_after;
	struct iscsi_ctrl *logout; /* the answer, when all else has been answered */
	uint64_t send_ns;
	struct list ready, sent;
	unsigned n_ctrl;
	uint64_t ctrl_bytes;

	_Atomic uint64_t reads, writes, bytes_read, bytes_written;
};

struct iscsi_shard {
	struct iscsi_server *srv;
	uint64_t n_bytes[2]; /* of writes (and what reads nothing), of reads */
	struct list conns;
} __attribute__((aligned(64)));

struct iscsi_server {
	struct net_server net;
	struct scsi_store store;
	struct scsi_target *scsi;
	struct iscsi_provider p;
	struct co_mutex changing; /* rules are compared */
	struct iscsi_options o;
	uint16_t last_tsih;
	uint64_t last_session;
	struct iscsi_shard shards[];
};

/* See net_server_log(). */
#define iscsi_log(s, ...) net_server_log(&(s)->net, __VA_ARGS__)

/* login.c. Coroutine on the server's reactor. 0: the full feature phase may start, else the connection ends. */
int iscsi_login_co(struct iscsi_conn *c);
/* server.c. Coroutine, there. The session of the same initiator port to the same target, if there is one, ends; then this one is in
 * the table, with its TSIH, and has its LUs. A login status. */
enum iscsi_login_status iscsi_session_co_begin(struct iscsi_conn *c, uint16_t tsih);
/* targets.c: answer to SendTargets=what. -EINVAL: not in this session. */
int iscsi_send_targets_add(struct iscsi_conn *c, const char *what, struct iscsi_text *out) __must_check;

/* conn.c. Coroutine on the connection's home; returns when it has ended and none of its commands is left. */
int iscsi_conn_co_run(void *conn);
/* Nothing more is taken until it has read some of what is there for it. */
static inline bool iscsi_ctrl_is_full(const struct iscsi_conn *c)
{
	return c->n_ctrl >= ISCSI_CTRL_MAX || c->ctrl_bytes >= ISCSI_CTRL_BYTES;
}
static inline void iscsi_conn_kick(struct iscsi_conn *c) { reactor_hook(&c->hook); }
/* Takes no more; what is under way is finished and answered; then it ends. */
void iscsi_conn_close(struct iscsi_conn *c);
/* Nothing more can be sent or received either; what is under way is aborted. */
void iscsi_conn_kill(struct iscsi_conn *c);
/* The peer broke the protocol: one line, and the connection ends. */
void iscsi_conn_violation(struct iscsi_conn *c, const char *what);
/* Asks for a logout; ends it after some seconds. */
void iscsi_conn_ask_logout(struct iscsi_conn *c);
void iscsi_conn_check_end(struct iscsi_conn *c);
/* Callbacks of its nexuses. */
extern const struct scsi_nexus_ops iscsi_nexus_ops;
/* Coroutine on the server's reactor, before the connection runs or by iscsi_luns_co_change(). NULL: it is not there just now. */
struct iscsi_lun *iscsi_lun_co_open(struct iscsi_conn *c, const struct iscsi_rule *rule);
/* One more in the table. */
void iscsi_lun_add(struct iscsi_conn *c, struct iscsi_lun *l);
/* One command less; a LUN that is gone is given back with the last. */
void iscsi_lun_put(struct iscsi_lun *l);
/* The full feature phase begins: those that went in the login are given back. */
void iscsi_luns_begin(struct iscsi_conn *c);
/* Coroutine on the server's reactor. */
void iscsi_luns_co_close(struct iscsi_conn *c);
/* What a running session may see is something else now. */
struct iscsi_luns_change {
	struct iscsi_conn *c;
	struct iscsi_rule *rules; /* all that it has now; taken over */
	size_t n_rules;
	const uint16_t *gone;
	size_t n_gone;
	struct iscsi_lun **added; /* taken over, each */
	size_t n_added;
};
/* Coroutine on the connection's home, struct iscsi_luns_change: the rest hears that the list of LUNs has changed. Also when it has ended. */
int iscsi_luns_co_change(void *change);
/* changes.c. Coroutine there, in the login. Are the rules others than those that it has looked up? Also when they cannot be read. */
bool iscsi_login_co_is_late(struct iscsi_conn *c);
/* server.c: asks a connection to end, from the server's reactor. */
void iscsi_conn_stop(struct iscsi_conn *c, enum iscsi_stop how);
/* What comes of it, on the connection's home. */
void iscsi_conn_stop_run(struct iscsi_conn *c);

/* command.c */
/* A header has come. They set rx->dest for its data. */
void iscsi_command_header(struct iscsi_conn *c);
void iscsi_data_out_header(struct iscsi_conn *c);
/* And its data. */
void iscsi_command_complete(struct iscsi_conn *c);
void iscsi_data_out_complete(struct iscsi_conn *c);
struct iscsi_task *iscsi_task_find(struct iscsi_conn *c, uint32_t itt);
struct iscsi_lun *iscsi_lun_find(struct iscsi_conn *c, const uint8_t lun[8]);
/* Memory is free again: who waits for it goes on. */
void iscsi_waiting_go_on(struct iscsi_conn *c);
/* Takes it out of the way without a reply; not one that is RUNNING or later. */
void iscsi_task_cancel(struct iscsi_task *t);
/* After its reply, or without one. */
void iscsi_task_release(struct iscsi_task *t);
/* Whoever has raised t->pins. */
void iscsi_task_unpin(struct iscsi_task *t);
/* Of the request that is being received; not of SCSI commands. In order, or immediate: true, it counts. Else it is dropped
 * silently. */
bool iscsi_sn_take(struct iscsi_conn *c);

/* task_mgmt.c */
void iscsi_task_mgmt(struct iscsi_conn *c);
/* All commands of the session are aborted, by coroutines; iscsi_conn_check_end() when they are over. */
void iscsi_abort_all(struct iscsi_conn *c);

/* other.c: whole PDUs, their data in rx->dest */
void iscsi_nop_out(struct iscsi_conn *c);
void iscsi_text_request(struct iscsi_conn *c);
void iscsi_logout(struct iscsi_conn *c);
void iscsi_ping_send(struct iscsi_conn *c);
void iscsi_async_send(struct iscsi_conn *c, unsigned event, uint16_t p1, uint16_t p2, uint16_t p3);
/* A unit attention of an LU, as an asynchronous message. */
void iscsi_async_attention(struct iscsi_lun *l, uint8_t asc, uint8_t ascq);
/* With the header of the PDU that is being received. */
void iscsi_reject(struct iscsi_conn *c, enum iscsi_reject reason);

/* reply.c */
struct iscsi_ctrl *iscsi_ctrl_new(unsigned opcode);
/* Takes it over. data: xmalloc'ed, or NULL. */
void iscsi_ctrl_send(struct iscsi_conn *c, struct iscsi_ctrl *k, void *data, uint32_t len);
void iscsi_task_reply(struct iscsi_task *t);
/* Sends what is ready, unless a send is in flight. */
void iscsi_reply_send(struct iscsi_conn *c);
/* Of whatever was to be sent, nothing is. */
void iscsi_ready_drop(struct iscsi_conn *c);

/* chap.c */
struct iscsi_chap;
struct iscsi_chap *iscsi_chap_new(struct world *w);
void iscsi_chap_free(struct iscsi_chap *h);
/* The first algorithm that we have, of a list "7,5": strongest first. 0: none. */
unsigned iscsi_chap_choose(struct iscsi_chap *h, const char *list);
/* CHAP_A, CHAP_I, CHAP_C. */
void iscsi_chap_challenge(struct iscsi_chap *h, struct iscsi_text *out);
/* Takes CHAP_N, CHAP_R, CHAP_I, CHAP_C: 1: it was one of them, 0: another key, -EINVAL. */
int iscsi_chap_key(struct iscsi_chap *h, const char *key, const char *value);
bool iscsi_chap_is_answered(const struct iscsi_chap *h);
/* Does the answer prove that the peer knows this? In the same time whatever it is. */
bool iscsi_chap_verify(const struct iscsi_chap *h, const struct iscsi_secret *s);
bool iscsi_chap_wants_mutual(const struct iscsi_chap *h);
/* CHAP_N, CHAP_R for the peer's challenge. -EPERM: it is our own challenge, or of a secret that is the peer's. */
int iscsi_chap_prove(const struct iscsi_chap *h, const struct iscsi_secret *s, const struct iscsi_secret *theirs, struct iscsi_text *out);

#endif
