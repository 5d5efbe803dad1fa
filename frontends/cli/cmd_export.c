#include <stdio.h>
#include <string.h>

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
	{ "default", "is_default", COL_YES, false },
};
static const struct table export_table = TABLE(export_cols);

static int run_list(struct cli *cl) { return cli_list(cl, &export_table, "export.list"); }

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
	return export_call(cl, "export.add", json_pack("{s:b}", "read_only", cli_has(cl, OPT_READ_ONLY)), "is exported");
}

static int run_remove(struct cli *cl) { return export_call(cl, "export.remove", json_object(), "is not exported any more"); }

const struct cli_command cli_export_commands[] = {
	{ "export", "add", NULL, "POOL/VOL[@SNAP]", 1, 1, OPT(NAME) | OPT(READ_ONLY) | OPT(JSON) | OPT(CONTROL), run_add,
	  "give a volume's export a name and mode",
	  "A served pool exports each volume as POOL/VOL, writable, and each snapshot as POOL/VOL@SNAP, read-only, without this.\n"
	  "Kept in the pool.", NULL },
	{ "export", "list", "ls", "[POOL]", 0, 1, OPTS_LIST | OPT(CONTROL), run_list, "list what clients can reach", NULL, &export_table },
	{ "export", "remove", "rm delete", "POOL/VOL[@SNAP]", 1, 1, OPT(JSON) | OPT(CONTROL), run_remove,
	  "hide a volume or snapshot from clients",
	  "Clients that are attached stay; `export add` brings it back. Kept in the pool.", NULL },
	{ .verb = NULL },
};
