/*
 * progress.h: how far a job is, on a terminal's standard error: one line that is written over.
 */
#ifndef FRONTENDS_CLI_PROGRESS_H
#define FRONTENDS_CLI_PROGRESS_H

#include "frontends/cli/session.h"

/* Shows the progress notifications of the calls to come, if standard error is a terminal. */
void cli_progress_watch(struct cli_session *s);
/* Also if it is none. */
void cli_progress_force(void);
/* One row as job.wait answers. */
void cli_progress_show(const json_t *job);
/* Wipes the line. */
void cli_progress_end(void);
/* Waits for a job's end by job.wait. 0 with its last row in *row, or an error. */
int cli_job_wait(struct cli_session *s, const char *pool, json_int_t job, json_t **row, struct err *e) __must_check;
/* What a job that has ended says; its exit status. */
int cli_job_ended_print(const struct cli *cl, const json_t *row);
/* Is the state of this row an end? */
bool cli_job_has_ended(const json_t *row);

#endif
