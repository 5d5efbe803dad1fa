#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "frontends/cli/session.h"
#include "frontends/cli/table.h"
#include "frontends/control/names.h"

static const struct column pool_cols[] = {
	{ "name", "name", COL_TEXT, true },
	{ "raw", "raw_bytes", COL_SIZE, true },
	{ "rawused", "raw_used_bytes", COL_SIZE, false },
	{ "used", "used_bytes", COL_SIZE, true },
	{ "free", "free_bytes", COL_SIZE, true },
	{ "cap", "used_percent", COL_PERCENT, true },
	{ "layout", "layout", COL_TEXT, true },
	{ "disks", "disks", COL_COUNT, true },
	{ "online", "disks_online", COL_COUNT, false },
	{ "volumes", "volumes", COL_COUNT, true },
	{ "health", "health", COL_TEXT, true },
	{ "redundancy", "redundancy_text", COL_TEXT, false },
	{ "survives", "redundancy", COL_COUNT, false },
	{ "groups", "groups", COL_COUNT, false },
	{ "degraded", "groups_degraded", COL_COUNT, false },
	{ "lost", "groups_lost", COL_COUNT, false },
	{ "rebuildleft", "rebuild_left_bytes", COL_SIZE, false },
	{ "state", "state", COL_TEXT, true },
	{ "readonly", "read_only", COL_YES, false },
	{ "metadata", "metadata_bytes", COL_SIZE, false },
	{ "cache", "metadata_cache_bytes", COL_SIZE, false },
	{ "cachelimit", "metadata_cache_limit_bytes", COL_SIZE, false },
	{ "cluster", "cluster_bytes", COL_SIZE, false },
	{ "block", "block_bytes", COL_SIZE, false },
	{ "group", "group_bytes", COL_SIZE, false },
	{ "checkpoint", "checkpoint", COL_COUNT, false },
	{ "resyncdone", "resync_done_bytes", COL_SIZE, false },
	{ "resynctotal", "resync_total_bytes", COL_SIZE, false },
	{ "readerrs", "errors_read", COL_COUNT, false },
	{ "writeerrs", "errors_write", COL_COUNT, false },
	{ "repaired", "errors_repaired", COL_COUNT, false },
	{ "metarepaired", "errors_metadata_repaired", COL_COUNT, false },
	{ "uuid", "uuid", COL_TEXT, false },
	{ "rebuilddelay", "rebuild_delay", COL_TEXT, false },
	{ "pacefloor", "pace_floor_bytes", COL_SIZE, false },
	{ "paceceiling", "pace_ceiling_bytes", COL_SIZE, false },
	{ "hedge", "hedge", COL_TEXT, false },
	{ "timeout", "timeout", COL_TEXT, false },
};
static const struct table pool_table = TABLE(pool_cols);

static int run_list(struct cli *cl)
{
	struct cli_session *s;
	struct err e = { 0 };
	json_t *rows = NULL;
	bool incomplete;
	int r = cli_table_check(&pool_table, cl);

	if (r)
		return r;
	s = cli_session_open(cl);
	r = cli_session_list(s, "pool.list", true, &rows, &incomplete, &e);
	r = r < 0 ? cli_fail(&e) : cli_table_print(&pool_table, cl, rows);
	json_decref(rows);
	cli_session_close(s);
	return r;
}

static int run_show(struct cli *cl)
{
	struct cli_session *s;
	struct err e = { 0 };
	json_t *row = NULL, *params;
	int r = control_check_pool(cl->operands[0], &e);

	if (r < 0)
		return cli_fail(&e);
	s = cli_session_open(cl);
	params = json_pack("{s:s}", "pool", cl->operands[0]);
	r = cli_session_call(s, cl->operands[0], "pool.show", params, SESSION_READ, &row, &e);
	r = r < 0 ? cli_fail(&e) : cli_table_show(&pool_table, cl, row);
	json_decref(row);
	json_decref(params);
	cli_session_close(s);
	return r;
}

/* ---- settings ---- */

static const struct setting {
	const char *name, *key;
	bool is_size;
} settings[] = {
	{ "rebuild-delay", "rebuild_delay", false }, { "pace-floor", "pace_floor", true }, { "pace-ceiling", "pace_ceiling", true },
	{ "hedge", "hedge", false },		     { "timeout", "timeout", false },
};
#define SETTINGS_TEXT "rebuild-delay=TIME, pace-floor=SIZE, pace-ceiling=SIZE, hedge=TIME, timeout=TIME"

static int set_one(struct cli *cl, const char *text, json_t *params)
{
	uint64_t bytes;
	char q[72];
	size_t i, n;
	int r;

	for (i = 0; i < ARRAY_LEN(settings); i++) {
		n = strlen(settings[i].name);
		if (strncmp(text, settings[i].name, n) || text[n] != '=')
			continue;
		text += n + 1;
		r = settings[i].is_size ? cli_size_text(cl, settings[i].name, text, &bytes) : cli_duration_text(cl, settings[i].name, text);
		if (r == 0)
			json_object_set_new(params, settings[i].key, json_string(text));
		return r;
	}
	return cli_usage(cl, "'%s' is not a setting; settings are: " SETTINGS_TEXT, control_name_quote(text, q, sizeof(q)));
}

static int run_set(struct cli *cl)
{
	json_t *params = json_pack("{s:s}", "pool", cl->operands[0]), *row = NULL;
	struct cli_session *s;
	struct err e = { 0 };
	int i, r = 0;

	if (cli_has(cl, OPT_LAYOUT)) {
		json_decref(params);
		return cli_pool_layout(cl);
	}
	if (cl->n_operands < 2)
		r = cli_usage(cl, "nothing to set; settings are: " SETTINGS_TEXT);
	for (i = 1; r == 0 && i < cl->n_operands; i++)
		r = set_one(cl, cl->operands[i], params);
	if (r) {
		json_decref(params);
		return r;
	}
	s = cli_session_open(cl);
	r = cli_session_call(s, cl->operands[0], "pool.set", params, 0, &row, &e);
	if (r < 0)
		r = cli_fail(&e);
	else if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else
		printf("pool %s changed\n", cl->operands[0]);
	json_decref(row);
	json_decref(params);
	cli_session_close(s);
	return r;
}

/* ---- create ---- */

static int create_params(const struct cli *cl, json_t *params)
{
	json_t *disks = json_array(), *path;
	uint64_t bytes;
	int i, r;

	json_object_set_new(params, "disks", disks);
	for (i = 1; i < cl->n_operands; i++) {
		path = cli_path_json(cl->operands[i]);
		if (!path)
			return cli_failf("the path of disk %d is not UTF-8 text; give it another name", i);
		json_array_append_new(disks, path);
	}
	if (cli_has(cl, OPT_LAYOUT))
		json_object_set_new(params, "layout", json_string(cl->values[OPT_LAYOUT]));
	if (cli_has(cl, OPT_CLUSTER)) {
		r = cli_size(cl, OPT_CLUSTER, &bytes);
		if (r)
			return r;
		json_object_set_new(params, "cluster", json_integer((json_int_t)bytes));
	}
	if (cli_has(cl, OPT_GROUP)) {
		r = cli_size(cl, OPT_GROUP, &bytes);
		if (r)
			return r;
		json_object_set_new(params, "group", json_integer((json_int_t)bytes));
	}
	json_object_set_new(params, "force", json_boolean(cli_has(cl, OPT_FORCE)));
	json_object_set_new(params, "dry_run", json_boolean(cli_has(cl, OPT_DRY_RUN)));
	if (cli_has(cl, OPT_SERVE))
		json_object_set_new(params, "serve", json_true());
	return 0;
}

static void create_print(const struct cli *cl, const json_t *row)
{
	size_t n = json_array_size(json_object_get(row, "disks"));

	if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else if (cli_has(cl, OPT_DRY_RUN))
		printf("pool %s would be made of %zu disk%s; nothing was changed\n", cl->operands[0], n, n == 1 ? "" : "s");
	else
		printf("pool %s made of %zu disk%s\n", cl->operands[0], n, n == 1 ? "" : "s");
}

static int run_create(struct cli *cl)
{
	json_t *row = NULL, *params;
	struct cli_session *s;
	struct err e = { 0 };
	int r = control_check_pool(cl->operands[0], &e);

	if (r < 0)
		return cli_fail(&e);
	params = json_pack("{s:s}", "pool", cl->operands[0]);
	r = create_params(cl, params);
	if (r)
		goto out_params;
	s = cli_session_open(cl);
	if (cli_has(cl, OPT_SERVE))
		r = cli_session_call_daemon(s, "pool.create", params, &row, &e);
	else
		r = cli_session_call_here(s, "pool.create", params, &row, &e);
	if (r < 0)
		r = cli_fail(&e);
	else
		create_print(cl, row);
	json_decref(row);
	cli_session_close(s);
out_params:
	json_decref(params);
	return r;
}

/* ---- check ---- */

static void check_notify(void *arg, const char *method, const json_t *params)
{
	json_int_t done = json_integer_value(json_object_get(params, "done"));
	json_int_t total = json_integer_value(json_object_get(params, "total"));

	if (strcmp(method, "progress"))
		return;
	fprintf(stderr, "\rchecking: %3d%%%s", total > 0 ? (int)((double)done * 100 / (double)total) : 0,
		done >= total ? "\r                \r" : "");
	fflush(stderr);
}

static int check_print(const struct cli *cl, const json_t *row)
{
	const json_t *findings = json_object_get(row, "findings");
	json_int_t n = json_integer_value(json_object_get(row, "problems"));
	const char *name = json_string_value(json_object_get(row, "name"));
	size_t i;

	if (cli_has(cl, OPT_JSON)) {
		cli_print_json(row);
		return n ? CLI_FAILED : CLI_OK;
	}
	for (i = 0; i < json_array_size(findings); i++)
		printf("%s\n", json_string_value(json_array_get(findings, i)));
	if (n == 0) {
		printf("pool %s: no problems found%s\n", name, cli_has(cl, OPT_DATA) ? " in metadata and data" : " in its metadata");
		return CLI_OK;
	}
	if ((size_t)n > json_array_size(findings))
		printf("(%lld more)\n", (long long)n - (long long)json_array_size(findings));
	return cli_failf("pool %s: %lld problem%s found; nothing was changed", name, (long long)n, n == 1 ? "" : "s");
}

static int run_check(struct cli *cl)
{
	const char *pool = cl->n_operands ? cl->operands[0] : NULL;
	json_t *row = NULL, *params;
	struct cli_session *s;
	struct err e = { 0 };
	int r = pool ? control_check_pool(pool, &e) : 0;

	if (r < 0)
		return cli_fail(&e);
	s = cli_session_open(cl);
	if (isatty(STDERR_FILENO))
		cli_session_on_notify(s, check_notify, NULL);
	params = json_pack("{s:b}", "data", cli_has(cl, OPT_DATA));
	if (pool)
		json_object_set_new(params, "pool", json_string(pool));
	r = cli_session_call(s, pool, "pool.check", params, SESSION_READ, &row, &e);
	r = r < 0 ? cli_fail(&e) : check_print(cl, row);
	json_decref(row);
	json_decref(params);
	cli_session_close(s);
	return r;
}

/* ---- destroy ---- */

static void destroy_print(const struct cli *cl, const json_t *row)
{
	json_int_t volumes = json_integer_value(json_object_get(row, "volumes"));
	const json_t *disks = json_object_get(row, "disks");
	char used[16], raw[16];
	size_t i;

	if (cli_has(cl, OPT_JSON)) {
		cli_print_json(row);
		return;
	}
	printf("pool %s %s: %lld volume%s with %s of data, %s of disk space freed\n", cl->operands[0],
	       cli_has(cl, OPT_DRY_RUN) ? "would be destroyed" : "destroyed", (long long)volumes, volumes == 1 ? "" : "s",
	       size_format((uint64_t)json_integer_value(json_object_get(row, "used_bytes")), used, sizeof(used)),
	       size_format((uint64_t)json_integer_value(json_object_get(row, "raw_bytes")), raw, sizeof(raw)));
	for (i = 0; i < json_array_size(disks); i++)
		printf("  %s\n", json_string_value(json_object_get(json_array_get(disks, i), "path")));
	if (cli_has(cl, OPT_DRY_RUN))
		printf("nothing was changed\n");
}

static int run_destroy(struct cli *cl)
{
	json_t *row = NULL, *params;
	struct cli_session *s;
	struct err e = { 0 };
	int r = control_check_pool(cl->operands[0], &e);

	if (r < 0)
		return cli_fail(&e);
	s = cli_session_open(cl);
	params = json_pack("{s:s, s:b, s:b}", "pool", cl->operands[0], "force", cli_has(cl, OPT_FORCE), "dry_run",
			   cli_has(cl, OPT_DRY_RUN));
	r = cli_session_call(s, cl->operands[0], "pool.destroy", params,
			     cli_has(cl, OPT_DRY_RUN) ? SESSION_READ : 0, &row, &e);
	if (r < 0)
		r = cli_fail(&e);
	else
		destroy_print(cl, row);
	json_decref(row);
	json_decref(params);
	cli_session_close(s);
	return r;
}

const struct cli_command cli_pool_commands[] = {
	{ "pool", "create", NULL, "POOL DISK...", 2, -1,
	  OPT(LAYOUT) | OPT(FORCE) | OPT(DRY_RUN) | OPT(CLUSTER) | OPT(GROUP) | OPT(SERVE) | OPT(JSON) | OPT(CONTROL), run_create,
	  "make a pool of block devices and files",
	  "LAYOUT is what its volumes get by default: single (no redundancy), raid0 (striped), raid1 (two copies),\n"
	  "raid1-3 (three copies), raid10 (striped and two copies), raid10-3, raid5 (one parity), raid6 (two). Without\n"
	  "--layout: single for one disk, raid1 for more. A disk that holds anything else (a file system, another pool) is\n"
	  "refused, unchanged; --force overwrites it. A file must exist and have its size: `truncate -s 100G disk1.img`.",
	  NULL },
	{ "pool", "list", "ls", "", 0, 0, OPTS_LIST | OPT(CONTROL), run_list, "list pools",
	  "USED and FREE are in terms of volumes' data, RAW in terms of the disks. STATE is \"served\" (by the daemon), \"idle\"\n"
	  "(no process has it open), \"in use\" (by a process that was not asked) or \"unreadable\".",
	  &pool_table },
	{ "pool", "show", NULL, "POOL", 1, 1, OPTS_SHOW | OPT(CONTROL), run_show, "show all there is to know about a pool", NULL, NULL },
	{ "pool", "check", NULL, "[POOL]", 0, 1, OPT(DATA) | OPT(JSON) | OPT(WAIT) | OPT(CONTROL), run_check,
	  "verify a pool's metadata; changes nothing",
	  "Every reference, count, checksum and copy is verified. Exit status 0: no problems, 1: problems, one line each.", NULL },
	{ "pool", "scrub", NULL, "POOL", 1, 1, OPT(REPAIR) | OPT(WAIT) | OPT(JSON) | OPT(CONTROL), cli_run_scrub,
	  "read and compare all allocated data in the background",
	  "What cannot be read is rewritten from redundancy. Copies or parity that disagree are reported (`ashlar events`), with\n"
	  "the disk, where it can be told, and the volume. --repair rewrites them: by P and Q or by the majority of copies; where\n"
	  "nothing can tell, mirrors take the first copy, and raid5 computes its parity from the data. Without a daemon, and\n"
	  "with --wait, it returns when it is done: exit status 1 if there were problems.",
	  NULL },
	{ "pool", "set", NULL, "POOL SETTING=VALUE...", 1, -1, OPT(LAYOUT) | OPT(DRY_RUN) | OPT(JSON) | OPT(CONTROL), run_set, "change settings of a pool",
	  "rebuild-delay: how long a disk that vanished may stay away before its data is rebuilt on others (default 5m; forever:\n"
	  "never; one with errors is rebuilt at once). pace-floor, pace-ceiling: bytes per second that background work always gets,\n"
	  "and never exceeds (10M; 0: no limit). hedge: reads slower than this are answered from other disks (100ms). timeout: a\n"
	  "disk that does not answer for so long is out (30s). --layout: new volumes have it, and all that are there move to it in the\n"
	  "background, one family after the other.",
	  NULL },
	{ "pool", "destroy", "rm delete", "POOL", 1, 1, OPT(FORCE) | OPT(DRY_RUN) | OPT(JSON) | OPT(CONTROL), run_destroy,
	  "wipe a pool's labels: all its data is gone", "Refused while it has volumes, unless --force.", NULL },
	{ .verb = NULL },
};
