#include "frontends/cli/session.h"
#include "frontends/cli/table.h"

static const struct column disk_cols[] = {
	{ "path", "path", COL_TEXT, true },
	{ "pool", "pool", COL_TEXT, true },
	{ "index", "index", COL_COUNT, true },
	{ "size", "size_bytes", COL_SIZE, true },
	{ "used", "used_bytes", COL_SIZE, true },
	{ "state", "state", COL_TEXT, true },
	{ "errors", "errors", COL_COUNT, true },
	{ "reads", "reads", COL_COUNT, false },
	{ "writes", "writes", COL_COUNT, false },
	{ "uuid", "uuid", COL_TEXT, false },
};
static const struct table disk_table = TABLE(disk_cols);

static int run_disks(struct cli *cl) { return cli_list(cl, &disk_table, "disk.list"); }

const struct cli_command cli_disk_commands[] = {
	{ "disk", "list", "ls", "[POOL]", 0, 1, OPTS_LIST | OPT(CONTROL), run_disks, "list the disks of pools",
	  "STATE is \"online\", \"stale\" (it has missed writes and is not read), \"absent\" or \"failed\".", &disk_table },
	{ .verb = NULL },
};
