#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frontends/cli/progress.h"
#include "frontends/cli/session.h"
#include "frontends/cli/table.h"
#include "frontends/control/names.h"

static const struct column disk_cols[] = {
	{ "path", "path", COL_TEXT, true },
	{ "pool", "pool", COL_TEXT, true },
	{ "index", "index", COL_COUNT, true },
	{ "size", "size_bytes", COL_SIZE, true },
	{ "used", "used_bytes", COL_SIZE, true },
	{ "state", "state", COL_TEXT, true },
	{ "slow", "slow", COL_YES, false },
	{ "errors", "errors", COL_COUNT, true },
	{ "repairs", "read_repairs", COL_COUNT, false },
	{ "hedged", "hedged", COL_COUNT, false },
	{ "latency", "latency_us", COL_COUNT, false },
	{ "reads", "reads", COL_COUNT, false },
	{ "writes", "writes", COL_COUNT, false },
	{ "readbytes", "bytes_read", COL_SIZE, false },
	{ "writebytes", "bytes_written", COL_SIZE, false },
	{ "uuid", "uuid", COL_TEXT, false },
	{ "reason", "reason", COL_TEXT, true },
};
static const struct table disk_table = TABLE(disk_cols);

static int run_disks(struct cli *cl) { return cli_list(cl, &disk_table, "disk.list"); }

/* Runs a method on the pool and disk that the operands name. The row, or NULL and the exit status in *r. */
static json_t *disk_call(struct cli *cl, const char *method, json_t *params, unsigned flags, int *r)
{
	json_t *row = NULL;
	struct cli_session *s;
	struct err e = { 0 };

	*r = control_check_pool(cl->operands[0], &e);
	if (*r == 0) {
		json_object_set_new(params, "pool", json_string(cl->operands[0]));
		json_object_set_new(params, "disk", json_string(cl->operands[1]));
		s = cli_session_open(cl);
		cli_progress_watch(s);
		*r = cli_session_call(s, cl->operands[0], method, params, flags, &row, &e);
		cli_progress_end();
		cli_session_close(s);
	}
	json_decref(params);
	*r = *r < 0 ? cli_fail(&e) : CLI_OK;
	return row;
}

static int run_fail(struct cli *cl)
{
	bool dry_run = cli_has(cl, OPT_DRY_RUN);
	int r;
	json_t *row = disk_call(cl, "disk.fail", json_pack("{s:b, s:b}", "force", cli_has(cl, OPT_FORCE), "dry_run", dry_run),
				dry_run ? SESSION_READ : 0, &r);
	int left;

	if (!row)
		return r;
	left = (int)json_integer_value(json_object_get(row, "redundancy"));
	if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else if (dry_run)
		printf("disk %s would be taken out of pool %s; nothing was changed\n", cl->operands[1], cl->operands[0]);
	else if (left > 0)
		printf("disk %s is out of pool %s; %d more disk failure%s can be survived\n", cl->operands[1], cl->operands[0], left,
		       left == 1 ? "" : "s");
	else
		printf("disk %s is out of pool %s; no more disk failures can be survived before its data is rebuilt\n", cl->operands[1],
		       cl->operands[0]);
	json_decref(row);
	return CLI_OK;
}

/* By what it was before. */
static void online_print(const struct cli *cl, const json_t *row)
{
	const char *disk = cl->operands[1], *was = json_string_value(json_object_get(row, "was"));

	if (json_object_get(row, "job"))
		printf("disk %s is in service again: %s\n", disk, json_string_value(json_object_get(row, "result")));
	else if (was && !strcmp(was, "online"))
		printf("disk %s is online already; nothing was changed\n", disk);
	else if (was && (!strcmp(was, "leaving") || !strcmp(was, "empty")))
		printf("disk %s stays, and takes new data again\n", disk);
	else
		printf("disk %s takes writes again; what it missed is being copied (`ashlar job list %s`)\n", disk, cl->operands[0]);
}

static int run_online(struct cli *cl)
{
	json_t *params = json_pack("{s:b}", "wait", cli_has(cl, OPT_WAIT)), *row;
	char *path;
	int r;

	if (cl->n_operands > 2) {
		path = realpath(cl->operands[2], NULL);
		json_object_set_new(params, "path", json_string(path ? path : cl->operands[2]));
		free(path);
	}
	row = disk_call(cl, "disk.online", params, 0, &r);
	if (!row)
		return r;
	if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else
		online_print(cl, row);
	json_decref(row);
	return CLI_OK;
}

const struct cli_command cli_disk_commands[] = {
	{ "disk", "list", "ls", "[POOL]", 0, 1, OPTS_LIST | OPT(CONTROL), run_disks, "list the disks of pools",
	  "STATE is \"online\", \"resyncing\" (it has missed writes, which are being copied; it is not read), \"absent\" or \"failed\";\n"
	  "REASON says why. SLOW disks are read around. LATENCY is of reads, in microseconds.",
	  &disk_table },
	{ "disk", "fail", NULL, "POOL DISK", 2, 2, OPT(FORCE) | OPT(DRY_RUN) | OPT(JSON) | OPT(CONTROL), run_fail,
	  "take a disk out of service",
	  "DISK is its path, the last part of it, its uuid or its index. Its data is rebuilt on other disks at once, where there is\n"
	  "room. Refused if data would be lost, unless --force.",
	  NULL },
	{ "disk", "online", NULL, "POOL DISK [PATH]", 2, 3, OPT(WAIT) | OPT(JSON) | OPT(CONTROL), run_online,
	  "take a disk that was away or out into service again",
	  "PATH is where it is now, if it has moved. What it missed is copied to it in the background. A disk that was overwritten\n"
	  "meanwhile, or written by another host, is refused.",
	  NULL },
	{ .verb = NULL },
};
