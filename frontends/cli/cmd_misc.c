#include <stdio.h>

#include "frontends/cli/cli.h"
#include "frontends/control/methods.h"

static int run_version(struct cli *cl)
{
	json_t *j;

	if (cli_has(cl, OPT_JSON)) {
		j = json_pack("{s:s}", "version", ASHLAR_VERSION);
		cli_print_json(j);
		json_decref(j);
	} else {
		printf("ashlar %s\n", ASHLAR_VERSION);
	}
	return CLI_OK;
}

static const struct cli_command *find(const char *group, const char *verb)
{
	char *argv[] = { (char *)group, (char *)verb };
	struct cli cl = { .operands = argv, .n_operands = verb ? 2 : 1 };

	return cli_command_take(&cl) ? NULL : cl.cmd;
}

static int run_help(struct cli *cl)
{
	const struct cli_command *c;

	if (cl->n_operands == 0) {
		cli_help_overview();
		return CLI_OK;
	}
	if (cl->n_operands == 1 && cli_help_group(cl->operands[0]))
		return CLI_OK;
	c = find(cl->operands[0], cl->n_operands > 1 ? cl->operands[1] : NULL);
	if (!c)
		return CLI_USAGE;
	cli_help_command(c);
	return CLI_OK;
}

static int run_methods(struct cli *cl)
{
	json_t *j = rpc_describe(control_methods);

	cli_print_json(j);
	json_decref(j);
	return CLI_OK;
}

const struct cli_command cli_misc_commands[] = {
	{ NULL, "version", NULL, "", 0, 0, OPT(JSON), run_version, "print the version", NULL, NULL },
	{ NULL, "methods", NULL, "", 0, 0, OPT(JSON), run_methods, "print the methods of the control socket as JSON", NULL, NULL },
	{ NULL, "help", NULL, "[COMMAND]", 0, 2, 0, run_help, "explain a command", NULL, NULL },
	{ .verb = NULL },
};
