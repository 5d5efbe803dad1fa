/*
 * net_server.h: what servers of streams have in common: listeners, a table of connections, limits on them, an orderly end, and a limit
 * on what clients make them say.
 *
 * The table lives on one reactor, where net_server_init() was called. There each connection begins, in a coroutine that shakes hands (or
 * logs in: ops.handshake is the word for it). At most max_half_open do that at a time, and a newer one takes the place of the oldest:
 * who means it is through long before so many others have come. Then it runs on the reactor that it has chosen and is reached by messages;
 * then, back here, it is taken off the table and freed, after its coroutine has returned and every message posted to it has run.
 *
 * struct net_server and struct net_conn are embedded in what the protocol keeps of a server and of a connection.
 */
#ifndef ENGINE_IO_NET_SERVER_H
#define ENGINE_IO_NET_SERVER_H

#include "engine/io/log_limit.h"
#include "engine/io/net.h"

struct net_conn {
	struct net_server *server;
	struct stream *st; /* of the reactor that the connection is on */
	uint64_t since_wall_ns;
	/* the server's reactor */
	struct list link;	/* server's conns, oldest first */
	struct list half_link;	/* its half_open */
	struct reactor *home;	/* where it runs; NULL: it shakes hands */
	bool is_guest;		/* by co_handshake(): its place may be given away as if it were still shaking hands; its home is the server's */
	bool is_over;		/* it has run, and gives back what it has: nothing is sent to it any more */
	bool dropped;		/* its place has been given away, and the stream is shut down */
	struct msg stop;
	unsigned n_stops;	   /* how often it has been posted, */
	_Atomic unsigned n_stopped; /* and has run */
};

struct net_server_ops {
	const char *who;       /* log lines begin with it: "nbd" */
	const char *handshake; /* what they call that */
	/* A new one in zeroed memory, and its end; the stream is closed already. */
	struct net_conn *(*conn_alloc)(struct net_server *s);
	void (*conn_free)(struct net_conn *c);
	/* Coroutine on the server's reactor. Where it will run; NULL: it ends. */
	struct reactor *(*co_handshake)(struct net_conn *c);
	/* Coroutine on that reactor, until the connection is over. */
	void (*co_run)(struct net_conn *c);
	/* Coroutine on the server's reactor, after either; NULL: nothing is left to do. */
	void (*co_over)(struct net_conn *c);
	/* By net_conn_stop(), there; perhaps before co_run() has begun or after it has ended. */
	void (*stop)(struct net_conn *c);
	/* The server ends. On the server's reactor: calls net_conn_stop(). */
	void (*end)(struct net_conn *c);
};

struct net_server_conf {
	unsigned max_connections, max_half_open;
	void (*log)(void *arg, const char *line); /* any reactor; printable, rate limited; NULL: nowhere */
	void *log_arg;
};

struct net_server {
	struct world *world;
	struct reactor *home;
	const struct net_server_ops *ops;
	struct net_server_conf conf;
	struct listener **listeners;
	size_t n_listeners;
	struct list conns, half_open;
	unsigned n_conns, n_half, n_dropped; /* dropped ones count in n_conns until they are gone */
	bool stopping;
	struct co_queue changed; /* a connection is gone */
	struct net_server_log *logs; /* per reactor */
};

/* On the reactor that the table is to live on. ops outlives the server. */
void net_server_init(struct net_server *s, struct world *w, const struct net_server_ops *ops, const struct net_server_conf *conf);
/* Adds an address to listen on, as listener_open(); *bound: where it is, valid as long as the server. */
int net_server_listen(struct net_server *s, const char *addr, const char **bound, struct err *e) __must_check;
/* The same on a socket that listens already (listener_open_fd()). */
int net_server_listen_fd(struct net_server *s, int fd, const char **bound, struct err *e) __must_check;
/* Coroutine on the server's reactor. Serves one stream to its end, takes it over. For listeners, tests and fuzzers. */
void net_server_co_serve(struct net_server *s, struct stream *st);
/* Coroutine there. Stops listening, ends all connections, waits for them. */
void net_server_co_fini(struct net_server *s);

/* On the server's reactor. Has it shaken hands, and is it not over? */
static inline bool net_conn_is_running(const struct net_conn *c) { return c->home && !c->is_over; }
/* There. Shuts the stream down if it is not running, else ops.stop() is called on its home; not again before it has been: the caller
 * sees to that. */
void net_conn_stop(struct net_conn *c);

/* Any reactor. One line; what comes from outside is printed with %s and escaped. */
void net_server_log(struct net_server *s, const char *fmt, ...) __printf_like(2, 3);

#endif
