/*
 * server.h: the control socket: rpc.h over a unix socket.
 *
 * Who may speak: root and the daemon's own user, by the kernel's word (SO_PEERCRED); the socket has mode 0600, and a
 * directory that is made for it 0700. What one client can take: a message of RPC_MESSAGE_MAX bytes, output of
 * CONTROL_OUT_MAX, one call at a time. Half a message must become a whole one within idle_ns, and answers must be read
 * within send_ns; a client that does neither loses its connection, nobody else notices.
 *
 * Home: reactor 0.
 */
#ifndef FRONTENDS_CONTROL_SERVER_H
#define FRONTENDS_CONTROL_SERVER_H

#include "engine/io/net.h"
#include "frontends/control/rpc.h"

#define CONTROL_OUT_MAX (16U << 20) /* unread notifications beyond it are dropped; answers wait */

struct control_server_options {
	const struct rpc_method *methods;
	void *env;
	unsigned max_connections; /* 0: 64 */
	uint64_t idle_ns;	  /* 0: 10 s */
	uint64_t send_ns;	  /* 0: 30 s */
	bool any_peer;		  /* for tests: no look at the peer's credentials */
};

struct control_server;
struct control_server *control_server_create(struct world *w, const struct control_server_options *o);
/* Makes the directory if there is none, refuses one in which others could replace the socket. */
int control_server_listen(struct control_server *s, const char *path, struct err *e) __must_check;
/* Coroutine. Serves one stream to its end, takes it over. For the listener, tests and fuzzers. */
void control_server_co_serve(struct control_server *s, struct stream *st);
/* Coroutine. Stops listening, lets calls in flight finish and sends their answers, closes, frees. */
void control_server_co_destroy(struct control_server *s);
unsigned control_server_connections(const struct control_server *s);

#endif
