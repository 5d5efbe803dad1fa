/*
 * `ashlar export ... --iscsi`: volumes as LUNs of iSCSI targets. Secrets come from files, never from the command line, which
 * everybody on the machine can see; they are not shown again.
 */
#include <stdio.h>
#include <string.h>

#include "frontends/cli/export.h"
#include "frontends/cli/session.h"
#include "frontends/cli/table.h"
#include "frontends/control/names.h"
#include "frontends/iscsi/iscsi.h"

static const struct column iscsi_cols[] = {
	{ "target", "target", COL_TEXT, true },
	{ "lun", "lun", COL_COUNT, true },
	{ "volume", "volume", COL_TEXT, true },
	{ "readonly", "read_only", COL_YES, true },
	{ "initiators", "initiators", COL_TEXT, true },
	{ "chap", "chap_user", COL_TEXT, true },
	{ "mutual", "mutual_user", COL_TEXT, false },
};
const struct table cli_iscsi_table = TABLE(iscsi_cols);

int cli_export_iscsi_list(struct cli *cl)
{
	return cli_list(cl, &cli_iscsi_table, "export.list_iscsi");
}

/* The file's first line. */
static int secret_read(const struct cli *cl, enum cli_opt o, json_t *params, const char *key)
{
	const char *path = cl->values[o];
	char line[ISCSI_SECRET_MAX + 3], q[72];
	FILE *f = strcmp(path, "-") ? fopen(path, "re") : stdin;
	json_t *secret;

	if (!f)
		return cli_failf("--%s: %s cannot be read: %s", cli_opts[o].name, control_name_quote(path, q, sizeof(q)), strerror(errno));
	if (!fgets(line, sizeof(line), f))
		*line = '\0';
	if (f != stdin)
		fclose(f);
	line[strcspn(line, "\r\n")] = '\0';
	if (strlen(line) < ISCSI_SECRET_MIN || strlen(line) > ISCSI_SECRET_MAX)
		return cli_failf("--%s: the first line of %s is to be the secret, %d to %d bytes long", cli_opts[o].name,
				 control_name_quote(path, q, sizeof(q)), ISCSI_SECRET_MIN, ISCSI_SECRET_MAX);
	secret = json_string(line);
	if (!secret)
		return cli_failf("--%s: the secret is no UTF-8", cli_opts[o].name);
	json_object_set_new(params, key, secret);
	return 0;
}

static int pair_params(const struct cli *cl, enum cli_opt user, enum cli_opt file, json_t *params, const char *user_key, const char *secret_key)
{
	if (cli_has(cl, user) != cli_has(cl, file))
		return cli_usage(cl, "--%s and --%s go together", cli_opts[user].name, cli_opts[file].name);
	if (!cli_has(cl, user))
		return 0;
	json_object_set_new(params, user_key, json_string(cl->values[user]));
	return secret_read(cl, file, params, secret_key);
}

static int place_params(const struct cli *cl, json_t *params)
{
	uint64_t lun;
	int r;

	if (cli_has(cl, OPT_IQN))
		json_object_set_new(params, "iqn", json_string(cl->values[OPT_IQN]));
	if (!cli_has(cl, OPT_LUN))
		return 0;
	r = cli_count(cl, OPT_LUN, 0, ISCSI_LUN_MAX, &lun);
	if (r == 0)
		json_object_set_new(params, "lun", json_integer((json_int_t)lun));
	return r;
}

static int add_params(const struct cli *cl, json_t *params)
{
	json_t *names = json_array();
	unsigned i;
	int r = place_params(cl, params);

	for (i = 0; i < cl->initiator.n; i++)
		json_array_append_new(names, json_string(cl->initiator.v[i]));
	json_object_set_new(params, "initiators", names);
	json_object_set_new(params, "read_only", json_boolean(cli_has(cl, OPT_READ_ONLY)));
	if (r == 0)
		r = pair_params(cl, OPT_CHAP_USER, OPT_CHAP_SECRET_FILE, params, "chap_user", "chap_secret");
	if (r == 0)
		r = pair_params(cl, OPT_MUTUAL_USER, OPT_MUTUAL_SECRET_FILE, params, "mutual_user", "mutual_secret");
	return r;
}

static int call(struct cli *cl, const char *method, json_t *params, json_t **row)
{
	struct point_name name;
	struct cli_session *s;
	struct err e = { 0 };
	int r = control_point_split(cl->operands[0], &name, &e);

	if (r == 0) {
		json_object_set_new(params, "volume", json_string(cl->operands[0]));
		s = cli_session_open(cl);
		r = cli_session_call(s, name.pool, method, params, 0, row, &e);
		cli_session_close(s);
	}
	return r < 0 ? cli_fail(&e) : 0;
}

int cli_export_iscsi_add(struct cli *cl)
{
	json_t *params = json_object(), *row = NULL;
	int r = add_params(cl, params);

	if (cli_has(cl, OPT_NAME) || cli_has(cl, OPT_ALLOW) || cli_has(cl, OPT_MAX_CONNECTIONS))
		r = cli_usage(cl, "--name, --allow and --max-connections are for NBD; with --iscsi there are --iqn, --lun, --initiator and --chap-user");
	if (r == 0)
		r = call(cl, "export.add_iscsi", params, &row);
	json_decref(params);
	if (r)
		return r;
	if (json_is_true(json_object_get(row, "open_beside_rules")))
		fprintf(stderr, "ashlar: the rules of --allow are for NBD: over iSCSI every initiator reaches %s (--initiator, --chap-user)\n",
			cl->operands[0]);
	if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else
		printf("%s is LUN %lld of %s%s\n", cl->operands[0], (long long)json_integer_value(json_object_get(row, "lun")),
		       json_string_value(json_object_get(row, "target")), json_is_true(json_object_get(row, "read_only")) ? ", read-only" : "");
	json_decref(row);
	return CLI_OK;
}

int cli_export_iscsi_remove(struct cli *cl)
{
	json_t *params = json_object(), *row = NULL;
	int r = place_params(cl, params);

	if (r == 0)
		r = call(cl, "export.remove_iscsi", params, &row);
	json_decref(params);
	json_decref(row);
	if (r == 0 && !cli_has(cl, OPT_JSON))
		printf("%s is not exported by iSCSI any more%s\n", cl->operands[0], cli_has(cl, OPT_IQN) || cli_has(cl, OPT_LUN) ? " as that" : "");
	return r;
}
