#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/units.h"
#include "frontends/cli/session.h"
#include "frontends/cli/table.h"
#include "frontends/control/names.h"

static const struct column volume_cols[] = {
	{ "name", "name", COL_TEXT, true },
	{ "size", "size_bytes", COL_SIZE, true },
	{ "used", "used_bytes", COL_SIZE, true },
	{ "refer", "refer_bytes", COL_SIZE, true },
	{ "exclusive", "exclusive_bytes", COL_SIZE, true },
	{ "snaps", "snapshots", COL_COUNT, true },
	{ "layout", "layout", COL_TEXT, true },
	{ "clients", "attached", COL_COUNT, true },
	{ "moving", "moving", COL_TEXT, false },
	{ "origin", "origin", COL_TEXT, false },
	{ "every", "policy_every", COL_TEXT, false },
	{ "keep", "policy_keep", COL_COUNT, false },
	{ "fullwait", "full_wait", COL_TEXT, false },
	{ "waiting", "full_waiting", COL_YES, false },
	{ "created", "created", COL_TEXT, false },
	{ "reads", "reads", COL_COUNT, false },
	{ "writes", "writes", COL_COUNT, false },
	{ "readbytes", "bytes_read", COL_SIZE, false },
	{ "writebytes", "bytes_written", COL_SIZE, false },
	{ "iops", "iops", COL_COUNT, false },
	{ "bps", "bps", COL_SIZE, false },
	{ "burstiops", "burst_iops", COL_COUNT, false },
	{ "burstbps", "burst_bps", COL_SIZE, false },
	{ "burstseconds", "burst_seconds", COL_COUNT, false },
	{ "limited", "limited", COL_COUNT, false },
	{ "limitedms", "limited_ms", COL_COUNT, false },
	{ "limitwaiting", "limit_waiting", COL_COUNT, false },
	{ "source", "source", COL_TEXT, false },
	{ "id", "id", COL_COUNT, false },
};
static const struct table volume_table = TABLE(volume_cols);

/* Calls a method on the volume that the first operand names. params: taken over. NULL after a message; *status tells. */
static json_t *volume_call(struct cli *cl, const char *method, json_t *params, unsigned flags, int *status)
{
	struct volume_name name;
	struct cli_session *s;
	struct err e = { 0 };
	json_t *row = NULL;
	int r = control_name_split(cl->operands[0], &name, &e);

	if (r == 0) {
		json_object_set_new(params, "volume", json_string(cl->operands[0]));
		s = cli_session_open(cl);
		r = cli_session_call(s, name.pool, method, params, flags, &row, &e);
		cli_session_close(s);
	}
	json_decref(params);
	*status = r < 0 ? cli_fail(&e) : CLI_OK;
	return r < 0 ? NULL : row;
}

static int run_list(struct cli *cl) { return cli_list(cl, &volume_table, "volume.list"); }

static int run_show(struct cli *cl)
{
	int r;
	json_t *row = volume_call(cl, "volume.show", json_object(), SESSION_READ, &r);

	if (row)
		r = cli_table_show(&volume_table, cl, row);
	json_decref(row);
	return r;
}

/* For commands that answer with the volume: JSON if asked for, else a line. */
static void changed_print(const struct cli *cl, const json_t *row, const char *what)
{
	char size[16];

	if (cli_has(cl, OPT_JSON)) {
		cli_print_json(row);
		return;
	}
	size_format((uint64_t)json_integer_value(json_object_get(row, "size_bytes")), size, sizeof(size));
	printf("volume %s %s (%s, %s)\n", json_string_value(json_object_get(row, "name")), what, size,
	       json_string_value(json_object_get(row, "layout")));
}

/* ---- limits ---- */

static const struct limit_setting {
	enum cli_opt opt; /* its name is that of the setting */
	const char *key;
	bool is_size;
} limit_settings[] = {
	{ OPT_IOPS, "iops", false },
	{ OPT_BPS, "bps", true },
	{ OPT_BURST_IOPS, "burst_iops", false },
	{ OPT_BURST_BPS, "burst_bps", true },
	{ OPT_BURST_SECONDS, "burst_seconds", false },
};

static int limit_put(struct cli *cl, const struct limit_setting *s, const char *text, json_t *params)
{
	const char *name = cli_opts[s->opt].name;
	char *end, q[72];
	uint64_t n = 0;
	int r = 0;

	if (strcmp(text, "none") && s->is_size) {
		r = cli_size_text(cl, name, text, &n);
	} else if (strcmp(text, "none")) {
		errno = 0;
		n = strtoull(text, &end, 10);
		if (*text < '0' || *text > '9' || *end || errno || n > UINT32_MAX)
			r = cli_usage(cl, "%s must be a number up to %u, or none, not '%s'", name, UINT32_MAX,
				      control_name_quote(text, q, sizeof(q)));
	}
	if (r == 0)
		json_object_set_new(params, s->key, json_integer((json_int_t)n));
	return r;
}

static int limits_put(struct cli *cl, json_t *params)
{
	size_t i;
	int r = 0;

	for (i = 0; i < ARRAY_LEN(limit_settings) && r == 0; i++)
		if (cli_has(cl, limit_settings[i].opt))
			r = limit_put(cl, &limit_settings[i], cl->values[limit_settings[i].opt], params);
	return r;
}

static int run_create(struct cli *cl)
{
	json_t *params, *row, *from = NULL;
	struct err e = { 0 };
	uint64_t size = 0;
	int r = 0;

	if (!cli_has(cl, OPT_SIZE) && !cli_has(cl, OPT_FROM))
		return cli_usage(cl, "--size is missing");
	if (cli_has(cl, OPT_SIZE))
		r = cli_size(cl, OPT_SIZE, &size);
	if (r == 0 && cli_has(cl, OPT_FULL_WAIT))
		r = cli_duration_text(cl, "--full-wait", cl->values[OPT_FULL_WAIT]);
	if (r)
		return r;
	if (cli_has(cl, OPT_SIZE) && control_check_size(size, &e) < 0)
		return cli_fail(&e);
	if (cli_has(cl, OPT_FROM)) {
		from = cli_path_json(cl->values[OPT_FROM]);
		if (!from)
			return cli_failf("the source's name is not UTF-8 text; give it another name");
	}
	params = json_object();
	if (cli_has(cl, OPT_SIZE))
		json_object_set_new(params, "size", json_integer((json_int_t)size));
	if (from)
		json_object_set_new(params, "from", from);
	if (cli_has(cl, OPT_LAYOUT))
		json_object_set_new(params, "layout", json_string(cl->values[OPT_LAYOUT]));
	if (cli_has(cl, OPT_FULL_WAIT))
		json_object_set_new(params, "full_wait", json_string(cl->values[OPT_FULL_WAIT]));
	r = limits_put(cl, params);
	if (r) {
		json_decref(params);
		return r;
	}
	row = volume_call(cl, "volume.create", params, 0, &r);
	if (row)
		changed_print(cl, row, "created");
	json_decref(row);
	return r;
}

static int run_resize(struct cli *cl)
{
	const char *text = cl->n_operands > 1 ? cl->operands[1] : cl->values[OPT_SIZE];
	char from[16], to[16];
	json_t *row;
	struct err e = { 0 };
	uint64_t size;
	int r;

	if (!text || (cl->n_operands > 1 && cli_has(cl, OPT_SIZE)))
		return cli_usage(cl, text ? "the size is given twice" : "--size is missing");
	r = cli_size_text(cl, "the size", text, &size);
	if (r)
		return r;
	if (control_check_size(size, &e) < 0)
		return cli_fail(&e);
	row = volume_call(cl, "volume.resize",
			  json_pack("{s:I, s:b, s:b}", "size", (json_int_t)size, "force", cli_has(cl, OPT_FORCE), "dry_run",
				    cli_has(cl, OPT_DRY_RUN)),
			  cli_has(cl, OPT_DRY_RUN) ? SESSION_READ : 0, &r);
	if (row && cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else if (row)
		printf("volume %s %s from %s to %s\n", cl->operands[0], cli_has(cl, OPT_DRY_RUN) ? "would be resized" : "resized",
		       size_format((uint64_t)json_integer_value(json_object_get(row, "old_size_bytes")), from, sizeof(from)),
		       size_format(size, to, sizeof(to)));
	json_decref(row);
	return r;
}

static int run_rename(struct cli *cl)
{
	struct volume_name old, new;
	struct err e = { 0 };
	json_t *row;
	int r = control_name_split(cl->operands[0], &old, &e);

	if (r == 0)
		r = control_name_split_new(cl->operands[1], &old, &new, &e);
	if (r < 0)
		return cli_fail(&e);
	row = volume_call(cl, "volume.rename", json_pack("{s:s}", "new_name", cl->operands[1]), 0, &r);
	if (row && cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else if (row)
		printf("volume %s renamed to %s/%s\n", cl->operands[0], new.pool, new.volume);
	json_decref(row);
	return r;
}

#define SETTINGS "full-wait=TIME, iops=N, bps=SIZE, burst-iops=N, burst-bps=SIZE, burst-seconds=N"

static int set_one(struct cli *cl, const char *text, json_t *params)
{
	static const char key[] = "full-wait=";
	size_t i, n = strcspn(text, "=");
	char q[72];
	int r;

	for (i = 0; i < ARRAY_LEN(limit_settings); i++) {
		const char *name = cli_opts[limit_settings[i].opt].name;

		if (text[n] && strlen(name) == n && !strncmp(text, name, n))
			return limit_put(cl, &limit_settings[i], text + n + 1, params);
	}
	if (strncmp(text, key, sizeof(key) - 1))
		return cli_usage(cl, "'%s' is not a setting; settings are: " SETTINGS, control_name_quote(text, q, sizeof(q)));
	text += sizeof(key) - 1;
	r = cli_duration_text(cl, "full-wait", text);
	if (r == 0)
		json_object_set_new(params, "full_wait", json_string(text));
	return r;
}

static int run_set(struct cli *cl)
{
	json_t *params = json_object(), *row;
	int i, r = 0;

	if (cli_has(cl, OPT_LAYOUT)) {
		json_decref(params);
		return cli_volume_layout(cl);
	}
	for (i = 1; r == 0 && i < cl->n_operands; i++)
		r = set_one(cl, cl->operands[i], params);
	if (r == 0 && cli_has(cl, OPT_FULL_WAIT)) {
		r = cli_duration_text(cl, "--full-wait", cl->values[OPT_FULL_WAIT]);
		json_object_set_new(params, "full_wait", json_string(cl->values[OPT_FULL_WAIT]));
	}
	if (r == 0)
		r = limits_put(cl, params);
	if (r == 0 && json_object_size(params) == 0)
		r = cli_usage(cl, "nothing to set; settings are: " SETTINGS);
	if (r) {
		json_decref(params);
		return r;
	}
	row = volume_call(cl, "volume.set", params, 0, &r);
	if (row)
		changed_print(cl, row, "changed");
	json_decref(row);
	return r;
}

static void delete_print(const struct cli *cl, const json_t *row)
{
	const json_t *snapshots = json_object_get(row, "snapshots");
	size_t n = json_array_size(snapshots), i;
	char freed[16], with[64] = "";

	size_format((uint64_t)json_integer_value(json_object_get(row, "freed_bytes")), freed, sizeof(freed));
	if (cli_has(cl, OPT_DRY_RUN)) {
		for (i = 0; i < n; i++)
			printf("snapshot %s would be deleted\n", json_string_value(json_array_get(snapshots, i)));
	}
	if (n)
		snprintf(with, sizeof(with), " with its %zu snapshot%s", n, n == 1 ? "" : "s");
	printf("volume %s %s%s, %s freed%s%s\n", cl->operands[0], cli_has(cl, OPT_DRY_RUN) ? "would be deleted" : "deleted", with, freed,
	       json_is_true(json_object_get(row, "receive_dropped")) ? "; what was kept of a stream into it goes too" : "",
	       cli_has(cl, OPT_DRY_RUN) ? "; nothing was changed" : "");
}

static int run_delete(struct cli *cl)
{
	int r;
	json_t *row = volume_call(cl, "volume.delete",
				  json_pack("{s:b, s:b, s:b}", "force", cli_has(cl, OPT_FORCE), "snapshots",
					    cli_has(cl, OPT_SNAPSHOTS), "dry_run", cli_has(cl, OPT_DRY_RUN)),
				  cli_has(cl, OPT_DRY_RUN) ? SESSION_READ : 0, &r);

	if (!row)
		return r;
	if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else
		delete_print(cl, row);
	json_decref(row);
	return CLI_OK;
}

#define LIMITS_HELP \
	"--iops and --bps limit what all clients of the volume do together, reads and writes alike; what is too much waits, and\n" \
	"nothing fails. A volume at rest saves up, so that it can do --burst-iops and --burst-bps for --burst-seconds. Zeroing and\n" \
	"discarding cost an I/O, and bytes only if the zeros are to take space; a flush costs nothing; what NBD clients read or\n" \
	"write in requests of more than 2 MiB costs an I/O for each MiB. Snapshots and clones have no limits of their own; a volume\n" \
	"that moves keeps its limits. `volume list -o name,iops,bps,limited,limitedms` shows what waited (LIMITED requests,\n" \
	"LIMITEDMS milliseconds all together; LIMITWAITING wait now).\n"

const struct cli_command cli_volume_commands[] = {
	{ "volume", "create", NULL, "POOL/VOL --size SIZE", 1, 1,
	  OPT(SIZE) | OPT(LAYOUT) | OPT(FULL_WAIT) | CLI_OPTS_LIMITS | OPT(FROM) | OPT(JSON) | OPT(CONTROL), run_create, "make a thin volume",
	  "It takes space as it is written. While the pool is full, writes that need space wait for --full-wait (default 60s)\n"
	  "and then fail with \"no space\"; all others go on.\n\n"
	  LIMITS_HELP "\n"
	  "--from SOURCE adopts what is there: a raw image, a block device, or an NBD export (nbd://HOST/EXPORT,\n"
	  "nbd+unix:///EXPORT?socket=PATH). The volume has its contents at once and can be used; what has not come over yet is\n"
	  "read from there, what is written goes to the volume, and a job brings over the rest (`ashlar job list`), also after a\n"
	  "restart. Then the source is not needed any more; it is never written to. --size may be larger than the source, and is\n"
	  "its size by default. Until the job is done the source must stay, nobody may write to it, and the volume has no snapshots\n"
	  "and keeps its size. While the source is away, what has not come over cannot be read, nor can a part of a subcluster\n"
	  "(4K) be written there. What clients discard or zero meanwhile takes space where the source has something.\n"
	  "Deleting the volume gives it up.",
	  NULL },
	{ "volume", "list", "ls", "[POOL]", 0, 1, OPTS_LIST | OPT(CONTROL), run_list, "list volumes",
	  "REFER is the data that a volume holds, USED the space that this takes, whoever else shares it; EXCLUSIVE is what its\n"
	  "deletion alone would free.", &volume_table },
	{ "volume", "show", NULL, "POOL/VOL", 1, 1, OPTS_SHOW | OPT(CONTROL), run_show, "show all there is to know about a volume", NULL,
	  NULL },
	{ "volume", "resize", NULL, "POOL/VOL SIZE", 1, 2, OPT(SIZE) | OPT(FORCE) | OPT(DRY_RUN) | OPT(JSON) | OPT(CONTROL), run_resize,
	  "change a volume's size", "SIZE may be given as --size too. Smaller only with --force: what lies beyond is gone.", NULL },
	{ "volume", "rename", "mv", "POOL/VOL NEW", 2, 2, OPT(JSON) | OPT(CONTROL), run_rename, "give a volume another name",
	  "NEW is a volume name, with or without its pool. Attached clients stay.", NULL },
	{ "volume", "set", NULL, "POOL/VOL SETTING=VALUE...", 1, -1,
	  OPT(FULL_WAIT) | CLI_OPTS_LIMITS | OPT(LAYOUT) | OPT(DRY_RUN) | OPT(WAIT) | OPT(JSON) | OPT(CONTROL), run_set, "change settings of a volume",
	  "full-wait: how long writes are held while the pool is full: 0, 30s, 5m, 1h, forever.\n\n"
	  "iops, bps, burst-iops, burst-bps, burst-seconds; none, or 0, takes a limit off, and its burst. Settings may be written as\n"
	  "options too. They hold at once, also for clients that are attached.\n"
	  LIMITS_HELP "\n"
	  "--layout moves the volume, with its snapshots and clones, to another layout while it is in use; `job stop` cancels that.", NULL },
	{ "volume", "delete", "rm remove", "POOL/VOL", 1, 1, OPT(FORCE) | OPT(SNAPSHOTS) | OPT(DRY_RUN) | OPT(JSON) | OPT(CONTROL),
	  run_delete, "delete a volume and all its data",
	  "Refused while clients are attached, unless --force: they lose their connection first; and while it has snapshots, unless\n"
	  "--snapshots: then they go too (--dry-run lists them), all or none. Clones stay. What `receive` has kept of a stream into the\n"
	  "volume goes with it.", NULL },
	{ .verb = NULL },
};
