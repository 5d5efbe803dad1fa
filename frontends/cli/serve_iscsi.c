/*
 * The daemon's iSCSI target: addresses, start and end, and what is told of its sessions.
 */
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "frontends/cli/serve.h"
#include "frontends/cli/session.h"
#include "frontends/control/names.h"
#include "frontends/iscsi/exports.h"

int serve_iscsi_set(struct serve_iscsi *s, const struct cli *cl)
{
	char q[72];
	unsigned i;

	for (i = 0; i < cl->iscsi.n; i++) {
		const char *addr = cl->iscsi.v[i], *port = addr ? strrchr(addr, ':') : NULL;

		if (!port || port == addr || !port[1] || !strncmp(addr, "unix:", 5))
			return cli_usage(cl, "--iscsi takes HOST:PORT, not '%s'", control_name_quote(addr ? addr : "", q, sizeof(q)));
		if (!cli_addr_is_local(addr) && !cli_has(cl, OPT_INSECURE))
			return cli_failf("--iscsi %s: other hosts can reach this address, and iSCSI has no encryption (CHAP tells who it is, and no "
					 "more): use 127.0.0.1, or add --insecure on a network that you trust",
					 control_name_quote(addr, q, sizeof(q)));
		s->addrs[s->n_addrs++] = addr;
	}
	return 0;
}

int serve_iscsi_start(struct serve_iscsi *s, struct ashlar *a, unsigned max_connections, struct err *e)
{
	struct iscsi_options o = { .log = cli_log, .max_connections = max_connections, .max_unauthenticated = MIN(max_connections, 128U) };
	struct iscsi_provider p;
	unsigned i;
	int r;

	if (!s->n_addrs)
		return 0;
	iscsi_provider_from_ashlar(a, &p);
	s->server = iscsi_server_create(ashlar_world(a), a, &p, &o);
	for (i = 0; i < s->n_addrs; i++) {
		r = iscsi_server_listen(s->server, s->addrs[i], e);
		if (r < 0)
			return err_default(e, r, s->addrs[i]);
		printf("iscsi %s\n", s->addrs[i]);
		fflush(stdout);
	}
	return 0;
}

void serve_iscsi_co_stop(struct serve_iscsi *s)
{
	if (s->server)
		iscsi_server_co_destroy(s->server);
	s->server = NULL;
}

void serve_iscsi_co_changed(struct serve_iscsi *s)
{
	if (s->server)
		iscsi_server_co_rules_changed(s->server);
}

void serve_iscsi_connections(struct serve_iscsi *s, json_t *rows)
{
	struct iscsi_connection_info *v;
	json_t *name, *peer;
	size_t i, n;

	if (!s->server || iscsi_server_connections(s->server, &v, &n) < 0)
		return;
	for (i = 0; i < n; i++) {
		name = json_string(*v[i].target ? v[i].target : "(discovery)");
		peer = json_string(v[i].peer);
		json_array_append_new(rows, json_pack("{s:s, s:o, s:o, s:s, s:I, s:I, s:I, s:I, s:I}", "protocol", "iscsi", "export",
						      name ? name : json_string("?"), "peer", peer ? peer : json_string("?"), "initiator",
						      v[i].initiator, "reads", (json_int_t)v[i].reads, "writes", (json_int_t)v[i].writes,
						      "bytes_read", (json_int_t)v[i].bytes_read, "bytes_written",
						      (json_int_t)v[i].bytes_written, "since_unix",
						      (json_int_t)(v[i].since_wall_ns / NS_PER_SEC)));
	}
	xfree(v);
}

json_t *serve_iscsi_addrs(const struct serve_iscsi *s)
{
	json_t *out = json_array();
	unsigned i;

	for (i = 0; i < s->n_addrs; i++)
		json_array_append_new(out, json_string(s->addrs[i]));
	return out;
}
