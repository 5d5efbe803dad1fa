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
	void *arg;
	/* the gate */
	unsigned n_shared, n_checks;
	bool is_alone;
	struct co_queue gate;
};

void control_env_init(struct control_env *env, struct ashlar *a);

extern const struct rpc_method control_methods[];

/* For callers that close pools themselves (the daemon's end): waits for calls in flight. Coroutine. */
void control_gate_co_alone(struct control_env *env);
void control_gate_leave_alone(struct control_env *env);

#endif
