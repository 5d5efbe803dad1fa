/*
 * `ashlar export show`: the export's row, or what a client needs to reach it, ready to be pasted. Where the daemon listens is
 * asked of it; keys of the client are as the options say.
 */
#include <stdio.h>
#include <string.h>

#include "frontends/cli/export.h"
#include "frontends/cli/serve.h"
#include "frontends/cli/session.h"
#include "frontends/cli/table.h"
#include "frontends/control/names.h"

struct target {
	const struct cli *cl;
	const char *export, *addr;   /* addr: as --nbd takes it */
	const char *socket;	     /* unix: the path; NULL: TCP */
	char host[256];		     /* TCP; IPv6 without brackets */
	const char *port;
	const char *certs, *psk, *user;
	char psk_dir[256];
	bool read_only;
};

enum quoting { QUOTE_URI, QUOTE_QEMU, QUOTE_XML, QUOTE_SHELL };

/* What a character of an export's name or a path becomes. */
static void quote_char(enum quoting q, unsigned char ch, char *out, size_t len)
{
	bool plain = (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || strchr("/-._~@:", ch);

	if (q == QUOTE_URI && !plain)
		snprintf(out, len, "%%%02X", ch);
	else if (q == QUOTE_QEMU && ch == ',')
		snprintf(out, len, ",,");
	else if (q == QUOTE_XML && strchr("&<>'\"", ch))
		snprintf(out, len, "&#%u;", ch);
	else if (ch == '\'' && q != QUOTE_XML) /* all but XML stands in single quotes of a shell */
		snprintf(out, len, "'\\''");
	else
		snprintf(out, len, "%c", ch);
}

/* Prints text with this quoting. */
static void put(enum quoting q, const char *text)
{
	char buf[8];

	for (; *text; text++) {
		quote_char(q, (unsigned char)*text, buf, sizeof(buf));
		fputs(buf, stdout);
	}
}

static bool is_tls(const struct target *t) { return t->certs || t->psk; }

/* ---- each format ---- */

/* Without files: for programs that do not let libnbd open those that a URI names. */
static void put_uri(const struct target *t)
{
	printf("%s://", t->socket ? is_tls(t) ? "nbds+unix" : "nbd+unix" : is_tls(t) ? "nbds" : "nbd");
	if (t->socket)
		printf("%s", is_tls(t) ? "localhost" : "");
	else
		printf(strchr(t->host, ':') ? "[%s]:%s" : "%s:%s", t->host, t->port);
	printf("/");
	put(QUOTE_URI, t->export);
	if (t->socket) {
		printf("?socket=");
		put(QUOTE_URI, t->socket);
	}
}

static void put_qemu_object(const struct target *t, const char *option)
{
	if (!is_tls(t))
		return;
	printf("%s 'tls-creds-%s,id=tls0,endpoint=client,dir=", option, t->psk ? "psk" : "x509");
	put(QUOTE_QEMU, t->psk ? t->psk_dir : t->certs);
	if (t->psk) {
		printf(",username=");
		put(QUOTE_QEMU, t->user ? t->user : "qemu");
	}
	printf("' ");
}

static void put_qemu_server(const struct target *t)
{
	printf("driver=nbd,");
	if (t->socket) {
		printf("server.type=unix,server.path=");
		put(QUOTE_QEMU, t->socket);
	} else {
		printf("server.type=inet,server.host=%s,server.port=%s", t->host, t->port);
	}
	printf(",export=");
	put(QUOTE_QEMU, t->export);
	if (is_tls(t))
		printf(",tls-creds=tls0%s", t->socket && t->certs ? ",tls-hostname=localhost" : "");
	if (t->read_only)
		printf(",read-only=on");
}

static void show_qemu(const struct target *t)
{
	printf("# a virtual machine goes on where it was when the daemon is back within a minute\nqemu-system-x86_64 ");
	put_qemu_object(t, "-object");
	printf("-blockdev 'node-name=disk0,");
	put_qemu_server(t);
	printf(",reconnect-delay=60%s' -device virtio-blk-pci,drive=disk0\n", t->read_only ? "" : ",discard=unmap");
	printf("qemu-io ");
	put_qemu_object(t, "--object");
	printf("--image-opts%s '", t->read_only ? " -r" : "");
	put_qemu_server(t);
	printf("'\n");
}

static void show_libvirt(const struct target *t)
{
	printf("<disk type='network' device='disk'>\n  <driver name='qemu' type='raw' cache='none'%s/>\n", t->read_only ? "" : " discard='unmap'");
	printf("  <source protocol='nbd' name='");
	put(QUOTE_XML, t->export);
	printf("'%s", is_tls(t) ? " tls='yes'" : "");
	if (t->socket && t->certs)
		printf(" tlsHostname='localhost'");
	printf(">\n    <host ");
	if (t->socket) {
		printf("transport='unix' socket='");
		put(QUOTE_XML, t->socket);
		printf("'");
	} else {
		printf("name='%s' port='%s'", t->host, t->port);
	}
	printf("/>\n    <reconnect delay='60'/>\n  </source>\n  <target dev='vdb' bus='virtio'/>\n%s</disk>\n",
	       t->read_only ? "  <readonly/>\n" : "");
}

static void show_nbd_client(const struct target *t)
{
	printf("# after the daemon's end requests fail, and this is to be run again (umount, nbd-client -d before). nbd-client takes -persist, but only\n"
	       "# from version 3.27 on does it reconnect by that where it sets the device up by netlink, its default; it stays in the foreground then\n");
	printf("nbd-client -N '");
	put(QUOTE_SHELL, t->export);
	printf("' ");
	if (t->certs) {
		static const char *const keys[3][2] = { { "cacertfile", "ca-cert.pem" }, { "certfile", "client-cert.pem" }, { "keyfile", "client-key.pem" } };
		size_t i;

		for (i = 0; i < ARRAY_LEN(keys); i++) {
			printf("-%s '", keys[i][0]);
			put(QUOTE_SHELL, t->certs);
			printf("/%s' ", keys[i][1]);
		}
	}
	if (t->read_only)
		printf("-R ");
	if (t->socket) {
		printf("-unix '");
		put(QUOTE_SHELL, t->socket);
		printf("' /dev/nbd0\n");
	} else {
		printf("%s %s /dev/nbd0\n", t->host, t->port);
	}
}

static void show_fio(const struct target *t)
{
	printf("# reads only; rw=randrw overwrites what is on the volume\n");
	if (t->certs)
		printf("# the certificates: fio takes them from ~/.pki/libnbd (root: /etc/pki/libnbd), so\n#   mkdir -p ~/.pki && ln -s '%s' ~/.pki/libnbd\n", t->certs);
	printf("[ashlar]\nioengine=nbd\nuri=");
	put_uri(t);
	printf("\nrw=randread\nbs=4k\niodepth=32\ntime_based=1\nruntime=10\n");
}

static const struct {
	const char *name;
	void (*show)(const struct target *t);
} formats[] = {
	{ "qemu", show_qemu },
	{ "libvirt", show_libvirt },
	{ "nbd-client", show_nbd_client },
	{ "fio", show_fio },
};

/* ---- where it is ---- */

static int target_options(struct target *t)
{
	const struct cli *cl = t->cl;
	const char *slash;

	t->certs = cl->values[OPT_TLS_CERTS];
	t->psk = cl->values[OPT_TLS_PSK];
	t->user = cl->values[OPT_USER];
	if (t->certs && t->psk)
		return cli_usage(cl, "give --tls-certificates or --tls-psk, not both");
	if (t->user && !t->psk)
		return cli_usage(cl, "--user goes with --tls-psk");
	if (!t->psk)
		return 0;
	if (!strcmp(cl->values[OPT_FORMAT], "nbd-client") || !strcmp(cl->values[OPT_FORMAT], "fio"))
		return cli_failf("%s takes no pre-shared keys: use certificates", cl->values[OPT_FORMAT]);
	if (strcmp(cl->values[OPT_FORMAT], "qemu"))
		return 0;
	slash = strrchr(t->psk, '/');
	if (!slash || strcmp(slash, "/keys.psk") || slash == t->psk)
		return cli_failf("QEMU reads pre-shared keys from a file keys.psk in a directory: give --tls-psk DIR/keys.psk");
	snprintf(t->psk_dir, sizeof(t->psk_dir), "%.*s", (int)(slash - t->psk), t->psk);
	return 0;
}

static int addr_split(struct target *t)
{
	const char *colon = strrchr(t->addr, ':'), *start = t->addr;
	char host[256], name[256];
	size_t len;

	if (!strncmp(t->addr, "unix:", 5)) {
		t->socket = t->addr + 5;
		return 0;
	}
	if (!colon || colon == t->addr || !colon[1])
		return cli_usage(t->cl, "--nbd takes unix:PATH or HOST:PORT");
	len = (size_t)(colon - start);
	if (*start == '[' && colon[-1] == ']') {
		start++;
		len -= 2;
	}
	snprintf(host, sizeof(host), "%.*s", (int)MIN(len, sizeof(host) - 1), start);
	snprintf(t->host, sizeof(t->host), "%s", cli_addr_host(host, name, sizeof(name)));
	t->port = colon + 1;
	return 0;
}

/* The daemon's: its first unix socket, else its first address. */
static int target_addr(struct target *t, const json_t *status)
{
	const json_t *addrs = json_object_get(status, "nbd"), *addr;
	const char *tls = json_string_value(json_object_get(status, "tls"));
	size_t i;

	t->addr = t->cl->nbd.n ? t->cl->nbd.v[0] : json_string_value(json_array_get(addrs, 0));
	json_array_foreach((json_t *)(uintptr_t)addrs, i, addr) {
		if (t->cl->nbd.n || strncmp(json_string_value(addr), "unix:", 5))
			continue;
		t->addr = json_string_value(addr);
		break;
	}
	if (!t->addr)
		return cli_failf("the daemon serves NBD nowhere");
	if (tls && !strcmp(tls, "off") && is_tls(t) && !t->cl->nbd.n)
		return cli_failf("the daemon serves without TLS: leave --tls-certificates and --tls-psk out");
	if (tls && !strcmp(tls, "require") && !is_tls(t))
		return cli_failf("the daemon serves with TLS only: give the client's keys (--tls-certificates DIR, or --tls-psk FILE --user NAME)");
	return addr_split(t);
}

static int format_find(struct cli *cl)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(formats); i++)
		if (!strcmp(formats[i].name, cl->values[OPT_FORMAT]))
			return (int)i;
	return -1;
}

static int show_formatted(struct cli *cl, struct cli_session *s, const json_t *row)
{
	struct target t = { .cl = cl, .export = json_string_value(json_object_get(row, "name")),
			    .read_only = json_is_true(json_object_get(row, "read_only")) };
	json_t *status = NULL;
	struct err e = { 0 };
	int r = format_find(cl) < 0 ? 0 : target_options(&t);

	if (r)
		return r;
	if (json_is_true(json_object_get(row, "hidden")))
		return cli_failf("%s is hidden from clients; `ashlar export add` brings it back", cl->operands[0]);
	if (cli_session_call_daemon(s, "daemon.status", NULL, &status, &e) < 0)
		return cli_fail(&e);
	if (format_find(cl) < 0) {
		r = cli_iscsi_format_show(cl, cl->values[OPT_FORMAT], status, row);
		json_decref(status);
		return r;
	}
	r = target_addr(&t, status);
	if (r == 0)
		formats[format_find(cl)].show(&t);
	json_decref(status);
	return r;
}

int cli_run_export_show(struct cli *cl)
{
	struct point_name name;
	struct cli_session *s;
	struct err e = { 0 };
	json_t *row = NULL, *params;
	int r = control_point_split(cl->operands[0], &name, &e);

	if (r < 0)
		return cli_fail(&e);
	if (cli_has(cl, OPT_FORMAT) && format_find(cl) < 0 && !cli_iscsi_format_is_known(cl->values[OPT_FORMAT]))
		return cli_usage(cl, "--format takes qemu, libvirt, nbd-client or fio, and for iSCSI iscsiadm, libvirt-iscsi or esxi");
	params = json_pack("{s:s}", "volume", cl->operands[0]);
	s = cli_session_open(cl);
	r = cli_session_call(s, name.pool, "export.show", params, SESSION_READ, &row, &e);
	if (r < 0)
		r = cli_fail(&e);
	else if (cli_has(cl, OPT_FORMAT))
		r = show_formatted(cl, s, row);
	else
		r = cli_table_show(&cli_export_table, cl, row);
	cli_session_close(s);
	json_decref(params);
	json_decref(row);
	return r;
}
