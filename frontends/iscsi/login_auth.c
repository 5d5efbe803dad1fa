/*
 * Who is it, and what may he see? The rules for the initiator's name are looked up first; those that have a secret stay his only
 * if he proves that he knows it. A target that is not there, and one that is not for him, look the same.
 */
#include <stdio.h>

#include "frontends/iscsi/login.h"

/* ---- names ---- */

static bool name_take(const char *value, char *out)
{
	size_t i;

	if (strlen(value) > ISCSI_NAME_MAX)
		return false;
	for (i = 0; value[i]; i++)
		out[i] = value[i] >= 'A' && value[i] <= 'Z' ? (char)(value[i] + 32) : value[i];
	out[i] = '\0';
	return iscsi_name_is_valid(out);
}

static int replace_list(char **list, const char *value)
{
	xfree(*list);
	*list = xstrdup(value);
	return 1;
}

int login_auth_key(struct login *l, const char *key, const char *value)
{
	struct iscsi_conn *c = l->c;
	bool is_name = !strcmp(key, "InitiatorName") || !strcmp(key, "TargetName") || !strcmp(key, "SessionType");

	if (is_name && l->is_named)
		return login_fail(l, ISCSI_LOGIN_INITIATOR_ERROR);
	if (!strcmp(key, "InitiatorName")) {
		l->has_initiator = true;
		l->bad_name |= !name_take(value, c->initiator);
		return 1;
	}
	if (!strcmp(key, "TargetName")) {
		l->has_target = true;
		if (!name_take(value, c->target))
			c->target[0] = '\0'; /* there is none of such a name */
		return 1;
	}
	if (!strcmp(key, "SessionType")) {
		c->is_discovery = !strcmp(value, "Discovery");
		l->bad_session_type = !c->is_discovery && strcmp(value, "Normal");
		return 1;
	}
	if (!strcmp(key, "InitiatorAlias") || !strcmp(key, "X-com.microsoft.NodeName"))
		return 1;
	if (!strcmp(key, "AuthMethod") && l->stage == ISCSI_STAGE_SECURITY && l->auth == AUTH_OPEN)
		return replace_list(&l->auth_list, value);
	if (!strcmp(key, "CHAP_A") && l->auth == AUTH_CHAP_START)
		return replace_list(&l->chap_list, value);
	if (l->auth == AUTH_CHAP_ASKED) {
		int r = iscsi_chap_key(l->chap, key, value);

		return r < 0 ? login_fail(l, ISCSI_LOGIN_AUTH_FAILED) : r;
	}
	if (!strcmp(key, "AuthMethod") || !strncmp(key, "CHAP_", 5))
		return login_fail(l, ISCSI_LOGIN_INITIATOR_ERROR);
	return 0;
}

int login_co_name(struct login *l)
{
	struct iscsi_conn *c = l->c;
	const struct iscsi_provider *p = &c->srv->p;
	int r;

	if (!l->has_initiator || (!c->is_discovery && !l->has_target))
		return login_fail(l, ISCSI_LOGIN_MISSING);
	if (l->bad_session_type)
		return login_fail(l, ISCSI_LOGIN_BAD_SESSION_TYPE);
	if (l->bad_name)
		return login_fail(l, ISCSI_LOGIN_INITIATOR_ERROR);
	if (c->is_discovery)
		c->target[0] = '\0';
	r = p->co_rules(p->arg, c->initiator, c->is_discovery ? NULL : c->target, &c->rules, &c->n_rules);
	if (r < 0)
		return login_fail(l, ISCSI_LOGIN_TARGET_ERROR);
	if (!c->is_discovery && !c->n_rules)
		return login_fail(l, ISCSI_LOGIN_NOT_FOUND);
	l->is_named = true;
	if (!c->is_discovery)
		iscsi_text_putf(&l->out, "TargetPortalGroupTag", "%u", ISCSI_TPGT);
	return 0;
}

/* ---- methods ---- */

static unsigned count_protected(const struct iscsi_conn *c)
{
	unsigned n = 0;
	size_t i;

	for (i = 0; i < c->n_rules; i++)
		n += *c->rules[i].chap.user != '\0';
	return n;
}

/* Somebody who proves nothing gets what asks for nothing; of targets, their names. */
static bool may_go_without(const struct iscsi_conn *c)
{
	return c->is_discovery || count_protected(c) < c->n_rules;
}

static int method_choose(struct login *l)
{
	struct iscsi_conn *c = l->c;
	bool chap = iscsi_text_list_has(l->auth_list, "CHAP"), none = iscsi_text_list_has(l->auth_list, "None");

	if (chap && count_protected(c) && !(none && c->is_discovery)) {
		l->auth = AUTH_CHAP_START;
		iscsi_text_put(&l->out, "AuthMethod", "CHAP");
		return 0;
	}
	if (!none || !may_go_without(c))
		return login_fail(l, ISCSI_LOGIN_AUTH_FAILED);
	l->auth = AUTH_NONE;
	iscsi_text_put(&l->out, "AuthMethod", "None");
	return 0;
}

/* ---- CHAP ---- */

static int chap_ask(struct login *l)
{
	l->chap = iscsi_chap_new(l->c->srv->net.world);
	if (!iscsi_chap_choose(l->chap, l->chap_list))
		return login_fail(l, ISCSI_LOGIN_AUTH_FAILED);
	iscsi_chap_challenge(l->chap, &l->out);
	l->auth = AUTH_CHAP_ASKED;
	return 0;
}

/* The rules that he has shown to have the secret of come first. Each is tried, so that time tells nothing. */
static size_t rules_prove(struct login *l)
{
	struct iscsi_conn *c = l->c;
	struct iscsi_rule swap;
	size_t i, n = 0;

	for (i = 0; i < c->n_rules; i++) {
		if (!iscsi_chap_verify(l->chap, &c->rules[i].chap))
			continue;
		swap = c->rules[n];
		c->rules[n++] = c->rules[i];
		c->rules[i] = swap;
	}
	return n;
}

static int chap_answered(struct login *l)
{
	struct iscsi_conn *c = l->c;
	size_t n = rules_prove(l), i;

	if (!n)
		return login_fail(l, ISCSI_LOGIN_AUTH_FAILED);
	l->auth = AUTH_CHAP_DONE;
	if (iscsi_chap_wants_mutual(l->chap)) {
		for (i = 0; i < n && !*c->rules[i].mutual.user; i++)
			;
		if (i == n || iscsi_chap_prove(l->chap, &c->rules[i].mutual, &c->rules[i].chap, &l->out) < 0)
			return login_fail(l, ISCSI_LOGIN_AUTH_FAILED);
	}
	for (i = n; i < c->n_rules; i++)
		if (!*c->rules[i].chap.user)
			c->rules[n++] = c->rules[i];
	c->n_rules = n;
	return 0;
}

int login_auth_step(struct login *l)
{
	switch (l->auth) {
	case AUTH_OPEN:
		return l->auth_list ? method_choose(l) : 0;
	case AUTH_CHAP_START:
		return l->chap_list ? chap_ask(l) : 0;
	case AUTH_CHAP_ASKED:
		if (!iscsi_chap_is_answered(l->chap))
			return login_fail(l, ISCSI_LOGIN_AUTH_FAILED);
		return chap_answered(l);
	default:
		return 0;
	}
}

bool login_auth_is_done(const struct login *l)
{
	return l->auth == AUTH_CHAP_DONE || ((l->auth == AUTH_NONE || l->auth == AUTH_OPEN) && may_go_without(l->c));
}

void login_auth_end(struct login *l)
{
	struct iscsi_conn *c = l->c;
	size_t i, n = 0;

	if (l->auth == AUTH_CHAP_DONE || c->is_discovery) /* of targets, anybody learns the names */
		return;
	for (i = 0; i < c->n_rules; i++)
		if (!*c->rules[i].chap.user)
			c->rules[n++] = c->rules[i];
	c->n_rules = n;
}
