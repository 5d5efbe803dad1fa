/*
 * `snapshot diff`: pages of ranges are asked for and printed one after the other. A range that goes on in the next page is one.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"
#include "frontends/cli/session.h"
#include "frontends/control/names.h"

struct range {
	uint64_t off, len;
	const char *type;
};

struct print {
	const struct cli *cl;
	struct range last; /* not printed yet; len 0: none */
	uint64_t n;
};

static void range_print(struct print *p, const struct range *x)
{
	const char *tab = cli_has(p->cl, OPT_NO_HEADINGS) ? "\t" : NULL;
	char off[24], len[24];

	if (!x->len)
		return;
	if (cli_has(p->cl, OPT_JSON)) {
		printf("%s{\"offset\": %" PRIu64 ", \"length\": %" PRIu64 ", \"type\": \"%s\"}", p->n ? ",\n  " : "\n  ", x->off, x->len,
		       x->type);
	} else {
		if (cli_has(p->cl, OPT_PARSABLE)) {
			snprintf(off, sizeof(off), "%" PRIu64, x->off);
			snprintf(len, sizeof(len), "%" PRIu64, x->len);
		} else {
			size_format(x->off, off, sizeof(off));
			size_format(x->len, len, sizeof(len));
		}
		if (!p->n && !tab)
			printf("%20s %20s  %s\n", "OFFSET", "LENGTH", "TYPE");
		if (tab)
			printf("%s\t%s\t%s\n", off, len, x->type);
		else
			printf("%20s %20s  %s\n", off, len, x->type);
	}
	p->n++;
}

static int page_take(struct print *p, const json_t *ranges)
{
	json_t *row;
	size_t i;

	json_array_foreach(ranges, i, row) {
		const char *type = json_string_value(json_object_get(row, "type"));
		struct range x = {
			.off = (uint64_t)json_integer_value(json_object_get(row, "offset")),
			.len = (uint64_t)json_integer_value(json_object_get(row, "length")),
			.type = type && !strcmp(type, "zero") ? "zero" : "data",
		};

		if (p->last.len && p->last.off + p->last.len == x.off && !strcmp(p->last.type, x.type)) {
			p->last.len += x.len;
		} else {
			range_print(p, &p->last);
			p->last = x;
		}
	}
	return ferror(stdout) ? -EIO : 0;
}

static int pages_take(struct cli_session *s, const char *pool, json_t *params, struct print *p, struct err *e)
{
	json_t *page, *next;
	int r;

	do {
		page = NULL;
		r = cli_session_call(s, pool, "snapshot.diff", params, SESSION_READ, &page, e);
		if (r < 0)
			return r;
		if (cli_has(p->cl, OPT_JSON) && !json_object_get(params, "offset"))
			printf("[");
		r = page_take(p, json_object_get(page, "ranges"));
		next = json_object_get(page, "next");
		if (json_is_integer(next))
			json_object_set(params, "offset", next);
		else
			next = NULL;
		json_decref(page);
	} while (r == 0 && next);
	return 0;
}

static int run_diff(struct cli *cl)
{
	char pool[ASHLAR_POOL_NAME_MAX + 1];
	struct print p = { .cl = cl };
	struct cli_session *s;
	struct err e = { 0 };
	json_t *params;
	int r;

	/* What is not a name at all is refused by the method; here only the pool is wanted. */
	snprintf(pool, sizeof(pool), "%.*s", (int)MIN(strcspn(cl->operands[0], "/"), sizeof(pool)), cl->operands[0]);
	if (!strchr(cl->operands[0], '/') || !strchr(cl->operands[1], '/'))
		return cli_usage(cl, "snapshots and volumes are named POOL/VOL@SNAP and POOL/VOL");
	if (control_check_pool(pool, &e) < 0)
		return cli_fail(&e);
	params = json_pack("{s:s, s:s}", "from", cl->operands[0], "to", cl->operands[1]);
	if (!params)
		return cli_failf("names must be letters, digits, '_', '-', '.' and ':'");
	s = cli_session_open(cl);
	r = pages_take(s, pool, params, &p, &e);
	cli_session_close(s);
	json_decref(params);
	if (r < 0)
		return cli_fail(&e);
	range_print(&p, &p.last);
	if (cli_has(cl, OPT_JSON))
		printf("%s]\n", p.n ? "\n" : "");
	return CLI_OK;
}

const struct cli_command cli_diff_commands[] = {
	{ "snapshot", "diff", NULL, "POOL/VOL@A POOL/VOL[@B]", 2, 2, OPT(JSON) | OPT(PARSABLE) | OPT(NO_HEADINGS) | OPT(CONTROL), run_diff,
	  "show which ranges differ between two snapshots",
	  "Or between a snapshot and its volume as it is now, or its clone. Ranges that were written are \"data\", those that\n"
	  "read as zeros now are \"zero\". What is not listed is the same in both; what is listed may be the same too.",
	  NULL },
	{ .verb = NULL },
};
