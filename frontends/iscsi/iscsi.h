/*
 * iscsi.h: the iSCSI target (RFC 7143): error recovery level 0, one connection per session, any number of sessions.
 *
 * Who may see what comes from a provider, as rules: one rule is one LUN of one target for some initiators. iscsi_ashlar.c makes
 * them of what a pool's export notes say; tests make their own. The commands go to scsi.h.
 */
#ifndef FRONTENDS_ISCSI_ISCSI_H
#define FRONTENDS_ISCSI_ISCSI_H

#include "engine/io/net.h"
#include "engine/pool/ashlar.h"

#define ISCSI_PORT 3260
#define ISCSI_USER_MAX 63
#define ISCSI_SECRET_MIN 12 /* bytes: 96 bits, RFC 7143 9.2.1 */
#define ISCSI_SECRET_MAX 100
#define ISCSI_LUN_MAX 16383

struct iscsi_secret {
	char user[ISCSI_USER_MAX + 1]; /* "": nobody has to prove anything */
	uint8_t len;
	uint8_t bytes[ISCSI_SECRET_MAX];
};

struct iscsi_rule {
	char target[224];
	uint16_t lun;
	bool read_only;
	char export_name[ASHLAR_EXPORT_DEFAULT_MAX + 1];
	struct iscsi_secret chap;   /* the initiator proves that it knows it */
	struct iscsi_secret mutual; /* the target does, when it is asked */
};

struct iscsi_provider {
	/* Coroutine on reactor 0. All rules for this initiator: of one target, NULL: of all. *out: xmalloc'ed. */
	int (*co_rules)(void *arg, const char *initiator, const char *target, struct iscsi_rule **out, size_t *n);
	void *arg;
};

struct iscsi_options {
	unsigned max_connections;     /* 0: 1024 */
	unsigned max_unauthenticated; /* in the login phase; 0: 128; the oldest is dropped for a new one */
	uint64_t login_ns;	      /* 0: 15 s from accept to the full feature phase */
	uint64_t ping_ns;	      /* 0: 20 s of silence before a NOP-In */
	uint64_t pong_ns;	      /* 0: 20 s for its answer; also for whoever does not read, or does not send data it was asked for */
	uint64_t max_session_bytes;   /* payload in memory; 0: 32 MiB */
	uint64_t max_total_bytes;     /* of all sessions of a reactor; half for writes, half for the rest; 0: 256 MiB */
	void (*log)(void *arg, const char *line); /* any reactor; printable, rate limited */
	void *log_arg;
};

/* For ashlar_options.fence: reservations of SCSI hold for clients of other frontends. */
uint8_t iscsi_fence(const void *note, size_t len);

struct iscsi_server;
/* Reactor 0. */
struct iscsi_server *iscsi_server_create(struct world *w, struct ashlar *a, const struct iscsi_provider *p, const struct iscsi_options *o);
/* Adds a listening address, "HOST:PORT". */
int iscsi_server_listen(struct iscsi_server *s, const char *addr, struct err *e) __must_check;
/* Coroutine. Stops listening, tells and ends all sessions, waits for them; then frees. */
void iscsi_server_co_destroy(struct iscsi_server *s);
/* Coroutine, reactor 0. Serves one stream from the login to the end, takes it over. For listeners, tests and fuzzers. */
void iscsi_server_co_serve(struct iscsi_server *s, struct stream *st);
/* Reactor 0. The rules have changed: sessions lose LUNs, and get others, and hear that the list is another one. Those whose secrets have
 * changed, or to which nothing is left, are asked to log out, and dropped after some seconds. Coroutine. */
void iscsi_server_co_rules_changed(struct iscsi_server *s);

struct iscsi_connection_info {
	char peer[64];
	char initiator[224], target[224]; /* target "": discovery */
	unsigned n_luns;
	uint64_t reads, writes, bytes_read, bytes_written, since_wall_ns;
};
/* Reactor 0. The caller frees with xfree(). */
int iscsi_server_connections(struct iscsi_server *s, struct iscsi_connection_info **out, size_t *n);

#endif
