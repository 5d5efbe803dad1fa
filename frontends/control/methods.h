/*
 * methods.h: the management methods over ashlar.h, and the state that they share.
 *
 * The daemon serves them on its control socket; the command line runs the same table in its own process when no daemon
 * holds the pool. Home: reactor 0, in coroutines. A pool may be closed by one call (pool.destroy) while another is
 * suspended inside it, so calls that use a pool hold the gate shared and those that take one away hold it alone.
 */
#ifndef FRONTENDS_CONTROL_METHODS_H
#define FRONTENDS_CONTROL_METHODS_H

#include "engine/io/co.h"
#include "engine/pool/ashlar.h"
#include "frontends/control/rpc.h"

struct control_env {
	struct ashlar *a;
	bool read_only;		 /* pools are opened without writing */
	/* What only a daemon can answer; NULL elsewhere. They return new references. */
	json_t *(*co_connections)(void *arg);
	json_t *(*status)(void *arg);
	void (*shutdown)(void *arg); /* asks for it, returns at once */
	void (*co_iscsi_changed)(void *arg); /* what is exported by iSCSI, and for whom */
	void *arg;
	/* the gate */
	unsigned n_shared, n_checks;
	bool is_alone;
	struct co_queue gate;
	/* connections that carry data */
	struct list streams;
	struct co_queue streams_changed;
	uint64_t last_stream;
};

/* Data of `snapshot.send` and `snapshot.receive` goes over a connection of its own: it calls "stream.open", which answers with a
 * number and turns it into a plain stream; the call that has that number as "stream" uses it. So the control connection is free
 * for progress and the answer, and whoever goes away is noticed at once. */
struct control_stream {
	struct list link; /* env->streams */
	struct control_env *env;
	uint64_t id;
	struct stream *io;
	bool is_ready; /* nothing else is sent on it any more */
	bool is_taken; /* a call uses it */
	bool is_over;  /* and has ended; it has been shut down */
};
struct control_stream *control_stream_add(struct control_env *env);
/* Who added it, when nobody uses it. */
void control_stream_remove(struct control_stream *s);

void control_env_init(struct control_env *env, struct ashlar *a);

extern const struct rpc_method control_methods[];

/* For callers that close pools themselves (the daemon's end): waits for calls in flight. Coroutine. */
void control_gate_co_alone(struct control_env *env);
void control_gate_leave_alone(struct control_env *env);

#endif
