#include "frontends/cli/table.h"

#include <ctype.h>
#include <libsmartcols/libsmartcols.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/units.h"
#include "frontends/control/names.h"

#define COLUMNS_MAX 64
#define CELL_LEN 600

static const struct column *column_find(const struct table *t, const char *name, size_t len)
{
	size_t i;

	for (i = 0; i < t->n_columns; i++)
		if (strlen(t->columns[i].name) == len && !strncasecmp(t->columns[i].name, name, len))
			return &t->columns[i];
	return NULL;
}

/* The columns to show, in order. */
static int columns_choose(const struct table *t, const struct cli *cl, const struct column **out, size_t *n)
{
	const char *s = cl->values[OPT_COLUMNS], *end;
	bool all = s && !strcmp(s, "all");
	char q[72], one[72];
	size_t i;

	*n = 0;
	for (i = 0; (!s || all) && i < t->n_columns; i++)
		if (all || t->columns[i].is_shown)
			out[(*n)++] = &t->columns[i];
	for (; s && !all; s = *end ? end + 1 : NULL) {
		end = strchrnul(s, ',');
		if (*n == COLUMNS_MAX)
			return cli_usage(cl, "-o: more than %d columns", COLUMNS_MAX);
		out[*n] = column_find(t, s, (size_t)(end - s));
		if (!out[*n]) {
			snprintf(one, sizeof(one), "%.*s", (int)MIN(end - s, (long)sizeof(one)), s);
			return cli_usage(cl, "-o: there is no column '%s'", control_name_quote(one, q, sizeof(q)));
		}
		++*n;
	}
	return 0;
}

static const struct column *sort_column(const struct table *t, const struct cli *cl, bool *down)
{
	const char *s = cl->values[OPT_SORT];

	*down = s && *s == '-';
	if (*down)
		s++;
	return s ? column_find(t, s, strlen(s)) : &t->columns[0];
}

int cli_table_check(const struct table *t, const struct cli *cl)
{
	const struct column *cols[COLUMNS_MAX];
	char q[72];
	size_t n;
	bool down;

	CHECK(t->n_columns <= COLUMNS_MAX);
	if (!sort_column(t, cl, &down))
		return cli_usage(cl, "--sort: there is no column '%s'", control_name_quote(cl->values[OPT_SORT], q, sizeof(q)));
	return columns_choose(t, cl, cols, &n);
}

/* ---- sorting ---- */

struct sort_row {
	json_t *row;
	size_t at;
};

struct sort_by {
	const char *key;
	bool down;
};

static int value_compare(const json_t *a, const json_t *b)
{
	if (json_is_string(a) && json_is_string(b))
		return strcmp(json_string_value(a), json_string_value(b));
	if (json_is_integer(a) && json_is_integer(b))
		return json_integer_value(a) < json_integer_value(b) ? -1 : json_integer_value(a) > json_integer_value(b);
	if (json_is_boolean(a) && json_is_boolean(b))
		return json_is_true(a) - json_is_true(b);
	return (a && !json_is_null(a)) - (b && !json_is_null(b));
}

static int row_compare(const void *pa, const void *pb, void *arg)
{
	const struct sort_row *a = pa, *b = pb;
	const struct sort_by *by = arg;
	int r = value_compare(json_object_get(a->row, by->key), json_object_get(b->row, by->key));

	if (by->down)
		r = -r;
	return r ? r : a->at < b->at ? -1 : 1;
}

static void rows_sort(json_t *rows, const struct sort_by *by)
{
	size_t i, n = json_array_size(rows);
	struct sort_row *v = xcalloc(n + 1, sizeof(*v));

	for (i = 0; i < n; i++)
		v[i] = (struct sort_row){ json_incref(json_array_get(rows, i)), i };
	qsort_r(v, n, sizeof(*v), row_compare, (void *)by);
	json_array_clear(rows);
	for (i = 0; i < n; i++)
		json_array_append_new(rows, v[i].row);
	xfree(v);
}

/* ---- cells ---- */

/* A list of words: with blanks between them. */
static void words_format(const json_t *words, char *buf)
{
	size_t i, n = 0;

	for (i = 0; i < json_array_size(words) && n < CELL_LEN; i++)
		n += (size_t)snprintf(buf + n, CELL_LEN - n, "%s%s", i ? " " : "", json_string_value(json_array_get(words, i)));
}

static void cell_format(const struct column *col, const json_t *row, bool exact, char *buf)
{
	const json_t *v = json_object_get(row, col->key);
	char *s;

	if (!v || json_is_null(v) || (json_is_array(v) && !json_array_size(v)))
		snprintf(buf, CELL_LEN, "-");
	else if (json_is_string(v))
		snprintf(buf, CELL_LEN, "%s", json_string_value(v));
	else if (json_is_array(v))
		words_format(v, buf);
	else if (json_is_boolean(v))
		snprintf(buf, CELL_LEN, "%s", json_is_true(v) ? "yes" : "no");
	else if (col->type == COL_SIZE && !exact)
		size_format((uint64_t)json_integer_value(v), buf, 16);
	else if (col->type == COL_PERCENT && !exact)
		snprintf(buf, CELL_LEN, "%lld%%", (long long)json_integer_value(v));
	else if (col->type == COL_SECONDS && !exact)
		snprintf(buf, CELL_LEN, "%lld:%02lld", (long long)json_integer_value(v) / 60, (long long)json_integer_value(v) % 60);
	else
		snprintf(buf, CELL_LEN, "%lld", (long long)json_integer_value(v));
	for (s = buf; *s; s++)
		if (iscntrl((unsigned char)*s))
			*s = '?';
}

static void print_tabs(const struct column **cols, size_t n, const json_t *rows, bool exact)
{
	char cell[CELL_LEN];
	size_t i, k;

	for (i = 0; i < json_array_size(rows); i++)
		for (k = 0; k < n; k++) {
			cell_format(cols[k], json_array_get(rows, i), exact, cell);
			printf("%s%c", cell, k + 1 < n ? '\t' : '\n');
		}
}

static int print_columns(const struct column **cols, size_t n, const json_t *rows, bool exact)
{
	struct libscols_table *tb = scols_new_table();
	struct libscols_line *line;
	char cell[CELL_LEN];
	size_t i, k;
	int r = tb ? 0 : -ENOMEM;

	for (k = 0; r == 0 && k < n; k++) {
		bool right = cols[k]->type == COL_SIZE || cols[k]->type == COL_COUNT || cols[k]->type == COL_PERCENT ||
			     cols[k]->type == COL_SECONDS;
		char *s;

		snprintf(cell, sizeof(cell), "%s", cols[k]->name);
		for (s = cell; *s; s++)
			*s = (char)toupper((unsigned char)*s);
		if (!scols_table_new_column(tb, cell, 0, right ? SCOLS_FL_RIGHT : 0))
			r = -ENOMEM;
	}
	for (i = 0; r == 0 && i < json_array_size(rows); i++) {
		line = scols_table_new_line(tb, NULL);
		if (!line)
			r = -ENOMEM;
		for (k = 0; r == 0 && k < n; k++) {
			cell_format(cols[k], json_array_get(rows, i), exact, cell);
			r = scols_line_set_data(line, k, cell);
		}
	}
	if (r == 0)
		r = scols_print_table(tb);
	scols_unref_table(tb);
	return r < 0 ? cli_failf("cannot print the table: %s", strerror(-r)) : CLI_OK;
}

int cli_table_print(const struct table *t, const struct cli *cl, json_t *rows)
{
	const struct column *cols[COLUMNS_MAX];
	struct sort_by by;
	size_t n;
	int r = columns_choose(t, cl, cols, &n);

	if (r)
		return r;
	by.key = sort_column(t, cl, &by.down)->key;
	rows_sort(rows, &by);
	if (cli_has(cl, OPT_JSON))
		cli_print_json(rows);
	else if (cli_has(cl, OPT_NO_HEADINGS))
		print_tabs(cols, n, rows, cli_has(cl, OPT_PARSABLE));
	else if (json_array_size(rows))
		return print_columns(cols, n, rows, cli_has(cl, OPT_PARSABLE));
	return CLI_OK;
}

int cli_table_show(const struct table *t, const struct cli *cl, const json_t *row)
{
	char cell[CELL_LEN];
	size_t i;

	if (cli_has(cl, OPT_JSON)) {
		cli_print_json(row);
		return CLI_OK;
	}
	for (i = 0; i < t->n_columns; i++) {
		if (!json_object_get(row, t->columns[i].key))
			continue;
		cell_format(&t->columns[i], row, cli_has(cl, OPT_PARSABLE), cell);
		printf("%-16s %s\n", t->columns[i].name, cell);
	}
	return CLI_OK;
}
