/*
 * Background work, and events.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "frontends/cli/progress.h"
#include "frontends/cli/session.h"
#include "frontends/cli/table.h"
#include "frontends/control/names.h"

static const struct column job_cols[] = {
	{ "job", "job", COL_COUNT, true },
	{ "pool", "pool", COL_TEXT, true },
	{ "kind", "kind", COL_TEXT, true },
	{ "what", "what", COL_TEXT, true },
	{ "state", "state", COL_TEXT, true },
	{ "done", "done_percent", COL_PERCENT, true },
	{ "bytes", "done_bytes", COL_SIZE, false },
	{ "total", "total_bytes", COL_SIZE, true },
	{ "rate", "bytes_per_second", COL_SIZE, true },
	{ "left", "seconds_left", COL_SECONDS, true },
	{ "survives", "redundancy", COL_COUNT, false },
	{ "problems", "problems", COL_COUNT, false },
	{ "repaired", "repaired", COL_COUNT, false },
	{ "started", "started", COL_COUNT, false },
	{ "result", "result", COL_TEXT, true },
};
static const struct table job_table = TABLE(job_cols);

static int run_list(struct cli *cl) { return cli_list(cl, &job_table, "job.list"); }

static int job_number(struct cli *cl, json_int_t *id)
{
	char *end, q[72];

	*id = strtoll(cl->operands[1], &end, 10);
	if (*cl->operands[1] >= '0' && *cl->operands[1] <= '9' && !*end)
		return 0;
	return cli_usage(cl, "'%s' is not the number of a job", control_name_quote(cl->operands[1], q, sizeof(q)));
}

/* What a job that has ended says; its exit status. */
int cli_job_ended_print(const struct cli *cl, const json_t *row)
{
	const char *state = json_string_value(json_object_get(row, "state"));
	const char *result = json_string_value(json_object_get(row, "result"));
	bool bad = strcmp(state, "done") || json_integer_value(json_object_get(row, "problems")) > 0;

	if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else
		printf("%s of %s %s%s%s\n", json_string_value(json_object_get(row, "kind")),
		       json_string_value(json_object_get(row, "what")), state, *result ? ": " : "", result);
	return bad ? CLI_FAILED : CLI_OK;
}

static int run_wait(struct cli *cl)
{
	struct cli_session *s;
	struct err e = { 0 };
	json_t *row = NULL;
	json_int_t id;
	int r = job_number(cl, &id);

	if (r)
		return r;
	s = cli_session_open(cl);
	cli_progress_watch(s);
	r = cli_job_wait(s, cl->operands[0], id, &row, &e);
	r = r < 0 ? cli_fail(&e) : cli_job_ended_print(cl, row);
	json_decref(row);
	cli_session_close(s);
	return r;
}

static int run_stop(struct cli *cl)
{
	struct cli_session *s;
	struct err e = { 0 };
	json_t *row = NULL, *params;
	json_int_t id;
	int r = job_number(cl, &id);

	if (r)
		return r;
	s = cli_session_open(cl);
	params = json_pack("{s:s, s:I}", "pool", cl->operands[0], "job", id);
	r = cli_session_call_daemon(s, "job.stop", params, &row, &e);
	r = r < 0 ? cli_fail(&e) : CLI_OK;
	json_decref(params);
	json_decref(row);
	cli_session_close(s);
	return r;
}

static int run_pause(struct cli *cl)
{
	bool resume = !strcmp(cl->cmd->verb, "resume");
	struct cli_session *s;
	struct err e = { 0 };
	json_t *row = NULL, *params;
	json_int_t id;
	int r = job_number(cl, &id);

	if (r)
		return r;
	s = cli_session_open(cl);
	params = json_pack("{s:s, s:I, s:b}", "pool", cl->operands[0], "job", id, "resume", resume);
	r = cli_session_call_daemon(s, "job.pause", params, &row, &e);
	r = r < 0 ? cli_fail(&e) : CLI_OK;
	json_decref(params);
	json_decref(row);
	cli_session_close(s);
	return r;
}

/* ---- scrub ---- */

int cli_run_scrub(struct cli *cl)
{
	bool repair = cli_has(cl, OPT_REPAIR);
	json_t *params, *row = NULL, *end;
	struct cli_session *s;
	struct err e = { 0 };
	int r = control_check_pool(cl->operands[0], &e);

	if (r < 0)
		return cli_fail(&e);
	params = json_pack("{s:s, s:b}", "pool", cl->operands[0], "repair", repair);
	s = cli_session_open(cl);
	cli_progress_watch(s);
	r = cli_session_call(s, cl->operands[0], "pool.scrub", params, 0, &row, &e);
	if (r == 0 && cli_has(cl, OPT_WAIT) && !cli_job_has_ended(row)) {
		r = cli_job_wait(s, cl->operands[0], json_integer_value(json_object_get(row, "job")), &end, &e);
		json_decref(row);
		row = end;
	}
	cli_progress_end();
	if (r < 0)
		r = cli_fail(&e);
	else if (cli_job_has_ended(row))
		r = cli_job_ended_print(cl, row);
	else if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else
		printf("scrub of pool %s runs as job %lld (`ashlar job wait %s %lld`)\n", cl->operands[0],
		       (long long)json_integer_value(json_object_get(row, "job")), cl->operands[0],
		       (long long)json_integer_value(json_object_get(row, "job")));
	json_decref(row);
	json_decref(params);
	cli_session_close(s);
	return r;
}

/* ---- volume move ---- */

int cli_run_move_out(struct cli *cl)
{
	bool dry_run = cli_has(cl, OPT_DRY_RUN);
	json_t *params, *target, *row = NULL, *end;
	struct volume_name name;
	struct cli_session *s;
	struct err e = { 0 };
	int r = control_name_split(cl->operands[0], &name, &e);

	if (r < 0)
		return cli_fail(&e);
	target = cli_path_json(cl->operands[1]);
	if (!target)
		return cli_failf("the target's name is not UTF-8 text; give it another name");
	params = json_pack("{s:s, s:o, s:b, s:b}", "volume", cl->operands[0], "target", target, "force", cli_has(cl, OPT_FORCE), "dry_run",
			   dry_run);
	s = cli_session_open(cl);
	cli_progress_watch(s);
	r = cli_session_call_daemon(s, "volume.move_out", params, &row, &e);
	if (r == 0 && cli_has(cl, OPT_WAIT) && !dry_run) {
		r = cli_job_wait(s, name.pool, json_integer_value(json_object_get(row, "job")), &end, &e);
		json_decref(row);
		row = end;
	}
	cli_progress_end();
	if (r < 0)
		r = cli_fail(&e);
	else if (cli_has(cl, OPT_WAIT) && !dry_run)
		r = cli_job_ended_print(cl, row);
	else if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else if (dry_run)
		printf("volume %s would be moved to %s; nothing was changed\n", cl->operands[0], cl->operands[1]);
	else
		printf("volume %s moves to %s as job %lld (`ashlar job wait %s %lld`)\n", cl->operands[0], cl->operands[1],
		       (long long)json_integer_value(json_object_get(row, "job")), name.pool,
		       (long long)json_integer_value(json_object_get(row, "job")));
	json_decref(row);
	json_decref(params);
	cli_session_close(s);
	return r;
}

/* ---- events ---- */

static const char *text_of(const json_t *row, const char *key)
{
	const char *s = json_string_value(json_object_get(row, key));

	return s ? s : "";
}

static void event_print(const struct cli *cl, const json_t *row)
{
	time_t t = (time_t)json_real_value(json_object_get(row, "time"));
	struct tm tm;
	char when[32];

	if (cli_has(cl, OPT_JSON)) {
		json_dumpf(row, stdout, JSON_COMPACT);
		putchar('\n');
		return;
	}
	localtime_r(&t, &tm);
	strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
	printf("%s  %-7s  %-16s  %s%s%s\n", when, text_of(row, "severity"), text_of(row, "type"), text_of(row, "pool"),
	       *text_of(row, "pool") ? ": " : "", text_of(row, "text"));
}

static int run_events(struct cli *cl)
{
	bool follow = cli_has(cl, OPT_FOLLOW);
	uint64_t since = 0;
	struct cli_session *s;
	struct err e = { 0 };
	json_t *rows, *row, *params;
	size_t i;
	int r = cli_has(cl, OPT_SINCE) ? cli_count(cl, OPT_SINCE, 0, INT64_MAX, &since) : 0;

	if (r)
		return r;
	s = cli_session_open(cl);
	do {
		params = json_pack("{s:I, s:s}", "since", (json_int_t)since, "wait", follow ? "10s" : "0");
		rows = NULL;
		r = cli_session_call_daemon(s, "event.list", params, &rows, &e);
		json_decref(params);
		json_array_foreach(rows, i, row) {
			event_print(cl, row);
			since = (uint64_t)json_integer_value(json_object_get(row, "seq"));
		}
		i = json_array_size(rows);
		json_decref(rows);
		if (fflush(stdout) != 0)
			break; /* nobody reads it any more */
	} while (r == 0 && (follow || i > 0));
	r = r < 0 ? cli_fail(&e) : CLI_OK;
	cli_session_close(s);
	return r;
}

const struct cli_command cli_job_commands[] = {
	{ "job", "list", "ls", "[POOL]", 0, 1, OPTS_LIST | OPT(CONTROL), run_list, "list background work: resync, rebuild, scrub, moves",
	  "What is under way, and the last that ended. RATE is of the last seconds, LEFT an estimate, SURVIVES how many more disks\n"
	  "may be lost now.", &job_table },
	{ "job", "wait", NULL, "POOL JOB", 2, 2, OPT(JSON) | OPT(CONTROL), run_wait, "wait for a job's end",
	  "Exit status 1 if it failed, was stopped, or found problems; so have commands with --wait.", NULL },
	{ "job", "stop", "cancel", "POOL JOB", 2, 2, OPT(JSON) | OPT(CONTROL), run_stop,
	  "stop a scrub, a move of data between disks, or of a volume",
	  "A disk that was to leave stays, and takes data again; what has moved to other disks stays where it is. A volume stays where\n"
	  "and as it was.", NULL },
	{ "job", "pause", NULL, "POOL JOB", 2, 2, OPT(JSON) | OPT(CONTROL), run_pause, "pause a move of data between disks, or of a volume",
	  "Until `job resume`, also over a restart. Disks that are leaving take no new data meanwhile.", NULL },
	{ "job", "resume", NULL, "POOL JOB", 2, 2, OPT(JSON) | OPT(CONTROL), run_pause, "go on with it", NULL, NULL },
	{ NULL, "events", NULL, "", 0, 0, OPT(FOLLOW) | OPT(SINCE) | OPT(JSON) | OPT(CONTROL), run_events,
	  "print what has happened in the daemon",
	  "One line each; with --json one JSON object per line. --follow goes on as they come, until interrupted.", NULL },
	{ .verb = NULL },
};
