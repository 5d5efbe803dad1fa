#include "frontends/cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/units.h"

static bool is_shown, is_forced;

static long long number(const json_t *row, const char *key)
{
	return (long long)json_integer_value(json_object_get(row, key));
}

void cli_progress_show(const json_t *job)
{
	const char *kind = json_string_value(json_object_get(job, "kind"));
	const json_t *left = json_object_get(job, "seconds_left");
	char rate[16], line[120];
	int n;

	if ((!isatty(STDERR_FILENO) && !is_forced) || !kind)
		return;
	size_format((uint64_t)number(job, "bytes_per_second"), rate, sizeof(rate));
	n = snprintf(line, sizeof(line), "%s: %3lld%%  %s/s", kind, number(job, "done_percent"), rate);
	if (json_is_integer(left))
		snprintf(line + n, sizeof(line) - (size_t)n, "  %lld:%02lld left", number(job, "seconds_left") / 60, number(job, "seconds_left") % 60);
	fprintf(stderr, "\r%-60s", line);
	fflush(stderr);
	is_shown = true;
}

void cli_progress_force(void) { is_forced = true; }

void cli_progress_end(void)
{
	if (is_shown)
		fprintf(stderr, "\r%-60s\r", "");
	is_shown = false;
}

static void on_notify(void *arg, const char *method, const json_t *params)
{
	if (!strcmp(method, "progress"))
		cli_progress_show(params);
}

void cli_progress_watch(struct cli_session *s)
{
	cli_session_on_notify(s, on_notify, NULL);
}

bool cli_job_has_ended(const json_t *row)
{
	const char *state = json_string_value(json_object_get(row, "state"));

	return state && strcmp(state, "waiting") && strcmp(state, "running") && strcmp(state, "paused");
}

int cli_job_wait(struct cli_session *s, const char *pool, json_int_t job, json_t **row, struct err *e)
{
	json_t *params = json_pack("{s:s, s:I}", "pool", pool, "job", job);
	int r;

	*row = NULL;
	do {
		json_decref(*row);
		*row = NULL;
		r = cli_session_call_daemon(s, "job.wait", params, row, e);
	} while (r == 0 && !cli_job_has_ended(*row));
	json_decref(params);
	cli_progress_end();
	return r;
}
