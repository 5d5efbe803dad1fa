#include <stdio.h>
#include <string.h>

#include "frontends/cli/cli.h"
#include "frontends/cli/table.h"

const struct opt_desc cli_opts[OPT_COUNT] = {
	[OPT_HELP] = { "help", 'h', NULL, "show this and stop" },
	[OPT_CONTROL] = { "control", 0, "SOCK", "control socket of the daemon" },
	[OPT_JSON] = { "json", 0, NULL, "print JSON" },
	[OPT_NO_HEADINGS] = { "no-headings", 'H', NULL, "no headings, fields separated by single tabs" },
	[OPT_PARSABLE] = { "parsable", 'p', NULL, "exact numbers of bytes" },
	[OPT_COLUMNS] = { "columns", 'o', "COLUMN[,COLUMN]", "which columns to show; \"all\" for every one" },
	[OPT_SORT] = { "sort", 0, "COLUMN", "sort by a column; with '-' before it, downwards" },
	[OPT_DRY_RUN] = { "dry-run", 'n', NULL, "check everything, say what would happen, change nothing" },
	[OPT_FORCE] = { "force", 'f', NULL, "do it although it destroys something" },
	[OPT_WAIT] = { "wait", 'w', NULL, "return when it is done; without a daemon always" },
	[OPT_LAYOUT] = { "layout", 0, "LAYOUT", "single, raid0, raid1, raid1-3, raid10, raid10-3, raid5 or raid6" },
	[OPT_CLUSTER] = { "cluster", 0, "SIZE", "unit of thin allocation; default 64K" },
	[OPT_GROUP] = { "group", 0, "SIZE", "logical size of a group; default by the disks' size" },
	[OPT_SERVE] = { "serve", 0, NULL, "have the running daemon make the pool and serve it" },
	[OPT_SIZE] = { "size", 's', "SIZE", "512M, 10G, 1.5T: powers of 1024" },
	[OPT_FULL_WAIT] = { "full-wait", 0, "TIME", "how long writes wait for space when the pool is full: 0, 30s, 5m, forever" },
	[OPT_NAME] = { "name", 0, "NAME", "name under which clients find it" },
	[OPT_READ_ONLY] = { "read-only", 'r', NULL, "refuse writes" },
	[OPT_DATA] = { "data", 0, NULL, "compare the copies of all allocated data too" },
	[OPT_NBD] = { "nbd", 0, "ADDR", "serve NBD on unix:PATH or HOST:PORT; may be repeated" },
	[OPT_REACTORS] = { "reactors", 0, "N", "threads; default one per CPU" },
	[OPT_METADATA_CACHE] = { "metadata-cache", 0, "SIZE", "memory for metadata pages of all pools; default 256M" },
	[OPT_INSECURE] = { "insecure", 0, NULL, "let clients of other hosts in without TLS" },
	[OPT_REPAIR] = { "repair", 0, NULL, "rewrite what differs" },
	[OPT_FOLLOW] = { "follow", 0, NULL, "go on with what happens from now on" },
	[OPT_SNAPSHOTS] = { "snapshots", 0, NULL, "with all its snapshots" },
	[OPT_EVERY] = { "every", 0, "TIME", "how often a snapshot is taken: 15m, 1h, 24h" },
	[OPT_KEEP] = { "keep", 0, "N", "how many of those are kept" },
	[OPT_TLS] = { "tls", 0, "off|on|require", "TLS for clients that ask for it, or for all; default on if there are keys" },
	[OPT_TLS_CERTS] = { "tls-certificates", 0, "DIR", "directory of ca-cert.pem and server-cert.pem, server-key.pem (or client-...)" },
	[OPT_TLS_PSK] = { "tls-psk", 0, "FILE", "pre-shared keys: lines of NAME:HEXKEY" },
	[OPT_TLS_VERIFY] = { "tls-verify-peer", 0, NULL, "clients show a certificate that ca-cert.pem has signed" },
	[OPT_TLS_ALLOW] = { "tls-allow", 0, "NAME", "only TLS clients of this name (of certificate or key); may be repeated" },
	[OPT_ALLOW] = { "allow", 0, "RULE", "only such clients: tls:NAME, uid:N, gid:N, addr:A/BITS; may be repeated; any: all" },
	[OPT_MAX_CONNECTIONS] = { "max-connections", 0, "N", "at most so many clients at a time; 0: no limit" },
	[OPT_WRITABLE] = { "writable", 0, NULL, "allow writes" },
	[OPT_FORMAT] = { "format", 0, "FORMAT", "qemu, libvirt, nbd-client or fio; of iSCSI: iscsiadm, libvirt-iscsi or esxi" },
	[OPT_ISCSI] = { "iscsi", 0, "HOST:PORT", "serve iSCSI there (the usual port is 3260); may be repeated. Of exports: iSCSI, not NBD" },
	[OPT_IQN] = { "iqn", 0, "NAME", "name of the iSCSI target, iqn.YYYY-MM.DOMAIN:NAME; default made of pool and volume" },
	[OPT_LUN] = { "lun", 0, "N", "its number in the target; default the lowest that is free" },
	[OPT_INITIATOR] = { "initiator", 0, "NAME", "only for the iSCSI initiator of this name; may be repeated" },
	[OPT_CHAP_USER] = { "chap-user", 0, "NAME", "initiators prove by CHAP that they are NAME" },
	[OPT_CHAP_SECRET_FILE] = { "chap-secret-file", 0, "FILE", "file with the secret for that in its first line, 12 to 100 bytes; - is standard input" },
	[OPT_MUTUAL_USER] = { "mutual-user", 0, "NAME", "the target proves, to initiators that ask, that it is NAME" },
	[OPT_MUTUAL_SECRET_FILE] = { "mutual-secret-file", 0, "FILE", "file with the secret for that, another one" },
	[OPT_USER] = { "user", 0, "NAME", "name of the client's pre-shared key" },
	[OPT_OFF] = { "off", 0, NULL, "take no more" },
	[OPT_IOPS] = { "iops", 0, "N", "at most so many reads and writes per second; none: no limit" },
	[OPT_BPS] = { "bps", 0, "SIZE", "at most so many bytes per second; none: no limit" },
	[OPT_BURST_IOPS] = { "burst-iops", 0, "N", "so many after a rest, for --burst-seconds; none: no more than --iops" },
	[OPT_BURST_BPS] = { "burst-bps", 0, "SIZE", "so many bytes after a rest, likewise" },
	[OPT_BURST_SECONDS] = { "burst-seconds", 0, "N", "how long a burst lasts; default 60" },
	[OPT_FROM] = { "from", 0, "WHAT", "what it begins with; send: a snapshot that the other side has; volume create: a source" },
	[OPT_RESUME] = { "resume", 0, "TOKEN", "go on with a stream that was cut; `ashlar receive` has said the token" },
	[OPT_NO_RESUME] = { "no-resume", 0, NULL, "keep nothing of a stream that is cut" },
	[OPT_ABORT] = { "abort", 0, NULL, "drop what is kept of a stream that was cut" },
	[OPT_LIST] = { "list", 0, NULL, "list what is kept of streams that were cut" },
	[OPT_PROGRESS] = { "progress", 0, NULL, "show how far it is, also if standard error is no terminal" },
	[OPT_IO] = { "io", 0, "uring|aio|auto", "how disks opened by this command are read and written; see `ashlar serve --help`" },
	[OPT_SINCE] = { "since", 0, "NUMBER", "only what came after the event of this number" },
};

void cli_help_overview(void)
{
	const struct cli_command *c;
	char form[80];
	size_t i;

	printf("ashlar pools disks, carves thin volumes out of the pool and serves them over NBD and iSCSI.\n\nCommands:\n");
	for (i = 0; cli_command_tables[i]; i++) {
		for (c = cli_command_tables[i]; c->verb; c++) {
			snprintf(form, sizeof(form), "%s%s%s %s", c->group ? c->group : "", c->group ? " " : "", c->verb, c->operands);
			printf("  ashlar %-43s %s\n", form, c->summary);
		}
	}
	printf("\n`ashlar COMMAND --help` tells more about each. Options may stand anywhere.\n\n"
	       "Environment:\n"
	       "  ASHLAR_CONTROL  control socket of the daemon (default: ashlar.sock in $XDG_RUNTIME_DIR,\n"
	       "                  /run/ashlar/control.sock for root)\n"
	       "  ASHLAR_DISKS    where to look for disks when no daemon holds the pool: files, devices and\n"
	       "                  directories, separated by colons, and URIs of NBD exports, ended by\n"
	       "                  white space (default: all block devices)\n"
	       "  ASHLAR_IO       what --io says (default: auto)\n"
	       "  ASHLAR_KEEP_DIR where a pool that is open keeps what a killed process must not lose (/dev/shm)\n\n"
	       "Exit status: 0 done, 1 refused or failed, 2 wrong usage.\n");
}

bool cli_help_group(const char *group)
{
	const struct cli_command *c;
	bool found = false;
	char form[80];
	size_t i;

	for (i = 0; cli_command_tables[i]; i++) {
		for (c = cli_command_tables[i]; c->verb; c++) {
			if (!c->group || strcmp(c->group, group))
				continue;
			found = true;
			snprintf(form, sizeof(form), "%s %s %s", c->group, c->verb, c->operands);
			printf("  ashlar %-43s %s\n", form, c->summary);
		}
	}
	return found;
}

static void help_columns(const struct table *t)
{
	size_t i;

	printf("\nColumns (shown without -o: *):\n ");
	for (i = 0; i < t->n_columns; i++)
		printf(" %s%s", t->columns[i].name, t->columns[i].is_shown ? "*" : "");
	printf("\n");
}

void cli_help_command(const struct cli_command *c)
{
	uint64_t opts = cli_command_opts(c);
	unsigned i;

	printf("ashlar %s%s%s %s\n\n%s.\n", c->group ? c->group : "", c->group ? " " : "", c->verb, c->operands, c->summary);
	if (c->details)
		printf("\n%s\n", c->details);
	if (c->alias)
		printf("\nAlso as: %s\n", c->alias);
	printf("\nOptions:\n");
	for (i = 0; i < OPT_COUNT; i++) {
		const struct opt_desc *o = &cli_opts[i];
		char form[64], letter[8] = "    ";

		if (!(opts & (1ULL << i)))
			continue;
		if (o->letter)
			snprintf(letter, sizeof(letter), "-%c, ", o->letter);
		snprintf(form, sizeof(form), "%s--%s %s", letter, o->name, o->arg ? o->arg : "");
		printf("  %-30s %s\n", form, o->help);
	}
	if (c->table)
		help_columns(c->table);
}
