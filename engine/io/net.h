/*
 * net.h: stream sockets (unix, TCP) and, for tests and fuzzers, byte streams in memory, behind one small interface.
 *
 * A `struct stream` belongs to one reactor at a time; stream_move() hands an idle one over. The operations suspend the
 * calling coroutine; the _submit forms call `done` on the current reactor. At most one receive and one send in flight.
 */
#ifndef ENGINE_IO_NET_H
#define ENGINE_IO_NET_H

#include <sys/uio.h>
#include "engine/io/co.h"

enum net_op_kind { NET_RECV, NET_SEND, NET_ACCEPT };

struct net_op {
	enum net_op_kind kind;
	int fd;
	struct iovec *iov; /* recv: filled from the first; send: all of it is sent (the world loops on short sends) */
	unsigned iov_n;
	int64_t result; /* recv: bytes, 0 at end; send: 0; accept: new fd; or -errno */
	void (*done)(struct net_op *op);
	void *owner;
	uint64_t scratch[16];
};

struct stream;
struct stream_ops {
	void (*submit)(struct stream *s, struct net_op *op);
	/* NULL: see stream_try_send() */
	int64_t (*try_send)(struct stream *s, struct iovec *iov, unsigned n);
	void (*shutdown)(struct stream *s); /* both directions; pending operations end with 0 or an error */
	void (*close)(struct stream *s);    /* no operation in flight; frees */
};

struct stream {
	const struct stream_ops *ops;
	int fd; /* -1 for memory streams */
	bool is_unix, is_loopback;
	char peer[64]; /* for logs: "unix pid 123 uid 0", "127.0.0.1:5000" */
	char local[64]; /* TCP: the address that the peer has come to, "192.0.2.1:3260", "[::1]:3260" */
	/* Who it is, as far as the kernel or TLS vouches for it. */
	bool has_cred;	   /* unix: the next two are known */
	uint32_t uid, gid;
	bool has_addr;	   /* TCP */
	uint8_t addr[16];  /* IPv6, or IPv4 mapped into it */
	bool is_tls;	   /* tls.h */
	char *tls_names;   /* each with a newline behind it; NULL: none. The stream's */
};

/* Any thread, for a moment. Does the other end of this connected socket listen in this very process? As far as that can be seen. */
bool net_peer_is_self(int fd);

static inline void stream_submit(struct stream *s, struct net_op *op) { s->ops->submit(s, op); }
/* Sends at once what can be sent without waiting, while no send is in flight: the number of bytes, perhaps 0, or -errno. The rest, if there
 * is any, is what is submitted next. Streams that cannot do that say 0. For most replies it is all there is to it: nothing completes
 * later, and the loop need not look. */
static inline int64_t stream_try_send(struct stream *s, struct iovec *iov, unsigned n)
{
	return s->ops->try_send ? s->ops->try_send(s, iov, n) : 0;
}
/* Has the peer closed its end? What it has sent before may still be there to be received. False for memory streams. */
bool stream_peer_is_done(const struct stream *s);
/* Coroutine. Some bytes (at least 1), 0 at end, or -errno. */
int64_t stream_co_recv(struct stream *s, void *buf, size_t len);
/* Coroutine. Exactly len bytes: 0, -ECONNRESET on early end, -errno, -ETIMEDOUT after deadline_ns (UINT64_MAX: none).
 * After a time-out the stream has been shut down. */
int stream_co_recv_all(struct stream *s, void *buf, size_t len, uint64_t deadline_ns) __must_check;
int stream_co_send_all(struct stream *s, const struct iovec *iov, unsigned n, uint64_t deadline_ns) __must_check;
static inline void stream_shutdown(struct stream *s) { s->ops->shutdown(s); }
static inline void stream_close(struct stream *s) { s->ops->close(s); }

/* Wraps a connected socket (takes it over, also on error). */
struct stream *stream_from_fd(struct world *w, int fd);

/* A memory stream: `in` is what the peer "sends" (given whole; then end of stream), what is sent to it is kept in *out
 * (realloc'ed, *out_len) up to a cap and dropped after. chunk > 0: deliver at most that many bytes per receive. */
struct stream *stream_from_memory(const void *in, size_t in_len, size_t chunk, uint8_t **out, size_t *out_len);

/* Listening. ADDR is unix:PATH or HOST:PORT ([::1]:10809 for IPv6; port 0 picks one). Control path; blocks shortly.
 * A unix path left by a dead process is replaced; one with a live listener is -EADDRINUSE. */
struct listener;
struct listen_ops {
	/* Called in a service coroutine on the listener's reactor for each connection. Takes over s. */
	void (*co_accept)(void *arg, struct stream *s);
};
int listener_open(struct world *w, const char *addr, const struct listen_ops *ops, void *arg, struct listener **out,
		  struct err *e) __must_check;
/* The same on a socket that listens already (from a service manager; taken over, also on error). At the end it goes on listening
 * for whoever else has it: connections that have not been accepted wait for the next process. */
int listener_open_fd(struct world *w, int fd, const struct listen_ops *ops, void *arg, struct listener **out, struct err *e) __must_check;
/* Stops accepting, unlinks the unix path. Coroutine on its reactor. */
void listener_co_close(struct listener *l);
/* The address as bound: "unix:/run/x.sock", "127.0.0.1:10809". */
const char *listener_addr(const struct listener *l);

#endif
