#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "frontends/cli/session.h"
#include "frontends/cli/table.h"
#include "frontends/control/names.h"

static const struct column snapshot_cols[] = {
	{ "name", "name", COL_TEXT, true },
	{ "used", "used_bytes", COL_SIZE, true },
	{ "refer", "refer_bytes", COL_SIZE, true },
	{ "exclusive", "exclusive_bytes", COL_SIZE, true },
	{ "created", "created", COL_TEXT, true },
	{ "clones", "clones", COL_COUNT, true },
	{ "clients", "attached", COL_COUNT, true },
	{ "size", "size_bytes", COL_SIZE, false },
	{ "volume", "volume", COL_TEXT, false },
	{ "policy", "by_policy", COL_YES, false },
	{ "guid", "guid", COL_TEXT, false },
	{ "id", "id", COL_COUNT, false },
};
static const struct table snapshot_table = TABLE(snapshot_cols);

/* ---- calls ---- */

/* Calls a method of this pool. params: taken over. NULL after a message; *status tells. */
static json_t *pool_call(struct cli *cl, const char *pool, const char *method, json_t *params, unsigned flags, int *status)
{
	struct cli_session *s = cli_session_open(cl);
	struct err e = { 0 };
	json_t *row = NULL;
	int r = cli_session_call(s, pool, method, params, flags, &row, &e);

	cli_session_close(s);
	json_decref(params);
	*status = r < 0 ? cli_fail(&e) : CLI_OK;
	return r < 0 ? NULL : row;
}

/* The snapshot that the first operand names. */
static json_t *snapshot_call(struct cli *cl, const char *method, json_t *params, unsigned flags, int *status)
{
	struct point_name name;
	struct err e = { 0 };

	if (control_snapshot_split(cl->operands[0], &name, &e) < 0) {
		json_decref(params);
		*status = cli_fail(&e);
		return NULL;
	}
	json_object_set_new(params, "snapshot", json_string(cl->operands[0]));
	return pool_call(cl, name.pool, method, params, flags, status);
}

/* All operands are names of snapshots of one pool. */
static json_t *snapshots_call(struct cli *cl, const char *method, json_t *params, unsigned flags, int *status)
{
	struct point_name first, name;
	json_t *names = json_array();
	struct err e = { 0 };
	int i, r = control_snapshot_split(cl->operands[0], &first, &e);

	for (i = 0; i < cl->n_operands && r == 0; i++) {
		r = control_snapshot_split(cl->operands[i], &name, &e);
		if (r == 0 && strcmp(name.pool, first.pool))
			r = err_set(&e, -EXDEV, "one command works on one pool: %s/%s and %s/%s are of two", first.pool, first.rest,
				    name.pool, name.rest);
		json_array_append_new(names, json_string(cl->operands[i]));
	}
	json_object_set_new(params, "snapshots", names);
	if (r == 0)
		return pool_call(cl, first.pool, method, params, flags, status);
	json_decref(params);
	*status = cli_fail(&e);
	return NULL;
}

static const char *text_of(const json_t *row, const char *key)
{
	const char *s = json_string_value(json_object_get(row, key));

	return s ? s : "";
}

static uint64_t number_of(const json_t *row, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(row, key));
}

/* ---- commands ---- */

static int run_create(struct cli *cl)
{
	json_t *rows, *row;
	size_t i;
	int r;

	rows = snapshots_call(cl, "snapshot.create", json_object(), 0, &r);
	if (rows && cli_has(cl, OPT_JSON))
		cli_print_json(rows);
	else
		json_array_foreach(rows, i, row)
			printf("snapshot %s taken\n", text_of(row, "name"));
	json_decref(rows);
	return r;
}

static int run_list(struct cli *cl)
{
	struct volume_name name;
	struct err e = { 0 };
	json_t *rows;
	int r;

	if (!cl->n_operands || !strchr(cl->operands[0], '/'))
		return cli_list(cl, &snapshot_table, "snapshot.list");
	r = cli_table_check(&snapshot_table, cl);
	if (r == 0 && control_name_split(cl->operands[0], &name, &e) < 0)
		r = cli_fail(&e);
	if (r)
		return r;
	rows = pool_call(cl, name.pool, "snapshot.list", json_pack("{s:s}", "volume", cl->operands[0]), SESSION_READ, &r);
	if (rows)
		r = cli_table_print(&snapshot_table, cl, rows);
	json_decref(rows);
	return r;
}

static int run_show(struct cli *cl)
{
	int r;
	json_t *row = snapshot_call(cl, "snapshot.show", json_object(), SESSION_READ, &r);

	if (row)
		r = cli_table_show(&snapshot_table, cl, row);
	json_decref(row);
	return r;
}

static int run_delete(struct cli *cl)
{
	bool dry_run = cli_has(cl, OPT_DRY_RUN);
	char freed[16];
	json_t *row;
	int i, r;

	row = snapshots_call(cl, "snapshot.delete", json_pack("{s:b, s:b}", "force", cli_has(cl, OPT_FORCE), "dry_run", dry_run),
			     dry_run ? SESSION_READ : 0, &r);
	if (!row)
		return r;
	size_format(number_of(row, "freed_bytes"), freed, sizeof(freed));
	if (cli_has(cl, OPT_JSON)) {
		cli_print_json(row);
	} else {
		for (i = 0; i < cl->n_operands; i++)
			printf("snapshot %s %s\n", cl->operands[i], dry_run ? "would be deleted" : "deleted");
		printf("%s freed%s\n", freed, dry_run ? " by that; nothing was changed" : "");
	}
	json_decref(row);
	return CLI_OK;
}

static int run_rollback(struct cli *cl)
{
	bool dry_run = cli_has(cl, OPT_DRY_RUN);
	char freed[16];
	int r;
	json_t *row = snapshot_call(cl, "snapshot.rollback",
				    json_pack("{s:b, s:b}", "force", cli_has(cl, OPT_FORCE), "dry_run", dry_run),
				    dry_run ? SESSION_READ : 0, &r);

	if (!row)
		return r;
	size_format(number_of(row, "freed_bytes"), freed, sizeof(freed));
	if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else
		printf("volume %s %s to %s, %s freed%s\n", text_of(row, "volume"), dry_run ? "would be rolled back" : "rolled back",
		       cl->operands[0], freed, dry_run ? "; nothing was changed" : "");
	json_decref(row);
	return CLI_OK;
}

static int run_rename(struct cli *cl)
{
	const char *to = cl->operands[1], *at = strrchr(to, '@');
	struct err e = { 0 };
	char q[72];
	json_t *row;
	int r;

	/* POOL/VOL@NEW is understood too, if it is the same volume. */
	if (at && strcspn(cl->operands[0], "@") == (size_t)(at - to) && !strncmp(cl->operands[0], to, (size_t)(at - to)))
		to = at + 1;
	else if (at || strchr(to, '/'))
		return cli_failf("a snapshot stays with its volume: '%s' is not of %.*s; give its new name alone", control_name_quote(to, q, sizeof(q)),
				 (int)strcspn(cl->operands[0], "@"), cl->operands[0]);
	if (control_check_snapshot(to, &e) < 0)
		return cli_fail(&e);
	row = snapshot_call(cl, "snapshot.rename", json_pack("{s:s}", "new_name", to), 0, &r);
	if (row && cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else if (row)
		printf("snapshot %s renamed to %s\n", cl->operands[0], text_of(row, "name"));
	json_decref(row);
	return r;
}

/* "3600s" as people write it: 1h. */
static const char *every_text(const char *text, char buf[24])
{
	static const struct {
		unsigned s;
		char ch;
	} units[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' } };
	uint64_t ns;
	size_t i;

	if (duration_parse(text, &ns) < 0 || ns == 0 || ns == UINT64_MAX)
		return text;
	for (i = 0; i < ARRAY_LEN(units); i++) {
		if (ns % (units[i].s * NS_PER_SEC))
			continue;
		snprintf(buf, 24, "%llu%c", (unsigned long long)(ns / (units[i].s * NS_PER_SEC)), units[i].ch);
		return buf;
	}
	return text;
}

static int run_policy(struct cli *cl)
{
	bool changes = cli_has(cl, OPT_EVERY) || cli_has(cl, OPT_KEEP) || cli_has(cl, OPT_OFF);
	json_t *params, *row;
	struct volume_name name;
	struct err e = { 0 };
	uint64_t keep = 0;
	char every[24];
	int r = cli_has(cl, OPT_EVERY) ? cli_duration_text(cl, "--every", cl->values[OPT_EVERY]) : 0;

	if (r == 0 && cli_has(cl, OPT_KEEP))
		r = cli_count(cl, OPT_KEEP, 1, 100000, &keep);
	if (r == 0 && cli_has(cl, OPT_OFF) && (cli_has(cl, OPT_EVERY) || cli_has(cl, OPT_KEEP)))
		r = cli_usage(cl, "a policy is either --off or has --every and --keep");
	if (r == 0 && control_name_split(cl->operands[0], &name, &e) < 0)
		r = cli_fail(&e);
	if (r)
		return r;
	params = json_pack("{s:s, s:b}", "volume", cl->operands[0], "off", cli_has(cl, OPT_OFF));
	if (cli_has(cl, OPT_EVERY))
		json_object_set_new(params, "every", json_string(cl->values[OPT_EVERY]));
	if (keep)
		json_object_set_new(params, "keep", json_integer((json_int_t)keep));
	row = pool_call(cl, name.pool, "snapshot.policy", params, changes ? 0 : SESSION_READ, &r);
	if (row && cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else if (row && json_is_null(json_object_get(row, "every")))
		printf("volume %s has no snapshot policy\n", cl->operands[0]);
	else if (row)
		printf("volume %s: a snapshot every %s, the newest %llu are kept\n", cl->operands[0],
		       every_text(text_of(row, "every"), every), (unsigned long long)number_of(row, "keep"));
	json_decref(row);
	return r;
}

static int run_clone(struct cli *cl)
{
	json_t *row;
	int r;

	row = snapshot_call(cl, "volume.clone", json_pack("{s:s}", "volume", cl->operands[1]), 0, &r);
	if (row && cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else if (row)
		printf("volume %s made of %s\n", text_of(row, "name"), cl->operands[0]);
	json_decref(row);
	return r;
}

const struct cli_command cli_snapshot_commands[] = {
	{ "snapshot", "create", NULL, "POOL/VOL@SNAP...", 1, -1, OPT(JSON) | OPT(CONTROL), run_create,
	  "take snapshots, all at one instant",
	  "Of volumes in use too. It takes no space; what is overwritten from then on does.", NULL },
	{ "snapshot", "list", "ls", "[POOL | POOL/VOL]", 0, 1, OPTS_LIST | OPT(CONTROL), run_list, "list snapshots",
	  "REFER is the data that a snapshot holds, USED the space that this takes, whoever else shares it; EXCLUSIVE is what its\n"
	  "deletion alone would free.", &snapshot_table },
	{ "snapshot", "show", NULL, "POOL/VOL@SNAP", 1, 1, OPTS_SHOW | OPT(CONTROL), run_show,
	  "show all there is to know about a snapshot", NULL, NULL },
	{ "snapshot", "delete", "rm remove", "POOL/VOL@SNAP...", 1, -1, OPT(FORCE) | OPT(DRY_RUN) | OPT(JSON) | OPT(CONTROL), run_delete,
	  "delete snapshots, in any order",
	  "--dry-run says what deleting all of them would free. Clones stay. Refused while clients are attached, unless --force.", NULL },
	{ "snapshot", "rollback", NULL, "POOL/VOL@SNAP", 1, 1, OPT(FORCE) | OPT(DRY_RUN) | OPT(JSON) | OPT(CONTROL), run_rollback,
	  "give a volume the contents of one of its snapshots",
	  "What was written since is gone, later snapshots stay. Refused while clients are attached, unless --force: they then\n"
	  "see the change between two requests, and should not have it mounted.", NULL },
	{ "snapshot", "rename", "mv", "POOL/VOL@SNAP NEW", 2, 2, OPT(JSON) | OPT(CONTROL), run_rename, "give a snapshot another name",
	  "One that a policy has taken is not deleted by it any more.", NULL },
	{ "snapshot", "policy", NULL, "POOL/VOL", 1, 1, OPT(EVERY) | OPT(KEEP) | OPT(OFF) | OPT(JSON) | OPT(CONTROL), run_policy,
	  "take snapshots by a schedule",
	  "The daemon takes the first one at once and then one --every so often, named auto-YYYYMMDD-HHMMSS (UTC), and deletes all but\n"
	  "the newest --keep of them that nobody uses. Without options it is shown.", NULL },
	{ NULL, "clone", NULL, "POOL/VOL@SNAP NEW", 2, 2, OPT(JSON) | OPT(CONTROL), run_clone, "make a writable volume of a snapshot",
	  "NEW is a volume name, with or without its pool. It takes no space but for what is written, and depends on nothing: snapshot\n"
	  "and volume may be deleted.", NULL },
	{ .verb = NULL },
};
