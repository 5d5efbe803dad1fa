/*
 * session.h: who answers a command: the daemon that holds the pool, or the engine in this process.
 *
 * If a daemon answers on the control socket and holds the pool, it is asked. Otherwise the pool's disks are looked for
 * ($ASHLAR_DISKS, else all block devices), opened here, the same method is run, and the pool is closed again. Context: the
 * main thread.
 */
#ifndef FRONTENDS_CLI_SESSION_H
#define FRONTENDS_CLI_SESSION_H

#include "engine/io/real.h"
#include "engine/pool/ashlar.h"
#include "frontends/cli/cli.h"

enum { SESSION_READ = 1 << 0 }; /* the method changes nothing: a pool opened here is opened read-only */

typedef void (*cli_notify)(void *arg, const char *method, const json_t *params);

struct cli_session;
struct cli_session *cli_session_open(const struct cli *cl);
void cli_session_close(struct cli_session *s);
void cli_session_on_notify(struct cli_session *s, cli_notify fn, void *arg);

/* Runs a method on one pool (NULL: the only one there is). params: borrowed. *result: new reference. */
int cli_session_call(struct cli_session *s, const char *pool, const char *method, const json_t *params, unsigned flags, json_t **result,
		 struct err *e) __must_check;
/* A stream for the data of the next call that has its number as "stream": the other end of the engine's, wherever the pool is. The
 * session's: shut it down, do not close it. At its end the engine closes its side. */
int cli_session_stream(struct cli_session *s, const char *pool, int *fd, json_int_t *number, struct err *e) __must_check;

/* Runs a list method on every pool in reach and gathers the rows. Pools that cannot be read: a warning each, or, with_unread,
 * a row (then each row gets a "state": "served", "idle", "in use", "unreadable"). *incomplete is set if there were any. If there
 * is no pool at all, standard error gets a sentence on why. */
int cli_session_list(struct cli_session *s, const char *method, bool with_unread, json_t **rows, bool *incomplete, struct err *e) __must_check;
/* No pool is opened: pool.create. */
int cli_session_call_here(struct cli_session *s, const char *method, const json_t *params, json_t **result, struct err *e) __must_check;
/* The daemon, or an error that says that there is none. */
int cli_session_call_daemon(struct cli_session *s, const char *method, const json_t *params, json_t **result, struct err *e) __must_check;

/* ---- where things are; also for serve ---- */

/* --io, $ASHLAR_IO. -EINVAL: it is none of the three. */
int cli_io(const struct cli *cl, enum real_io *io, struct err *e) __must_check;

/* --control, $ASHLAR_CONTROL, the runtime directory; "" if there is none of these. */
void cli_control_path(const struct cli *cl, char *buf, size_t len);
/* $ASHLAR_DISKS cut at its colons, or behind URIs at white space (disk_uri.h). Array and strings by xmalloc; n 0 if unset. */
char **cli_disks_from_env(size_t *n);
void cli_disks_free(char **v, size_t n);
/* Coroutine. ashlar_co_pool_open() that waits two seconds for a lock: the kernel lets go of a killed process's disks only
 * when its last requests are through, and another command may be about to finish. */
int cli_co_pool_open(struct ashlar *a, const char *name, const char *const *paths, size_t n_paths, unsigned flags,
		     struct ashlar_pool **out, struct err *e) __must_check;
/* Prints the engine's log lines on stderr. */
void cli_log(void *arg, const char *line);

#endif
