#include <stdio.h>

#include "frontends/cli/serve.h"
#include "frontends/cli/session.h"
#include "frontends/cli/table.h"

static const struct column connection_cols[] = {
	{ "export", "export", COL_TEXT, true },
	{ "peer", "peer", COL_TEXT, true },
	{ "reads", "reads", COL_COUNT, true },
	{ "writes", "writes", COL_COUNT, true },
	{ "readbytes", "bytes_read", COL_SIZE, true },
	{ "writebytes", "bytes_written", COL_SIZE, true },
};
static const struct table connection_table = TABLE(connection_cols);

static const struct column status_cols[] = {
	{ "version", "version", COL_TEXT, true },   { "pid", "pid", COL_COUNT, true },
	{ "uptime", "uptime_seconds", COL_COUNT, true }, { "reactors", "reactors", COL_COUNT, true },
	{ "io", "io", COL_TEXT, true },
	{ "pools", "pools", COL_COUNT, true },	    { "clients", "connections", COL_COUNT, true },
	{ "control", "control", COL_TEXT, true },   { "readonly", "read_only", COL_YES, true },
	{ "tls", "tls", COL_TEXT, true },
};
static const struct table status_table = TABLE(status_cols);

static int daemon_call(struct cli *cl, const char *method, json_t **result)
{
	struct cli_session *s = cli_session_open(cl);
	struct err e = { 0 };
	int r = cli_session_call_daemon(s, method, NULL, result, &e);

	cli_session_close(s);
	return r < 0 ? cli_fail(&e) : CLI_OK;
}

static int run_connections(struct cli *cl)
{
	json_t *rows = NULL;
	int r = cli_table_check(&connection_table, cl);

	if (r == 0)
		r = daemon_call(cl, "connection.list", &rows);
	if (r == 0)
		r = cli_table_print(&connection_table, cl, rows);
	json_decref(rows);
	return r;
}

static int run_status(struct cli *cl)
{
	json_t *row = NULL, *addr;
	size_t i;
	int r = daemon_call(cl, "daemon.status", &row);

	if (r == 0)
		r = cli_table_show(&status_table, cl, row);
	if (r == 0 && !cli_has(cl, OPT_JSON)) {
		json_array_foreach(json_object_get(row, "nbd"), i, addr)
			printf("%-16s %s\n", "nbd", json_string_value(addr));
		json_array_foreach(json_object_get(row, "iscsi"), i, addr)
			printf("%-16s %s\n", "iscsi", json_string_value(addr));
	}
	json_decref(row);
	return r;
}

static int run_stop(struct cli *cl)
{
	json_t *row = NULL;
	int r = daemon_call(cl, "daemon.shutdown", &row);

	json_decref(row);
	if (r == 0)
		printf("the daemon is closing its pools and will end\n");
	return r;
}

const struct cli_command cli_daemon_commands[] = {
	{ NULL, "serve", NULL, "[DISK...]", 0, -1,
	  OPT(CONTROL) | OPT(NBD) | OPT(ISCSI) | OPT(REACTORS) | OPT(METADATA_CACHE) | OPT(READ_ONLY) | OPT(INSECURE) | OPT(TLS) | OPT(TLS_CERTS) |
	  OPT(TLS_PSK) | OPT(TLS_VERIFY) | OPT(TLS_ALLOW), cli_serve,
	  "serve the pools on these disks over NBD and iSCSI",
	  "DISK is a file, a device or a directory of them, or a remote disk: the URI of an NBD export (nbd://HOST/EXPORT, nbds://,\n"
	  "nbd+unix:///EXPORT?socket=/PATH). Without any: $ASHLAR_DISKS, else all block devices. Each volume is exported as POOL/VOL.\n"
	  "Without --nbd it listens on a unix socket beside the control socket. Clients that are not on this machine must use TLS: by\n"
	  "certificates in a directory laid out as QEMU and nbdkit do it (--tls-certificates), by pre-shared keys (--tls-psk), or\n"
	  "both. --iscsi serves what `ashlar export add --iscsi` has made a LUN. Disks are read and written by io_uring, or by epoll\n"
	  "and Linux AIO (--io aio) where the kernel refuses it, as in many containers. When all is ready it prints a line \"ready\".\n"
	  "SIGTERM or SIGINT closes the pools cleanly; a second one ends the process at once, as a power cut would.",
	  NULL },
	{ "daemon", "status", NULL, "", 0, 0, OPTS_SHOW | OPT(CONTROL), run_status, "show what the running daemon serves, and where", NULL,
	  NULL },
	{ "daemon", "stop", NULL, "", 0, 0, OPT(CONTROL), run_stop, "have the running daemon close its pools and end", NULL, NULL },
	{ "connection", "list", "ls", "", 0, 0, OPTS_LIST | OPT(CONTROL), run_connections, "list the clients attached now", NULL,
	  &connection_table },
	{ .verb = NULL },
};
