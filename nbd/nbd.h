/*
 * nbd.h: the NBD server. Protocol: NetworkBlockDevice/nbd doc/proto.md.
 *
 * It sees exports through this small provider, so that tests and fuzzers can run it on a memory device; nbd_ashlar.c fills
 * it in from ashlar.h.
 */
#ifndef NBD_NBD_H
#define NBD_NBD_H

#include "engine/io/bdev.h"
#include "engine/io/net.h"
#include "engine/io/tls.h"

struct nbd_attach {
	struct bdev *bdev;
	struct reactor *home; /* the connection moves there after the handshake */
	bool read_only;
	void *handle;	      /* the provider's */
	const char *name;	 /* canonical name and description of the export, the provider's until detached; */
	const char *description; /* either may be NULL */
};

struct nbd_session; /* the attached one */

struct nbd_client {
	struct nbd_session *s;
	const struct stream *st; /* says who it is, see access.h */
	bool is_look;		 /* INFO and metadata contexts: soon detached, and no client of the export */
};

struct nbd_provider {
	/* Coroutine on the connection's reactor. -ENOENT if there is none of that name that this client may see (a name is valid
	 * UTF-8 of 0 to 4096 bytes without control characters; empty: the default export). c->s: for nbd_session_gone(). */
	int (*co_attach)(void *arg, const char *name, const struct nbd_client *c, struct nbd_attach *out, struct err *e);
	/* Coroutine on the home reactor. */
	void (*co_detach)(void *arg, struct nbd_attach *at);
	/* Coroutine. Calls each() for every export that this client may see; each() does not suspend; description may be NULL. */
	int (*co_list)(void *arg, const struct nbd_client *c, void (*each)(void *each_arg, const char *name, const char *description), void *each_arg);
	/* Metadata contexts beside base:allocation; both NULL: there are none. Coroutine on the connection's reactor, attached: calls
	 * each() for every one; each() does not suspend. key: the provider's, for co_status(). */
	int (*co_contexts)(void *arg, const struct nbd_attach *at, void (*each)(void *each_arg, const char *name, uint64_t key),
			   void *each_arg);
	/* Coroutine on the home reactor. As bdev_co_status(), with the context's flags. The key may be from before a detachment. */
	int (*co_status)(void *arg, const struct nbd_attach *at, uint64_t key, uint64_t off_bytes, uint64_t len_bytes,
			 struct bdev_extent *ext, size_t *n);
	void *arg;
};

struct nbd_options {
	unsigned max_connections;	/* 0: 1024 */
	unsigned max_unauthenticated;	/* still in handshake; 0: 128; the oldest is dropped for a new one */
	uint64_t handshake_ns;		/* 0: 10 s from accept to the start of transmission */
	uint32_t max_in_flight;		/* requests per connection; 0: 256 */
	uint64_t max_in_flight_bytes;	/* payload bytes per connection; 0: 64 MiB */
	uint64_t max_total_bytes;	/* payload of all connections of a reactor; half for writes, half for the rest; 0: 256 MiB */
	struct tls_config *tls;		/* NULL: no TLS. The caller's, outlives the server */
	bool tls_required;		/* of every client */
	bool insecure;			/* else TLS is required of clients that are not on this machine */
	const char *const *tls_allow;	/* NULL-terminated: who may come in by TLS, by the names that access.h means; NULL: all */
	void (*log)(void *arg, const char *line); /* any reactor; printable, rate limited */
	void *log_arg;
};

struct nbd_server;
/* Reactor 0. */
struct nbd_server *nbd_server_create(struct world *w, const struct nbd_provider *p, const struct nbd_options *o);
/* Adds a listening address ("unix:PATH", "HOST:PORT"). */
int nbd_server_listen(struct nbd_server *s, const char *addr, struct err *e) __must_check;
/* The same; *bound: where it is, with the port that it got for 0; valid as long as the server. */
int nbd_server_listen_at(struct nbd_server *s, const char *addr, const char **bound, struct err *e) __must_check;
/* The same on a socket that listens already; *addr: where, valid as long as the server. */
int nbd_server_listen_fd(struct nbd_server *s, int fd, const char **addr, struct err *e) __must_check;
/* Coroutine. Stops listening, ends all sessions (replies in flight are sent), waits for them; then frees. */
void nbd_server_co_destroy(struct nbd_server *s);
/* The volume of this session goes away or the server ends: no more requests are read; what is in flight is answered, then
 * the connection closes. Home reactor of the session. */
void nbd_session_gone(struct nbd_session *s);
/* There too. Its requests go to another device from now on, with the same contents. False: not now, the session is still being agreed
 * upon. */
bool nbd_session_moved(struct nbd_session *s, struct bdev *now);
/* Coroutine, reactor 0. Serves one stream from the greeting to the end, takes it over. For listeners, tests and fuzzers. */
void nbd_server_co_serve(struct nbd_server *s, struct stream *st);

struct nbd_connection_info {
	char peer[64];
	char export_name[256];
	uint64_t reads, writes, bytes_read, bytes_written, since_wall_ns;
};
/* Coroutine, reactor 0. The caller frees with xfree(). */
int nbd_server_co_connections(struct nbd_server *s, struct nbd_connection_info **out, size_t *n);

/* Provider from an engine. Exports by ashlar_co_export_list() and ashlar_co_attach(). */
struct ashlar;
void nbd_provider_from_ashlar(struct ashlar *a, struct nbd_provider *out);

#endif
