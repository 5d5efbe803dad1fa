/*
 * Finding the command and its options. getopt_long() runs once over the whole line with the options of all commands, so
 * that they may stand anywhere, before the command too; what does not belong to the command found is refused afterwards.
 */
#include "frontends/cli/cli.h"

#include <getopt.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "engine/io/disk_uri.h"
#include "frontends/control/names.h"

const struct cli_command *const cli_command_tables[] = {
	cli_pool_commands, cli_disk_commands, cli_relocate_commands, cli_volume_commands, cli_move_commands, cli_snapshot_commands, cli_diff_commands, cli_send_commands, cli_export_commands,
	cli_job_commands, cli_daemon_commands, cli_misc_commands, NULL,
};

/* ---- messages ---- */

int cli_fail(const struct err *e)
{
	fflush(stdout);
	fprintf(stderr, "ashlar: %s\n", e->text);
	return CLI_FAILED;
}

int cli_failf(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("ashlar: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return CLI_FAILED;
}

int cli_usage(const struct cli *cl, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("ashlar: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	if (cl && cl->cmd)
		fprintf(stderr, "; see `ashlar %s%s%s --help`\n", cl->cmd->group ? cl->cmd->group : "", cl->cmd->group ? " " : "",
			cl->cmd->verb);
	else
		fputs("; see `ashlar help`\n", stderr);
	return CLI_USAGE;
}

int cli_size_text(const struct cli *cl, const char *what, const char *text, uint64_t *bytes)
{
	char q[72];
	int r = size_parse(text, bytes);

	if (r == 0)
		return 0;
	control_name_quote(text, q, sizeof(q));
	if (*text == '-')
		return cli_usage(cl, "%s must not be negative: '%s'", what, q);
	if (r == -ERANGE)
		return cli_usage(cl, "%s is beyond all limits: '%s'", what, q);
	return cli_usage(cl, "%s is not a size: '%s' (write 512M, 10G, 1.5T)", what, q);
}

int cli_size(const struct cli *cl, enum cli_opt o, uint64_t *bytes)
{
	char what[40];

	snprintf(what, sizeof(what), "--%s", cli_opts[o].name);
	return cli_size_text(cl, what, cl->values[o], bytes);
}

int cli_duration_text(const struct cli *cl, const char *what, const char *text)
{
	uint64_t ns;
	char q[72];

	if (duration_parse(text, &ns) == 0)
		return 0;
	return cli_usage(cl, "%s is not a duration: '%s' (write 0, 30s, 5m, 1h or forever)", what, control_name_quote(text, q, sizeof(q)));
}

int cli_count(const struct cli *cl, enum cli_opt o, uint64_t min, uint64_t max, uint64_t *n)
{
	const char *text = cl->values[o];
	char *end, q[72];
	unsigned long long v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || errno || v < min || v > max)
		return cli_usage(cl, "--%s must be a number from %llu to %llu, not '%s'", cli_opts[o].name,
				 (unsigned long long)min, (unsigned long long)max, control_name_quote(text, q, sizeof(q)));
	*n = v;
	return 0;
}

json_t *cli_path_json(const char *path)
{
	char *cwd;
	json_t *j;

	if (*path == '/' || disk_path_is_uri(path) || !(cwd = getcwd(NULL, 0)))
		return json_string(path);
	while (path[0] == '.' && path[1] == '/')
		path += 2;
	j = json_sprintf("%s/%s", cwd, path);
	free(cwd);
	return j;
}

void cli_print_json(const json_t *j)
{
	json_dumpf(j, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
	fputc('\n', stdout);
}

/* ---- parsing ---- */

#define LONG_BASE 1000

/* `serve --iscsi ADDR`, but `export add VOLUME --iscsi`. */
static bool takes_value(unsigned o, int argc, char **argv)
{
	int i;

	for (i = 1; o == OPT_ISCSI && i < argc; i++)
		if (!strcmp(argv[i], "export"))
			return false;
	return cli_opts[o].arg;
}

static void getopt_tables(struct option *longs, char *shorts, int argc, char **argv)
{
	unsigned i;

	*shorts++ = ':';
	for (i = 0; i < OPT_COUNT; i++) {
		longs[i] = (struct option){ cli_opts[i].name, takes_value(i, argc, argv) ? required_argument : no_argument, NULL, (int)(LONG_BASE + i) };
		if (!cli_opts[i].letter)
			continue;
		*shorts++ = cli_opts[i].letter;
		if (cli_opts[i].arg)
			*shorts++ = ':';
	}
	*shorts = '\0';
	memset(&longs[OPT_COUNT], 0, sizeof(longs[0]));
}

static int option_find(int ch)
{
	int i;

	if (ch >= LONG_BASE)
		return ch - LONG_BASE;
	for (i = 0; i < OPT_COUNT; i++)
		if (cli_opts[i].letter == ch)
			return i;
	return -1;
}

static int option_bad(int ch, char **argv)
{
	char q[72];

	if (ch == ':') {
		int o = option_find(optopt);

		return cli_usage(NULL, "option --%s needs a value (%s)", o < 0 ? "?" : cli_opts[o].name,
				 o < 0 ? "?" : cli_opts[o].arg);
	}
	if (optopt >= '0' && optopt <= '9')
		return cli_usage(NULL, "a size or number must not be negative");
	if (optopt >= LONG_BASE)
		return cli_usage(NULL, "option --%s takes no value", cli_opts[optopt - LONG_BASE].name);
	if (optopt)
		return cli_usage(NULL, "there is no option -%c", optopt > 0x20 && optopt < 0x7f ? optopt : '?');
	return cli_usage(NULL, "there is no option %s, or it is ambiguous", control_name_quote(argv[optind - 1], q, sizeof(q)));
}

/* Where all values of a repeatable option are kept; NULL: it is none. */
static struct cli_many *many_of(struct cli *cl, int o)
{
	switch (o) {
	case OPT_NBD:
		return &cl->nbd;
	case OPT_TLS_ALLOW:
		return &cl->tls_allow;
	case OPT_ALLOW:
		return &cl->allow;
	case OPT_ISCSI:
		return &cl->iscsi;
	case OPT_INITIATOR:
		return &cl->initiator;
	default:
		return NULL;
	}
}

static int options_parse(struct cli *cl, int argc, char **argv)
{
	struct option longs[OPT_COUNT + 1];
	char shorts[2 * OPT_COUNT + 2];
	struct cli_many *many;
	int ch, o;

	getopt_tables(longs, shorts, argc, argv);
	opterr = 0;
	while ((ch = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		if (ch == '?' || ch == ':')
			return option_bad(ch, argv);
		o = option_find(ch);
		CHECK(o >= 0);
		cl->given |= 1ULL << o;
		cl->values[o] = optarg;
		many = many_of(cl, o);
		if (!many)
			continue;
		if (many->n == CLI_MANY_MAX)
			return cli_usage(cl, "--%s can be given %d times at most", cli_opts[o].name, CLI_MANY_MAX);
		many->v[many->n++] = optarg;
	}
	cl->operands = argv + optind;
	cl->n_operands = argc - optind;
	return 0;
}

static bool is_verb(const struct cli_command *c, const char *word)
{
	const char *s, *end;

	if (!strcmp(c->verb, word))
		return true;
	for (s = c->alias; s && *s; s = *end ? end + 1 : end) {
		end = strchrnul(s, ' ');
		if (strlen(word) == (size_t)(end - s) && !strncmp(s, word, (size_t)(end - s)))
			return true;
	}
	return false;
}

static bool is_group(const char *word)
{
	const struct cli_command *c;
	size_t i;

	for (i = 0; cli_command_tables[i]; i++)
		for (c = cli_command_tables[i]; c->verb; c++)
			if (c->group && !strcmp(c->group, word))
				return true;
	return false;
}

static const struct cli_command *command_find(const char *group, const char *verb)
{
	const struct cli_command *c;
	size_t i;

	for (i = 0; cli_command_tables[i]; i++)
		for (c = cli_command_tables[i]; c->verb; c++)
			if ((!group && !c->group && is_verb(c, verb)) ||
			    (group && c->group && !strcmp(c->group, group) && is_verb(c, verb)))
				return c;
	return NULL;
}

/* Takes the words of the command off the operands. */
int cli_command_take(struct cli *cl)
{
	char q[72], q2[72];
	int words = 1;

	if (cl->n_operands == 0)
		return cli_usage(cl, "no command given");
	if (is_group(cl->operands[0])) {
		if (cl->n_operands == 1)
			return cli_usage(cl, "`ashlar %s` needs a verb", cl->operands[0]);
		cl->cmd = command_find(cl->operands[0], cl->operands[1]);
		words = 2;
	} else {
		cl->cmd = command_find(NULL, cl->operands[0]);
	}
	if (!cl->cmd)
		return cli_usage(cl, "there is no command `%s%s%s`", control_name_quote(cl->operands[0], q, sizeof(q)), words == 2 ? " " : "",
				 words == 2 ? control_name_quote(cl->operands[1], q2, sizeof(q2)) : "");
	cl->operands += words;
	cl->n_operands -= words;
	return 0;
}

uint64_t cli_command_opts(const struct cli_command *c)
{
	return c->opts | OPT(HELP) | (c->opts & OPT(CONTROL) ? OPT(IO) : 0);
}

static int command_check(struct cli *cl)
{
	const struct cli_command *c = cl->cmd;
	uint64_t wrong = cl->given & ~cli_command_opts(c);
	char q[72];
	int i;

	for (i = 0; i < OPT_COUNT; i++)
		if (wrong & (1ULL << i))
			return cli_usage(cl, "`ashlar %s%s%s` has no option --%s", c->group ? c->group : "", c->group ? " " : "", c->verb,
					 cli_opts[i].name);
	if (cl->n_operands < c->min_operands)
		return cli_usage(cl, "something is missing: the form is `ashlar %s%s%s %s`", c->group ? c->group : "",
				 c->group ? " " : "", c->verb, c->operands);
	if (c->max_operands >= 0 && cl->n_operands > c->max_operands)
		return cli_usage(cl, "'%s' is too much: the form is `ashlar %s%s%s %s`",
				 control_name_quote(cl->operands[c->max_operands], q, sizeof(q)), c->group ? c->group : "", c->group ? " " : "",
				 c->verb, c->operands);
	return 0;
}

static int cli_run(int argc, char **argv)
{
	struct cli cl = { 0 };
	int r = options_parse(&cl, argc, argv);

	if (r)
		return r;
	if (cli_has(&cl, OPT_HELP)) {
		if (cl.n_operands == 0)
			cli_help_overview();
		else if (cl.n_operands == 1 && cli_help_group(cl.operands[0]))
			;
		else if (cli_command_take(&cl))
			return CLI_USAGE;
		else
			cli_help_command(cl.cmd);
		return CLI_OK;
	}
	r = cli_command_take(&cl);
	if (r == 0)
		r = command_check(&cl);
	return r ? r : cl.cmd->run(&cl);
}

int cli_main(int argc, char **argv)
{
	char *version[] = { argv[0], "version", NULL };
	int r;

	/* Only character types: numbers keep their point. */
	setlocale(LC_CTYPE, "");
	if (argc == 2 && (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")))
		r = cli_run(2, version);
	else
		r = cli_run(argc, argv);
	if (fflush(stdout) || ferror(stdout))
		return cli_failf("cannot write the output: %s", strerror(errno));
	return r;
}
