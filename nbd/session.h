/*
 * session.h: a connection, and what the server keeps per reactor. Private to nbd/.
 *
 * Life of a session: made and registered on the server's reactor (net_server.h), where the handshake runs (handshake.c);
 * then nbd_transmit_co() runs on the home reactor of the attached volume (transmission.c: receiving and admission, request.c:
 * what a request does, reply.c: sending); then back on the server's reactor it is taken off the lists and freed.
 *
 * Memory of a session is bounded: one receive buffer, what TLS needs (tls.h), max_in_flight requests, payload of max_in_flight_bytes. Beyond the
 * first NBD_RESERVE_BYTES the payload comes from a budget shared by all sessions of the reactor, in order of arrival; who
 * holds a part of it, while somebody waits, and whose payload does not move for NBD_STALL_NS is dropped. The payload of writes has one half
 * of the budget and a reserve, all else the other: writes may be held for long (a full pool), and must not keep reads from memory. A write for which
 * there is none goes on in parts of its reserve, one after the other.
 */
#ifndef NBD_SESSION_H
#define NBD_SESSION_H

#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/net_server.h"
#include "nbd/nbd.h"
#include "nbd/proto.h"

#define NBD_PAYLOAD_MAX (32 * MIB)	 /* of one read or write; advertised */
#define NBD_DRAIN_MAX (2 * NBD_PAYLOAD_MAX) /* a longer payload is not even read to the end: the connection is dropped */
#define NBD_RECV_BYTES (256 * KIB)
#define NBD_LARGE_BYTES (32 * KIB) /* payload of a write that is worth a receive of its own */
#define NBD_TURN_REQUESTS 64	   /* taken from one session before the others' turn, */
#define NBD_TURN_BYTES (512 * KIB)  /* or when so much memory has been taken for them */
#define NBD_RESERVE_BYTES (128 * KIB) /* of either kind */
#define NBD_STALL_NS (10 * NS_PER_SEC)	 /* and a second for each MiB that is on its way */
#define NBD_LINGER_NS (10 * NS_PER_SEC) /* a closing session waits that long for a client that does not read */
#define NBD_TAKE_BACK_NS (200 * NS_PER_MS)
#define NBD_WHOLE_BYTES (2 * MIB) /* a longer read is answered in parts, each sent as it comes, where the protocol has that; a longer */
#define NBD_PART_BYTES MIB	  /* write is written in parts, each as soon as it has come */
#define NBD_SPLIT_WINDOW 8		/* pieces of one split request in flight */
#define NBD_CACHE_PIECE (256 * KIB)
#define NBD_CACHE_MAX (8 * MIB)		/* a longer CACHE succeeds and does nothing */
#define NBD_STATUS_EXTENTS 4096U	/* per reply, all its contexts together */
#define NBD_SEND_IOV 1024
#define NBD_SEND_BYTES (4 * MIB)	/* payload per send, at least one reply: progress can be seen */
#define NBD_SEND_REPLIES (NBD_SEND_IOV / 2)
#define NBD_REPLY_HDR_MAX 40
#define NBD_REQ_SLAB 32
#define NBD_CONTEXTS_MAX 16U		/* that a client can set */

struct nbd_session;

enum nbd_mem { NBD_MEM_IN, NBD_MEM_OUT, NBD_MEM_KINDS }; /* payload of writes, and all else */

/* A metadata context that the client has set; its id is its place, from 1. */
struct nbd_context {
	bool is_allocation; /* base:allocation, else the provider's */
	uint64_t key;
};

struct nbd_split {
	uint64_t next_bytes; /* start of the next piece, from the request's start */
	unsigned pending;
	bool pumping;
	struct list idle;    /* io.link */
	struct io io[NBD_SPLIT_WINDOW];
};

/* A request's header, whichever of the two forms it came in. */
struct nbd_header {
	uint16_t cmd, flags;
	be64 cookie;
	uint64_t off_bytes, len_bytes;
	uint64_t payload_bytes; /* that follow it */
};

/* One request, from its header's arrival until its reply is sent; or a part of a long read or write. From the session's free list. */
struct nbd_req {
	struct io io;	   /* of a request in one piece */
	struct nbd_session *s;
	struct list link;  /* free list, ready list, sending list */
	uint16_t cmd, flags;
	uint16_t contexts; /* block status: bits of those to answer */
	uint32_t rx_bytes; /* payload that comes with it */
	uint64_t off_bytes, len_bytes;
	uint64_t request_off_bytes; /* of the read that it is a part of; else off_bytes */
	be64 cookie;
	struct nbd_req *whole;	    /* of a part that has not been read or written */
	unsigned n_parts;	    /* of a whole: those; a write counts as one more until all of its payload has come */
	bool more;		    /* the reply has more chunks after this */
	int result;
	uint32_t payload_bytes; /* of the reply, in buf */
	uint32_t buf_bytes;
	bool again;	   /* read: its first buffer was lost to a disk that did not answer in time */
	uint8_t *buf;
	struct nbd_split *split;
};

struct nbd_req_slab {
	struct nbd_req_slab *next;
	struct nbd_req req[NBD_REQ_SLAB];
};

struct nbd_session {
	struct nbd_server *srv;
	struct net_conn net;

	/* server's reactor */
	char export_name[256];	/* for people; cut */

	/* result of the handshake, constant after it */
	struct nbd_attach at;
	bool structured;	/* replies */
	bool extended;		/* headers; then replies are structured too */
	unsigned n_contexts;
	struct nbd_context contexts[NBD_CONTEXTS_MAX];

	/* home reactor from here on */
	bool gone;		/* may be set before transmission starts */
	bool running;		/* between start and end of the transmission phase */
	bool closing;		/* no more requests are taken */
	bool dead;		/* nothing can be sent any more */
	bool shut;		/* stream_shutdown() was called */
	bool ended;
	struct co *waiter;
	struct nbd_shard *shard;
	struct list shard_link;
	struct loop_hook hook;
	struct timer linger;

	/* receiving */
	struct net_op recv_op;
	struct iovec recv_iov[2];
	bool receiving, stalled;
	bool large;		/* the newest request had a large payload */
	struct list wait_link;	/* shard's waiting, of this kind: */
	enum nbd_mem wait_kind;
	size_t recv_direct;	/* bytes of it that go to rx */
	uint8_t *rbuf;
	size_t rpos, rlen;
	struct nbd_req *rx;	/* whose payload is being received, perhaps a part; its buf NULL: dropped */
	uint64_t rx_got, rx_ns;	/* bytes so far; since when */
	struct nbd_req *rx_whole; /* the write that comes in parts */
	uint64_t rx_parts_bytes;  /* of it, with rx */

	/* requests */
	unsigned n_reqs; /* parts count */
	uint64_t n_bytes[NBD_MEM_KINDS]; /* payload memory */
	struct list free_reqs;
	struct nbd_req_slab *slabs;

	/* sending */
	struct net_op send_op;
	struct iovec *send_iov;	/* NBD_SEND_IOV */
	uint8_t *send_hdrs;	/* NBD_SEND_REPLIES * NBD_REPLY_HDR_MAX */
	bool sending;
	uint64_t send_ns, send_bytes; /* when this send started; its payload */
	struct list ready, sent; /* requests: answered; their replies are being sent */

	/* for reports: written at home, read from anywhere */
	_Atomic uint64_t reads, writes, bytes_read, bytes_written;
};

/* What the server keeps per reactor; touched only there. */
struct nbd_shard {
	struct nbd_server *srv;
	uint64_t n_bytes[NBD_MEM_KINDS];    /* payload memory beyond the reserves of the sessions */
	struct list waiting[NBD_MEM_KINDS]; /* sessions that wait for it, FIFO */
	struct list sessions;
	struct timer stall;
} __attribute__((aligned(64)));

struct nbd_server {
	struct net_server net;
	struct nbd_provider p;
	struct nbd_options o;
	struct nbd_shard shards[];
};

/* See net_server_log(). */
#define nbd_log(s, ...) net_server_log(&(s)->net, __VA_ARGS__)

/* handshake.c. Coroutine on the server's reactor. 0: transmission may start (s->at is attached), else the session ends. */
int nbd_handshake_co(struct nbd_session *s);
/* UTF-8 without NUL and control characters. */
bool nbd_string_is_valid(const void *text, size_t len);

/* transmission.c. Coroutine on the home reactor; returns when the session has ended and is detached. */
int nbd_transmit_co(void *session);
/* Wants the session's turn at the end of this loop: replies to send, requests to take, an end to notice. */
static inline void nbd_session_kick(struct nbd_session *s) { reactor_hook(&s->hook); }
/* Stops taking requests; the session ends once those in flight are answered. */
void nbd_session_close(struct nbd_session *s);
/* Nothing more can be sent or received. */
void nbd_session_kill(struct nbd_session *s);
/* A request that counts in the session. */
struct nbd_req *nbd_req_get(struct nbd_session *s);
/* Payload memory of a request, counted. */
void nbd_req_buf_get(struct nbd_req *r, uint32_t len);
void nbd_req_buf_put(struct nbd_req *r);
void nbd_req_put(struct nbd_req *r);

/* request.c */
/* 0, or the error to answer with. Any r: also memory that the request will need, for admission. */
int nbd_request_check(const struct nbd_session *s, const struct nbd_header *h, uint32_t *need_bytes);
/* All of its payload is there. Ends in nbd_req_finish(), at once or later. */
void nbd_request_start(struct nbd_req *r);
/* A write begins for all of which there is no memory, or which is too long to be received before it is written. Each of its parts is a request
 * of its own, to be started when its payload is there; the whole ends in nbd_req_finish() when nbd_write_received() has been called and
 * all parts have ended. */
void nbd_write_begin(struct nbd_req *whole);
/* At most so much of it, a power of two. */
struct nbd_req *nbd_write_part(struct nbd_req *whole, uint64_t at_bytes, uint32_t most_bytes);
void nbd_write_received(struct nbd_req *whole);
/* Those of a session that ends, and that wait for what may never come (bdev_cancel()), end without an answer. */
void nbd_requests_cancel(struct nbd_session *s);

/* reply.c */
/* The request or part is done; its reply goes out at the end of this loop. */
void nbd_req_finish(struct nbd_req *r, int result);
/* A chunk of block status at `out`, before its extents; returns the length of both. */
uint32_t nbd_reply_status_chunk(const struct nbd_req *r, void *out, unsigned context, uint32_t n_extents, bool last);
/* Sends what is ready, unless a send is in flight. */
void nbd_reply_send(struct nbd_session *s);
/* The one mapping of our errors to the protocol's. */
enum nbd_error nbd_err(int code);

#endif
