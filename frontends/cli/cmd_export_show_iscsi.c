/*
 * `ashlar export show --format`: what an iSCSI initiator needs to reach a LUN. Secrets are not shown: there is a place for them.
 */
#include <stdio.h>
#include <string.h>

#include "frontends/cli/export.h"
#include "frontends/cli/serve.h"

struct lun {
	char host[256]; /* IPv6 in brackets */
	const char *port, *target, *user, *mutual;
	long long lun;
	const json_t *initiators;
	bool read_only;
};

static void put_xml(const char *text)
{
	for (; *text; text++) {
		if (strchr("&<>'\"", *text))
			printf("&#%u;", (unsigned char)*text);
		else
			putchar(*text);
	}
}

/* For people: whom it is for. */
static void put_who(const struct lun *l, const char *comment)
{
	const json_t *name;
	size_t i;

	json_array_foreach((json_t *)(uintptr_t)l->initiators, i, name)
		printf("%sonly for the initiator %s\n", comment, json_string_value(name));
}

static void show_iscsiadm(const struct lun *l)
{
	put_who(l, "# /etc/iscsi/initiatorname.iscsi: ");
	printf("iscsiadm -m discovery -t sendtargets -p %s:%s\n", l->host, l->port);
	if (l->user) {
		printf("iscsiadm -m node -T '%s' -p %s:%s -o update -n node.session.auth.authmethod -v CHAP -n node.session.auth.username -v '%s' "
		       "-n node.session.auth.password -v SECRET\n", l->target, l->host, l->port, l->user);
		if (l->mutual)
			printf("iscsiadm -m node -T '%s' -p %s:%s -o update -n node.session.auth.username_in -v '%s' -n node.session.auth.password_in "
			       "-v MUTUAL_SECRET\n", l->target, l->host, l->port, l->mutual);
	}
	printf("iscsiadm -m node -T '%s' -p %s:%s --login    # LUN %lld\n", l->target, l->host, l->port, l->lun);
}

static void show_libvirt(const struct lun *l)
{
	printf("<disk type='network' device='disk'>\n  <driver name='qemu' type='raw' cache='none'%s/>\n  <source protocol='iscsi' name='",
	       l->read_only ? "" : " discard='unmap'");
	put_xml(l->target);
	printf("/%lld'>\n    <host name='", l->lun);
	if (*l->host == '[')
		printf("%.*s", (int)strlen(l->host) - 2, l->host + 1);
	else
		put_xml(l->host);
	printf("' port='%s'/>\n", l->port);
	if (l->user) {
		printf("    <auth username='");
		put_xml(l->user);
		printf("'>\n      <secret type='iscsi' usage='");
		put_xml(l->target);
		printf("'/>\n    </auth>\n");
	}
	if (json_array_size(l->initiators)) {
		printf("    <initiator>\n      <iqn name='");
		put_xml(json_string_value(json_array_get(l->initiators, 0)));
		printf("'/>\n    </initiator>\n");
	}
	printf("  </source>\n  <target dev='vdb' bus='virtio'/>\n%s</disk>\n", l->read_only ? "  <readonly/>\n" : "");
}

static void show_esxi(const struct lun *l)
{
	put_who(l, "# esxcli iscsi adapter set --name: ");
	printf("esxcli iscsi adapter discovery sendtarget add --adapter=vmhba64 --address=%s:%s\n", l->host, l->port);
	if (l->user)
		printf("esxcli iscsi adapter target portal auth chap set --adapter=vmhba64 --address=%s:%s --name='%s' --direction=uni --level=required "
		       "--authname='%s' --secret=SECRET\n", l->host, l->port, l->target, l->user);
	if (l->user && l->mutual)
		printf("esxcli iscsi adapter target portal auth chap set --adapter=vmhba64 --address=%s:%s --name='%s' --direction=mutual "
		       "--level=required --authname='%s' --secret=MUTUAL_SECRET\n", l->host, l->port, l->target, l->mutual);
	printf("esxcli storage core adapter rescan --adapter=vmhba64    # LUN %lld\n", l->lun);
}

static const struct {
	const char *name;
	void (*show)(const struct lun *l);
} formats[] = {
	{ "iscsiadm", show_iscsiadm },
	{ "libvirt-iscsi", show_libvirt },
	{ "esxi", show_esxi },
};

static int format_find(const char *format)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(formats); i++)
		if (!strcmp(formats[i].name, format))
			return (int)i;
	return -1;
}

bool cli_iscsi_format_is_known(const char *format)
{
	return format_find(format) >= 0;
}

int cli_iscsi_format_show(struct cli *cl, const char *format, const json_t *status, const json_t *row)
{
	const char *addr = json_string_value(json_array_get(json_object_get(status, "iscsi"), 0)), *colon;
	const json_t *luns = json_object_get(row, "iscsi"), *x;
	char host[256], name[256];
	struct lun l = { 0 };
	size_t i;

	if (!json_array_size(luns))
		return cli_failf("%s is not exported by iSCSI: `ashlar export add %s --iscsi`", cl->operands[0], cl->operands[0]);
	if (!addr)
		return cli_failf("the daemon does not serve iSCSI: start it with --iscsi HOST:PORT");
	colon = strrchr(addr, ':');
	l.port = colon + 1;
	snprintf(host, sizeof(host), "%.*s", (int)(colon - addr), addr);
	snprintf(l.host, sizeof(l.host), "%s", cli_addr_host(host, name, sizeof(name)));
	json_array_foreach((json_t *)(uintptr_t)luns, i, x) {
		l.target = json_string_value(json_object_get(x, "target"));
		l.lun = json_integer_value(json_object_get(x, "lun"));
		l.user = json_string_value(json_object_get(x, "chap_user"));
		l.mutual = json_string_value(json_object_get(x, "mutual_user"));
		l.initiators = json_object_get(x, "initiators");
		l.read_only = json_is_true(json_object_get(x, "read_only")) || json_is_true(json_object_get(row, "read_only"));
		formats[format_find(format)].show(&l);
	}
	return CLI_OK;
}
