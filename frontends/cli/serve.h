/*
 * serve.h: the daemon: pools, the NBD server, the control socket, and an orderly end.
 */
#ifndef FRONTENDS_CLI_SERVE_H
#define FRONTENDS_CLI_SERVE_H

#include "engine/io/reactor.h"
#include "engine/io/tls.h"
#include "frontends/cli/cli.h"

/* The command `ashlar serve`. Returns an exit status when the daemon has ended. */
int cli_serve(struct cli *cl);

struct serve_tls {
	struct tls_config *config; /* NULL: off. The caller destroys it */
	const char *mode;	   /* "off", "on", "require" */
	bool is_required;
};
/* What the command line says of TLS: 0, or an exit status after the message. */
int serve_tls_set(struct serve_tls *t, const struct cli *cl) __must_check;

/* The service manager that has started us (systemd), or none: sockets that it has opened, and what it wants to be told. */
#define MANAGER_FDS_MAX 16
struct manager {
	int fds[MANAGER_FDS_MAX];
	unsigned n_fds;
	int notify_fd; /* -1: nobody listens */
	uint64_t watchdog_ns; /* 0: none */
	struct timer watchdog;
};
/* Before threads exist. Takes it from the environment, where it does not stay. 0, or an exit status after the message. */
int manager_take(struct manager *m) __must_check;
/* Reactor 0, whose liveness the watchdog then is, also while it stops, until manager_end(). */
void manager_ready(struct manager *m);
void manager_stopping(struct manager *m);
void manager_end(struct manager *m);

/* The iSCSI target, if it is asked for. */
struct ashlar;
struct iscsi_server;
struct serve_iscsi {
	const char *addrs[CLI_MANY_MAX];
	unsigned n_addrs;
	struct iscsi_server *server; /* NULL: none */
};
/* What the command line says of it: 0, or an exit status after the message. */
int serve_iscsi_set(struct serve_iscsi *s, const struct cli *cl) __must_check;
/* Reactor 0. */
int serve_iscsi_start(struct serve_iscsi *s, struct ashlar *a, unsigned max_connections, struct err *e) __must_check;
void serve_iscsi_co_stop(struct serve_iscsi *s);
/* What is exported has changed, or for whom. */
void serve_iscsi_co_changed(struct serve_iscsi *s);
/* Adds a row for each session; its addresses. */
void serve_iscsi_connections(struct serve_iscsi *s, json_t *rows);
json_t *serve_iscsi_addrs(const struct serve_iscsi *s);

/* HOST:PORT or unix:PATH that only this machine reaches. */
bool cli_addr_is_local(const char *addr);
/* Where clients find what listens at `host` (IPv6 in brackets or not): for an address that stands for all of them, this machine's name. */
const char *cli_addr_host(const char *host, char *buf, size_t len);
/* The NBD socket beside a control socket: "unix:/run/ashlar/nbd.sock", "unix:/run/user/1000/ashlar-nbd.sock". */
void cli_addr_beside_control(const char *control, char *buf, size_t len);

#endif
