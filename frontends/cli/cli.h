/*
 * cli.h: the command line: one table of commands, one table of options, what a command is handed.
 *
 * Exit status: 0 done, 1 refused or failed, 2 wrong usage. Errors are one sentence on stderr. Commands are thin: they turn
 * operands and options into the parameters of a control method, have session.h run it (in the daemon that holds the pool,
 * or in this process), and print its result.
 */
#ifndef FRONTENDS_CLI_CLI_H
#define FRONTENDS_CLI_CLI_H

#include <jansson.h>

#include "engine/base/err.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

enum cli_opt {
	OPT_HELP,
	OPT_CONTROL,
	OPT_JSON,
	OPT_NO_HEADINGS,
	OPT_PARSABLE,
	OPT_COLUMNS,
	OPT_SORT,
	OPT_DRY_RUN,
	OPT_FORCE,
	OPT_WAIT,
	OPT_LAYOUT,
	OPT_CLUSTER,
	OPT_GROUP,
	OPT_SERVE,
	OPT_SIZE,
	OPT_FULL_WAIT,
	OPT_NAME,
	OPT_READ_ONLY,
	OPT_DATA,
	OPT_NBD,
	OPT_REACTORS,
	OPT_METADATA_CACHE,
	OPT_INSECURE,
	OPT_REPAIR,
	OPT_FOLLOW,
	OPT_SINCE,
	OPT_FROM,
	OPT_RESUME,
	OPT_NO_RESUME,
	OPT_ABORT,
	OPT_LIST,
	OPT_PROGRESS,
	OPT_SNAPSHOTS,
	OPT_EVERY,
	OPT_KEEP,
	OPT_OFF,
	OPT_TLS,
	OPT_TLS_CERTS,
	OPT_TLS_PSK,
	OPT_TLS_VERIFY,
	OPT_TLS_ALLOW,
	OPT_ALLOW,
	OPT_MAX_CONNECTIONS,
	OPT_WRITABLE,
	OPT_FORMAT,
	OPT_USER,
	OPT_IO,
	OPT_IOPS,
	OPT_BPS,
	OPT_BURST_IOPS,
	OPT_BURST_BPS,
	OPT_BURST_SECONDS,
	OPT_ISCSI,
	OPT_IQN,
	OPT_LUN,
	OPT_INITIATOR,
	OPT_CHAP_USER,
	OPT_CHAP_SECRET_FILE,
	OPT_MUTUAL_USER,
	OPT_MUTUAL_SECRET_FILE,
	OPT_COUNT
};

#define OPT(name) (1ULL << OPT_##name)
#define OPTS_LIST (OPT(JSON) | OPT(NO_HEADINGS) | OPT(PARSABLE) | OPT(COLUMNS) | OPT(SORT))
#define CLI_OPTS_LIMITS (OPT(IOPS) | OPT(BPS) | OPT(BURST_IOPS) | OPT(BURST_BPS) | OPT(BURST_SECONDS))
#define OPTS_SHOW (OPT(JSON) | OPT(PARSABLE))
#define CLI_MANY_MAX 16

struct table;

/* The values of an option that may be repeated; ends with NULL. */
struct cli_many {
	const char *v[CLI_MANY_MAX + 1];
	unsigned n;
};

struct cli {
	const struct cli_command *cmd;
	char **operands;
	int n_operands;
	uint64_t given;		       /* OPT() bits */
	const char *values[OPT_COUNT]; /* the last one given */
	struct cli_many nbd, tls_allow, allow, iscsi, initiator;
};

struct cli_command {
	const char *group; /* NULL: the verb stands alone */
	const char *verb, *alias;
	const char *operands; /* as help shows them */
	int min_operands, max_operands; /* max -1: any number */
	uint64_t opts;
	int (*run)(struct cli *cl);
	const char *summary;
	const char *details; /* more for --help; NULL: none */
	const struct table *table; /* whose columns --help names; NULL: none */
};

extern const struct cli_command *const cli_command_tables[]; /* each ends with verb NULL; the list ends with NULL */

int cli_main(int argc, char **argv);
/* Takes the words of a command off the operands and sets cl->cmd. 0 or CLI_USAGE after a message. */
int cli_command_take(struct cli *cl) __must_check;

/* The options of a command. Those that may talk to the daemon may have to do without it, and then open disks: they have --io. */
uint64_t cli_command_opts(const struct cli_command *c);

static inline bool cli_has(const struct cli *cl, enum cli_opt o) { return cl->given & (1ULL << o); }

/* "ashlar: <sentence>" on stderr; returns CLI_FAILED. */
int cli_fail(const struct err *e);
int cli_failf(const char *fmt, ...) __printf_like(1, 2);
/* Adds where to find help; returns CLI_USAGE. */
int cli_usage(const struct cli *cl, const char *fmt, ...) __printf_like(2, 3);
/* A size or duration from an option: 0, or CLI_USAGE after the message. */
int cli_size(const struct cli *cl, enum cli_opt o, uint64_t *bytes) __must_check;
int cli_count(const struct cli *cl, enum cli_opt o, uint64_t min, uint64_t max, uint64_t *n) __must_check;
/* A path as it shall be remembered: absolute, symbolic links kept; a URI as it is. NULL: it is no text. */
json_t *cli_path_json(const char *path);
int cli_size_text(const struct cli *cl, const char *what, const char *text, uint64_t *bytes) __must_check;
int cli_duration_text(const struct cli *cl, const char *what, const char *text) __must_check;
/* Prints a result as JSON for people and programs alike. */
void cli_print_json(const json_t *j);

/* help.c */
extern const struct opt_desc {
	const char *name;
	char letter; /* 0: none */
	const char *arg; /* NULL: none */
	const char *help;
} cli_opts[OPT_COUNT];
void cli_help_overview(void);
/* false: no such group */
bool cli_help_group(const char *group);
void cli_help_command(const struct cli_command *cmd);

extern const struct cli_command cli_pool_commands[], cli_disk_commands[], cli_relocate_commands[], cli_volume_commands[], cli_move_commands[], cli_snapshot_commands[], cli_diff_commands[], cli_send_commands[],
	cli_export_commands[], cli_daemon_commands[], cli_job_commands[], cli_misc_commands[];

int cli_run_scrub(struct cli *cl); /* cmd_job.c; `pool scrub` */
int cli_run_move_out(struct cli *cl); /* cmd_job.c; `volume move` */
/* cmd_move.c; `volume set --layout`, `pool set --layout` */
int cli_volume_layout(struct cli *cl);
int cli_pool_layout(struct cli *cl);

#endif
