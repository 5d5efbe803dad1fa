/*
 * SendTargets: the names that this initiator may see, with the address that it has come to.
 */
#include <stdio.h>

#include "frontends/iscsi/conn.h"

static bool is_first_of_target(const struct iscsi_conn *c, size_t i)
{
	size_t k;

	for (k = 0; k < i; k++)
		if (!strcmp(c->rules[k].target, c->rules[i].target))
			return false;
	return true;
}

int iscsi_send_targets_add(struct iscsi_conn *c, const char *what, struct iscsi_text *out)
{
	bool all = !strcmp(what, "All");
	size_t i;

	if (all ? !c->is_discovery : !*what && c->is_discovery)
		return -EINVAL;
	if (!all && *what && !iscsi_name_is_valid(what))
		return -EINVAL;
	for (i = 0; i < c->n_rules; i++) {
		if ((!all && *what && strcmp(what, c->rules[i].target)) || !is_first_of_target(c, i))
			continue;
		iscsi_text_put(out, "TargetName", c->rules[i].target);
		if (*c->net.st->local)
			iscsi_text_putf(out, "TargetAddress", "%s,%u", c->net.st->local, ISCSI_TPGT);
	}
	return 0;
}
