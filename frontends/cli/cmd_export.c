#include <stdio.h>
#include <string.h>

#include "frontends/cli/export.h"
#include "frontends/cli/session.h"
#include "frontends/cli/table.h"
#include "frontends/control/names.h"

static const struct column export_cols[] = {
	{ "name", "name", COL_TEXT, true },
	{ "volume", "volume", COL_TEXT, true },
	{ "size", "size_bytes", COL_SIZE, true },
	{ "readonly", "read_only", COL_YES, true },
	{ "hidden", "hidden", COL_YES, true },
	{ "clients", "attached", COL_COUNT, true },
	{ "limit", "max_connections", COL_COUNT, false },
	{ "allow", "allow", COL_TEXT, false },
	{ "default", "is_default", COL_YES, false },
	{ "iscsi", "targets", COL_TEXT, false },
};
const struct table cli_export_table = TABLE(export_cols);
#define OPTS_ACCESS (OPT(ALLOW) | OPT(MAX_CONNECTIONS))

#define OPTS_ISCSI_PLACE (OPT(ISCSI) | OPT(IQN) | OPT(LUN))
#define OPTS_ISCSI (OPTS_ISCSI_PLACE | OPT(INITIATOR) | OPT(CHAP_USER) | OPT(CHAP_SECRET_FILE) | OPT(MUTUAL_USER) | OPT(MUTUAL_SECRET_FILE))

/* What is for iSCSI exports alone, without --iscsi. */
static int iscsi_check(const struct cli *cl)
{
	if (cli_has(cl, OPT_ISCSI) || !(cl->given & OPTS_ISCSI))
		return 0;
	return cli_usage(cl, "--iqn, --lun, --initiator, --chap-user and --mutual-user go with --iscsi");
}

static int run_list(struct cli *cl)
{
	return cli_has(cl, OPT_ISCSI) ? cli_export_iscsi_list(cl) : cli_list(cl, &cli_export_table, "export.list");
}

static int export_params(const struct cli *cl, json_t *params)
{
	json_t *rules;
	uint64_t n;
	unsigned i;
	int r = 0;

	if (cli_has(cl, OPT_READ_ONLY) && cli_has(cl, OPT_WRITABLE))
		return cli_usage(cl, "give --read-only or --writable, not both");
	if (cli_has(cl, OPT_MAX_CONNECTIONS)) {
		r = cli_count(cl, OPT_MAX_CONNECTIONS, 0, UINT32_MAX, &n);
		json_object_set_new(params, "max_connections", json_integer((json_int_t)n));
	}
	if (cl->allow.n) {
		rules = json_array();
		for (i = 0; i < cl->allow.n; i++)
			json_array_append_new(rules, json_string(cl->allow.v[i]));
		json_object_set_new(params, "allow", rules);
	}
	return r;
}

static int export_call(struct cli *cl, const char *method, json_t *params, const char *done)
{
	struct point_name name;
	struct cli_session *s;
	struct err e = { 0 };
	json_t *row = NULL;
	const char *as;
	int r = control_point_split(cl->operands[0], &name, &e);

	if (r == 0 && cli_has(cl, OPT_NAME))
		r = control_check_export(cl->values[OPT_NAME], &e);
	if (r == 0) {
		json_object_set_new(params, "volume", json_string(cl->operands[0]));
		if (cli_has(cl, OPT_NAME))
			json_object_set_new(params, "name", json_string(cl->values[OPT_NAME]));
		s = cli_session_open(cl);
		r = cli_session_call(s, name.pool, method, params, 0, &row, &e);
		cli_session_close(s);
	}
	json_decref(params);
	if (r < 0)
		return cli_fail(&e);
	as = json_string_value(json_object_get(row, "name"));
	if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else if (as && !json_is_true(json_object_get(row, "hidden")))
		printf("%s %s %s as %s%s\n", *name.snap ? "snapshot" : "volume", cl->operands[0], done, as,
		       json_is_true(json_object_get(row, "read_only")) ? ", read-only" : "");
	else
		printf("%s %s %s\n", *name.snap ? "snapshot" : "volume", cl->operands[0], done);
	json_decref(row);
	return CLI_OK;
}

static int run_add(struct cli *cl)
{
	json_t *params;
	int r = iscsi_check(cl);

	if (r || cli_has(cl, OPT_ISCSI))
		return r ? r : cli_export_iscsi_add(cl);
	params = json_pack("{s:b}", "read_only", cli_has(cl, OPT_READ_ONLY));
	r = export_params(cl, params);
	if (r == 0)
		return export_call(cl, "export.add", params, "is exported");
	json_decref(params);
	return r;
}

static int run_set(struct cli *cl)
{
	json_t *params = json_object();
	int r = export_params(cl, params);

	if (cli_has(cl, OPT_READ_ONLY) || cli_has(cl, OPT_WRITABLE))
		json_object_set_new(params, "read_only", json_boolean(cli_has(cl, OPT_READ_ONLY)));
	if (r == 0 && !json_object_size(params) && !cli_has(cl, OPT_NAME))
		r = cli_usage(cl, "say what to change: --name, --read-only, --writable, --allow or --max-connections");
	if (r == 0)
		return export_call(cl, "export.set", params, "is exported");
	json_decref(params);
	return r;
}

static int run_remove(struct cli *cl)
{
	int r = iscsi_check(cl);

	if (r || cli_has(cl, OPT_ISCSI))
		return r ? r : cli_export_iscsi_remove(cl);
	return export_call(cl, "export.remove", json_object(), "is not exported any more");
}

const struct cli_command cli_export_commands[] = {
	{ "export", "add", NULL, "POOL/VOL[@SNAP]", 1, 1, OPTS_ACCESS | OPTS_ISCSI | OPT(NAME) | OPT(READ_ONLY) | OPT(JSON) | OPT(CONTROL), run_add,
	  "give a volume's export a name and mode, or make it an iSCSI LUN",
	  "A served pool exports each volume as POOL/VOL, writable, and each snapshot as POOL/VOL@SNAP, read-only, without this.\n"
	  "With --allow it exists only for clients that meet one of the rules, and for others neither in lists nor by its name; a\n"
	  "snapshot without rules of its own has its volume's. Rules and limits given before stay. Kept in the pool.\n"
	  "With --iscsi it becomes a LUN of an iSCSI target, for all initiators or those named, beside its NBD export; the same target and\n"
	  "LUN again: what was said of it is replaced, secrets too. Sessions that this concerns are asked to log in again.", NULL },
	{ "export", "set", NULL, "POOL/VOL[@SNAP]", 1, 1, OPTS_ACCESS | OPT(NAME) | OPT(READ_ONLY) | OPT(WRITABLE) | OPT(JSON) | OPT(CONTROL), run_set,
	  "change a volume's export, what is given of it",
	  "As `export add`, but name and mode stay too unless they are given. Clients that are attached stay. --allow any lets all in again.",
	  NULL },
	{ "export", "show", NULL, "POOL/VOL[@SNAP]|EXPORT", 1, 1,
	  OPTS_SHOW | OPT(CONTROL) | OPT(FORMAT) | OPT(NBD) | OPT(TLS_CERTS) | OPT(TLS_PSK) | OPT(USER), cli_run_export_show,
	  "show a volume's export, or what a client needs to reach it",
	  "By the volume, whatever its export is called, or by the export's name: one keeps it when its volume moves to another pool.\n"
	  "--format prints what to paste: arguments for QEMU, an element for libvirt, a line for nbd-client, a job for fio, for the address\n"
	  "that the daemon serves (its first unix socket; --nbd ADDR: another), with the client's own keys for TLS (--tls-certificates: the\n"
	  "directory of ca-cert.pem, client-cert.pem and client-key.pem; or --tls-psk and --user).", NULL },
	{ "export", "list", "ls", "[POOL]", 0, 1, OPTS_LIST | OPT(ISCSI) | OPT(CONTROL), run_list, "list what clients can reach",
	  "--iscsi: the LUNs of iSCSI targets (columns: target, lun, volume, readonly, initiators, chap, mutual).", &cli_export_table },
	{ "export", "remove", "rm delete", "POOL/VOL[@SNAP]", 1, 1, OPTS_ISCSI_PLACE | OPT(JSON) | OPT(CONTROL), run_remove,
	  "hide a volume or snapshot from clients",
	  "With --iscsi: from iSCSI initiators alone, as all that it is there, or as LUN --lun of --iqn.\n"
	  "Clients that are attached stay; `export add` brings it back. Kept in the pool.", NULL },
	{ .verb = NULL },
};
