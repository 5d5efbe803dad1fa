/*
 * client.h: the other end of the control socket, for the command line. Plain blocking calls in an ordinary thread.
 */
#ifndef FRONTENDS_CONTROL_CLIENT_H
#define FRONTENDS_CONTROL_CLIENT_H

#include "frontends/control/rpc.h"

struct control_client;

/* -ENOENT or -ECONNREFUSED: no daemon is there. The peer must be root or this user. */
int control_client_open(const char *path, struct control_client **out, struct err *e) __must_check;
void control_client_close(struct control_client *c);
/* params borrowed, may be NULL. notify (may be NULL) is called for notifications that come before the answer. *result: a
 * new reference. timeout_ms: for the whole silence between two messages; 0: none. */
int control_client_call(struct control_client *c, const char *method, const json_t *params, unsigned timeout_ms,
			void (*notify)(void *arg, const char *method, const json_t *params), void *arg, json_t **result,
			struct err *e) __must_check;

/* After "stream.open": the connection, which carries data now; the client's. */
int control_client_fd(const struct control_client *c);

#endif
