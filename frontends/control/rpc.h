/*
 * rpc.h: JSON-RPC 2.0 without a transport: cutting a byte stream into messages, checking them, calling methods from a
 * table, shaping answers and errors.
 *
 * A message is one line: a JSON object (or an array of them, a batch) and a newline. Everything about it is bounded:
 * RPC_MESSAGE_MAX bytes, RPC_DEPTH_MAX levels, RPC_BATCH_MAX calls. Methods are called with parameters that have been
 * checked against their description, so a handler asks for them by name and need not look at types again.
 *
 * Errors on the wire: JSON-RPC's own codes (-32700 .. -32600) for messages that are wrong; for everything else the code is
 * the positive error number (errno or ERR_TABLE's), the message is the sentence for people, and data.errno names the
 * errno ("EBUSY"), data.name the private code ("ERR_LOCKED") if it is one.
 *
 * Context: one thread at a time; functions with _co_ in a coroutine if the method's handler needs one.
 */
#ifndef FRONTENDS_CONTROL_RPC_H
#define FRONTENDS_CONTROL_RPC_H

#include <jansson.h>

#include "engine/base/err.h"

#define RPC_MESSAGE_MAX (1U << 20)
#define RPC_DEPTH_MAX 16
#define RPC_BATCH_MAX 64

/* As returned and stored in `struct err` (negative, as every code). */
enum {
	RPC_ERR_PARSE = -32700,
	RPC_ERR_REQUEST = -32600,
	RPC_ERR_METHOD = -32601,
	RPC_ERR_PARAMS = -32602,
};

enum rpc_type {
	RPC_STRING,   /* no NUL inside */
	RPC_STRINGS,  /* array of them */
	RPC_BOOL,
	RPC_SIZE,     /* bytes: a number, or text as size_parse() takes it */
	RPC_DURATION, /* text as duration_parse() takes it, or a number of seconds */
};

struct rpc_param {
	const char *name; /* NULL ends the list */
	enum rpc_type type;
	bool required;
	const char *help;
};

struct control_stream;

struct rpc_call {
	void *env;		/* the table's */
	const json_t *params;	/* object; checked; borrowed */
	json_t *result;		/* set by the handler: a new reference; NULL counts as true */
	/* Sends a notification to the caller while the call runs; takes over params. NULL: nobody listens. Never suspends. */
	void (*notify)(void *arg, const char *method, json_t *params);
	void *notify_arg;
	/* Once the answer is out, the caller's connection carries data, not messages (methods.h). False: it cannot. NULL: none can.
	 * Its argument is notify_arg. */
	bool (*lend)(void *arg, struct control_stream *s);
};

struct rpc_method {
	const char *name; /* NULL ends the table */
	const char *summary;
	const struct rpc_param *params; /* NULL: none */
	int (*co_run)(struct rpc_call *c, struct err *e);
};

/* Parameters of the running call; absent ones give NULL, false, `absent`. */
const char *rpc_string(const struct rpc_call *c, const char *name);
const json_t *rpc_strings(const struct rpc_call *c, const char *name);
bool rpc_bool(const struct rpc_call *c, const char *name);
uint64_t rpc_size(const struct rpc_call *c, const char *name, uint64_t absent);
uint64_t rpc_duration(const struct rpc_call *c, const char *name, uint64_t absent);
bool rpc_is_given(const struct rpc_call *c, const char *name);

/* Finds the method, checks c->params (NULL: none) against it, runs it. On success c->result is set. */
int rpc_co_call(const struct rpc_method *table, const char *method, struct rpc_call *c, struct err *e) __must_check;
/* One message as it came. Returns the answer (new reference), or NULL when none is due (notifications). c: env and notify
 * are used. */
json_t *rpc_co_handle(const struct rpc_method *table, const struct rpc_call *c, const char *text, size_t len);
/* What the table offers, for clients: name, summary, parameters. New reference. */
json_t *rpc_describe(const struct rpc_method *table);

/* New references. id borrowed, NULL: null. */
json_t *rpc_error_answer(const json_t *id, const struct err *e);
json_t *rpc_request(const char *method, const json_t *params, json_int_t id);
json_t *rpc_notification(const char *method, json_t *params); /* takes over params */
/* Reads the error object of an answer back. Returns its code, negative. */
int rpc_error_load(const json_t *error, struct err *e);
/* "EBUSY"; "" if it has no name. */
const char *rpc_errno_name(int code);

/* Text of a JSON value and a newline, by xmalloc. */
char *rpc_dump_line(const json_t *j, size_t *len);

/* ---- cutting a stream into lines ---- */
struct rpc_framer {
	char *buf;
	size_t start, len, cap, scanned, max;
};

void rpc_framer_init(struct rpc_framer *f, size_t max_message);
void rpc_framer_fini(struct rpc_framer *f);
/* Where to receive into, at least one byte of room. Invalidates texts given out before. */
char *rpc_framer_space(struct rpc_framer *f, size_t *room);
void rpc_framer_received(struct rpc_framer *f, size_t n);
/* 1: *text, *len is the next message (without newline, empty lines skipped); 0: incomplete; -EMSGSIZE: longer than max. */
int rpc_framer_next(struct rpc_framer *f, const char **text, size_t *len) __must_check;
/* Bytes of an incomplete message are waiting. */
bool rpc_framer_is_partial(const struct rpc_framer *f);

#endif
