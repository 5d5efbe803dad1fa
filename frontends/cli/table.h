/*
 * table.h: rows of JSON objects as a table for people (libsmartcols), as tabs for scripts (-H), as JSON (--json).
 */
#ifndef FRONTENDS_CLI_TABLE_H
#define FRONTENDS_CLI_TABLE_H

#include "frontends/cli/cli.h"

enum column_type { COL_TEXT, COL_SIZE, COL_COUNT, COL_PERCENT, COL_YES, COL_SECONDS };

struct column {
	const char *name; /* lower case: what -o and --sort take; the heading is the same in capitals */
	const char *key;  /* member of the row */
	enum column_type type;
	bool is_shown; /* without -o */
};

struct table {
	const struct column *columns;
	size_t n_columns;
};

#define TABLE(cols) { .columns = cols, .n_columns = ARRAY_LEN(cols) }

/* Before anything is done: are -o and --sort right? 0 or CLI_USAGE. */
int cli_table_check(const struct table *t, const struct cli *cl) __must_check;
/* Prints rows (a JSON array; sorted in place) as the options say. Returns an exit status. */
int cli_table_print(const struct table *t, const struct cli *cl, json_t *rows);
/* All columns of one row, one per line; the whole object for --json. */
int cli_table_show(const struct table *t, const struct cli *cl, const json_t *row);

/* A whole list command: the rows of `method` for the pool that the operand names, or of all pools in reach. */
int cli_list(struct cli *cl, const struct table *t, const char *method);

#endif
