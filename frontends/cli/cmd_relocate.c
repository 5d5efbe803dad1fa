/*
 * Disks that join a pool and disks that leave it; evening out.
 */
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "frontends/cli/progress.h"
#include "frontends/cli/session.h"
#include "frontends/control/names.h"

static long long number(const json_t *row, const char *key) { return (long long)json_integer_value(json_object_get(row, key)); }

/* Runs a method on the pool that the first operand names; params is used up. The row, or NULL and the exit status in *r. */
static json_t *pool_call(struct cli *cl, const char *method, json_t *params, int *r)
{
	bool dry_run = cli_has(cl, OPT_DRY_RUN), wait = cli_has(cl, OPT_WAIT);
	json_t *row = NULL, *end;
	struct cli_session *s;
	struct err e = { 0 };

	*r = control_check_pool(cl->operands[0], &e);
	if (*r == 0) {
		json_object_set_new(params, "pool", json_string(cl->operands[0]));
		json_object_set_new(params, "dry_run", json_boolean(dry_run));
		s = cli_session_open(cl);
		cli_progress_watch(s);
		*r = cli_session_call(s, cl->operands[0], method, params, dry_run ? SESSION_READ : 0, &row, &e);
		if (*r == 0 && wait && json_object_get(row, "job") && !cli_job_has_ended(row)) {
			*r = cli_job_wait(s, cl->operands[0], number(row, "job"), &end, &e);
			json_decref(row);
			row = *r == 0 ? end : NULL;
		}
		cli_progress_end();
		cli_session_close(s);
	}
	json_decref(params);
	*r = *r < 0 ? cli_fail(&e) : CLI_OK;
	return row;
}

/* ---- disk add ---- */

static int run_add(struct cli *cl)
{
	json_t *disks = json_array(), *path, *row;
	int i, r, n = cl->n_operands - 1;

	for (i = 1; i <= n; i++) {
		path = cli_path_json(cl->operands[i]);
		if (!path) {
			json_decref(disks);
			return cli_failf("the path of disk %d is not UTF-8 text; give it another name", i);
		}
		json_array_append_new(disks, path);
	}
	row = pool_call(cl, "disk.add", json_pack("{s:o, s:b}", "disks", disks, "force", cli_has(cl, OPT_FORCE)), &r);
	if (!row)
		return r;
	if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else if (cli_has(cl, OPT_DRY_RUN))
		printf("%d disk%s would be added to pool %s; nothing was changed\n", n, n == 1 ? "" : "s", cl->operands[0]);
	else
		printf("%d disk%s added to pool %s, in use for new data at once; `ashlar pool rebalance %s` moves data there until all disks are\n"
		       "equally full\n", n, n == 1 ? "" : "s", cl->operands[0], cl->operands[0]);
	json_decref(row);
	return CLI_OK;
}

/* ---- moves ---- */

static void plan_print(const struct cli *cl, const json_t *row, const char *what)
{
	long long left = number(row, "redundancy");
	char size[16];

	printf("%s would copy %s (%lld column%s of groups)", what, size_format((uint64_t)number(row, "copy_bytes"), size, sizeof(size)),
	       number(row, "columns"), number(row, "columns") == 1 ? "" : "s");
	if (left > 0)
		printf("; meanwhile %lld disk%s can be lost, as now", left, left == 1 ? "" : "s");
	else
		printf("; no disk can be lost meanwhile, as now");
	printf("; nothing was changed\n");
}

static int relocate_run(struct cli *cl, const char *method, json_t *params, const char *what)
{
	int r;
	json_t *row = pool_call(cl, method, params, &r);
	char size[16];

	if (!row)
		return r;
	if (cli_job_has_ended(row))
		r = cli_job_ended_print(cl, row);
	else if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else if (cli_has(cl, OPT_DRY_RUN))
		plan_print(cl, row, what);
	else
		printf("%s runs as job %lld: %s to copy (`ashlar job wait %s %lld`)\n", what, number(row, "job"),
		       size_format((uint64_t)number(row, "copy_bytes"), size, sizeof(size)), cl->operands[0], number(row, "job"));
	json_decref(row);
	return r;
}

static int run_evacuate(struct cli *cl)
{
	return relocate_run(cl, "disk.evacuate", json_pack("{s:s}", "disk", cl->operands[1]), "the evacuation");
}

static int run_remove(struct cli *cl)
{
	return relocate_run(cl, "disk.remove", json_pack("{s:s}", "disk", cl->operands[1]), "the removal");
}

static int run_replace(struct cli *cl)
{
	json_t *path = cli_path_json(cl->operands[2]);

	if (!path)
		return cli_failf("the path of the new disk is not UTF-8 text; give it another name");
	return relocate_run(cl, "disk.replace", json_pack("{s:s, s:o, s:b}", "disk", cl->operands[1], "path", path, "force",
							 cli_has(cl, OPT_FORCE)), "the replacement");
}

static int run_rebalance(struct cli *cl)
{
	return relocate_run(cl, "pool.rebalance", json_object(), "the rebalancing");
}

#define OPTS_MOVE (OPT(DRY_RUN) | OPT(WAIT) | OPT(JSON) | OPT(CONTROL))

const struct cli_command cli_relocate_commands[] = {
	{ "disk", "add", NULL, "POOL DISK...", 2, -1, OPT(FORCE) | OPT(DRY_RUN) | OPT(JSON) | OPT(CONTROL), run_add, "add disks to a pool",
	  "They are usable at once, of any size that is large enough for three groups. What is there stays where it is: `pool\n"
	  "rebalance` evens out. Foreign data and disks of other pools are refused without --force. A daemon that is given its disks\n"
	  "by name must be given these too when it starts again.",
	  NULL },
	{ "disk", "evacuate", NULL, "POOL DISK", 2, 2, OPTS_MOVE, run_evacuate, "move all that a disk holds to other disks",
	  "Nothing new is placed on it from now on. Goes on after a restart by itself; `job stop` and `disk online` make it an ordinary\n"
	  "disk again. No copy is given up before the new one is there.",
	  NULL },
	{ "disk", "remove", "rm", "POOL DISK", 2, 2, OPTS_MOVE, run_remove, "take a disk out of a pool",
	  "What it holds moves to others first. A disk that is lost is removed when it has been rebuilt. Refused, before anything is\n"
	  "copied, if there is no room, or there would be fewer disks than layouts need.",
	  NULL },
	{ "disk", "replace", NULL, "POOL OLD NEW", 3, 3, OPTS_MOVE | OPT(FORCE), run_replace, "put another disk in a disk's place",
	  "NEW is added, what OLD holds moves there (the rest, if it is smaller, to other disks), and OLD is taken out. OLD may be lost:\n"
	  "then it is rebuilt on NEW.",
	  NULL },
	{ "pool", "rebalance", NULL, "POOL", 1, 1, OPTS_MOVE, run_rebalance, "move data until all disks are about equally full",
	  "Also gives metadata as many copies as the pool has disks for (3 at most). Ends by itself; `job stop` ends it before.", NULL },
	{ .verb = NULL },
};
