#include "frontends/cli/session.h"
#include "frontends/cli/table.h"
#include "frontends/control/names.h"

int cli_list(struct cli *cl, const struct table *t, const char *method)
{
	const char *pool = cl->n_operands ? cl->operands[0] : NULL;
	json_t *rows = NULL, *params = json_object();
	bool incomplete = false;
	struct cli_session *s;
	struct err e = { 0 };
	int r = cli_table_check(t, cl);

	if (r == 0 && pool && control_check_pool(pool, &e) < 0)
		r = cli_fail(&e);
	if (r)
		goto out;
	s = cli_session_open(cl);
	if (pool) {
		json_object_set_new(params, "pool", json_string(pool));
		r = cli_session_call(s, pool, method, params, SESSION_READ, &rows, &e);
	} else {
		r = cli_session_list(s, method, false, &rows, &incomplete, &e);
	}
	cli_session_close(s);
	r = r < 0 ? cli_fail(&e) : cli_table_print(t, cl, rows);
	json_decref(rows);
out:
	json_decref(params);
	return r ? r : incomplete ? CLI_FAILED : CLI_OK;
}
