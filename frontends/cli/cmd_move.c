/*
 * Volumes, with all that belongs to them, that move to another layout or another pool.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "frontends/cli/progress.h"
#include "frontends/cli/session.h"
#include "frontends/control/names.h"

static long long number(const json_t *row, const char *key) { return (long long)json_integer_value(json_object_get(row, key)); }

static void plan_print(const struct cli *cl, const json_t *row, const char *where)
{
	char need[16], have[16];

	if (!number(row, "volumes")) {
		printf("%s has layout %s already; nothing is to be done\n", cl->operands[0], json_string_value(json_object_get(row, "layout")));
		return;
	}
	printf("%lld volume%s and %lld snapshot%s would move to %s, layout %s; that needs %s there until it is over, %s are free; nothing was "
	       "changed\n", number(row, "volumes"), number(row, "volumes") == 1 ? "" : "s", number(row, "snapshots"),
	       number(row, "snapshots") == 1 ? "" : "s", where, json_string_value(json_object_get(row, "layout")),
	       size_format((uint64_t)number(row, "used_bytes"), need, sizeof(need)),
	       size_format((uint64_t)number(row, "free_bytes"), have, sizeof(have)));
}

/* The plan, the job, or what has come of it. */
static int move_print(const struct cli *cl, const json_t *row, const char *pool, const char *where)
{
	if (cli_job_has_ended(row))
		return cli_job_ended_print(cl, row);
	if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else if (!json_object_get(row, "job"))
		plan_print(cl, row, where);
	else
		printf("the move runs as job %lld (`ashlar job wait %s %lld`)\n", number(row, "job"), pool, number(row, "job"));
	return CLI_OK;
}

static int move_run(struct cli *cl, const char *to)
{
	bool dry_run = cli_has(cl, OPT_DRY_RUN);
	json_t *params = json_pack("{s:b}", "dry_run", dry_run), *row = NULL, *end = NULL;
	struct volume_name name;
	struct cli_session *s;
	struct err e = { 0 };
	int r = control_name_split(cl->operands[0], &name, &e);

	if (r == 0 && to)
		r = control_check_pool(to, &e);
	if (r < 0) {
		json_decref(params);
		return cli_fail(&e);
	}
	json_object_set_new(params, "pool", json_string(name.pool));
	json_object_set_new(params, "volume", json_string(name.volume));
	if (to)
		json_object_set_new(params, "to", json_string(to));
	if (cli_has(cl, OPT_LAYOUT))
		json_object_set_new(params, "layout", json_string(cl->values[OPT_LAYOUT]));
	s = cli_session_open(cl);
	cli_progress_watch(s);
	r = to ? cli_session_call_daemon(s, "volume.move", params, &row, &e) :
		 cli_session_call(s, name.pool, "volume.move", params, dry_run ? SESSION_READ : 0, &row, &e);
	if (r == 0 && cli_has(cl, OPT_WAIT) && json_object_get(row, "job") && !cli_job_has_ended(row)) {
		r = cli_job_wait(s, name.pool, number(row, "job"), &end, &e);
		json_decref(row);
		row = r == 0 ? end : NULL;
	}
	cli_progress_end();
	r = r < 0 ? cli_fail(&e) : move_print(cl, row, name.pool, to ? to : "the same pool");
	json_decref(row);
	json_decref(params);
	cli_session_close(s);
	return r;
}

/* No pool's name has a slash; paths of devices and URIs do. */
static int run_move(struct cli *cl)
{
	struct volume_name name;

	if (strchr(cl->operands[1], '/')) {
		if (cli_has(cl, OPT_LAYOUT))
			return cli_usage(cl, "--layout is for a move to another pool");
		if (!control_name_split(cl->operands[1], &name, NULL) && access(cl->operands[1], F_OK) < 0)
			return cli_usage(cl, "the other pool is named by itself, a file as ./%s", cl->operands[1]);
		return cli_run_move_out(cl);
	}
	if (cli_has(cl, OPT_FORCE))
		return cli_usage(cl, "--force is for a move to another disk, of which all is written over");
	return move_run(cl, cl->operands[1]);
}

/* By the daemon alone: it knows which pools are there. */
static int run_take_back(struct cli *cl)
{
	json_t *params = json_pack("{s:s, s:b, s:b}", "volume", cl->operands[0], "force", cli_has(cl, OPT_FORCE), "dry_run",
				   cli_has(cl, OPT_DRY_RUN)), *row = NULL;
	struct cli_session *s = cli_session_open(cl);
	struct err e = { 0 };
	int r = cli_session_call_daemon(s, "volume.take_back", params, &row, &e);

	if (r < 0)
		r = cli_fail(&e);
	else if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else
		printf("%s and its family (%lld volume%s, %lld snapshot%s) %s served from here again, as of the move%s\n", cl->operands[0],
		       number(row, "volumes"), number(row, "volumes") == 1 ? "" : "s", number(row, "snapshots"),
		       number(row, "snapshots") == 1 ? "" : "s", cli_has(cl, OPT_DRY_RUN) ? "would be" : "are",
		       cli_has(cl, OPT_DRY_RUN) ? "; nothing was changed" : "");
	json_decref(row);
	json_decref(params);
	cli_session_close(s);
	return r;
}

int cli_volume_layout(struct cli *cl)
{
	if (cl->n_operands > 1 || cli_has(cl, OPT_FULL_WAIT) || cl->given & CLI_OPTS_LIMITS)
		return cli_usage(cl, "--layout moves the volume: give other settings by themselves");
	return move_run(cl, NULL);
}

int cli_pool_layout(struct cli *cl)
{
	bool dry_run = cli_has(cl, OPT_DRY_RUN);
	json_t *params = json_pack("{s:s, s:s, s:b}", "pool", cl->operands[0], "layout", cl->values[OPT_LAYOUT], "dry_run", dry_run), *row = NULL;
	struct cli_session *s;
	struct err e = { 0 };
	int r;

	if (cl->n_operands > 1) {
		json_decref(params);
		return cli_usage(cl, "--layout moves the volumes: give settings by themselves");
	}
	s = cli_session_open(cl);
	r = dry_run ? cli_session_call(s, cl->operands[0], "pool.layout", params, SESSION_READ, &row, &e) :
		      cli_session_call_daemon(s, "pool.layout", params, &row, &e);
	if (r < 0)
		r = cli_fail(&e);
	else if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else if (dry_run)
		plan_print(cl, row, "the same pool");
	else
		printf("pool %s has layout %s for new volumes now; %lld of those that are there move to it (`ashlar job list %s`)\n", cl->operands[0],
		       json_string_value(json_object_get(row, "layout")), number(row, "volumes"), cl->operands[0]);
	json_decref(row);
	json_decref(params);
	cli_session_close(s);
	return r;
}

const struct cli_command cli_move_commands[] = {
	{ "volume", "move", NULL, "POOL/VOL OTHERPOOL|URI|PATH", 2, 2,
	  OPT(LAYOUT) | OPT(DRY_RUN) | OPT(FORCE) | OPT(WAIT) | OPT(JSON) | OPT(CONTROL), run_move,
	  "move a volume to another pool, or to another disk, while it is in use",
	  "To OTHERPOOL: with its snapshots, its clones, and theirs: what they share they share there. Clients stay connected, the\n"
	  "export keeps its name (of snapshots too; those taken later are called after the new pool): `export show OTHERPOOL/VOL` and\n"
	  "`export list` tell it, `export set OTHERPOOL/VOL --name OTHERPOOL/VOL` gives it the new one. Needs a daemon that\n"
	  "has both pools, and the space of all of it there; until it is over nothing is given up here. Goes on after a restart by itself; `job stop` cancels it.\n"
	  "To an NBD export (nbd://HOST/EXPORT, nbd+unix:///EXPORT?socket=PATH), or a file or device, named with a slash (./FILE), at\n"
	  "least as large: the volume alone, without snapshots. Its clients stay connected and are served from there then, also after\n"
	  "a restart, until it is deleted. What is here stays as it was at that moment, and the target stays when it is deleted.\n"
	  "--force: although there is something on the target.",
	  NULL },
	{ "volume", "take-back", NULL, "POOL/VOL", 1, 1, OPT(FORCE) | OPT(DRY_RUN) | OPT(JSON) | OPT(CONTROL), run_take_back,
	  "serve a volume from here again that was moved to a pool which is gone",
	  "After `volume move POOL/VOL OTHERPOOL` what is here is kept until both pools have been open together. If the other one is\n"
	  "lost in between, this brings back the volume, its snapshots and clones as they were at the switch; what was written since\n"
	  "is lost. Refused while the other pool is open, and without --force: it may only be away. Needs a daemon.",
	  NULL },
	{ .verb = NULL },
};
