/*
 * The notes: lines of key=value, an empty line behind each export. Then the commands on them, and what they mean for who logs in.
 */
#include "frontends/iscsi/exports.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "frontends/iscsi/text.h"

#define NOTE_HEAD "ashlar-iscsi 1\n"

/* ---- the note ---- */

static void export_fini(struct iscsi_export *x)
{
	xfree(x->initiators);
	x->initiators = NULL;
	x->n_initiators = 0;
}

void iscsi_exports_free(struct iscsi_export *v, size_t n)
{
	size_t i;

	for (i = 0; i < n; i++)
		export_fini(&v[i]);
	xfree(v);
}

static bool name_copy(const char *value, char out[224])
{
	if (!iscsi_name_is_valid(value))
		return false;
	memcpy(out, value, strlen(value) + 1);
	return true;
}

static bool user_copy(const char *value, struct iscsi_secret *s)
{
	if (!*value || strlen(value) > ISCSI_USER_MAX)
		return false;
	memcpy(s->user, value, strlen(value) + 1);
	return true;
}

static bool secret_copy(const char *value, struct iscsi_secret *s)
{
	size_t len;

	if (iscsi_text_binary(value, s->bytes, sizeof(s->bytes), &len) < 0)
		return false;
	s->len = (uint8_t)len;
	return true;
}

static bool initiator_add(struct iscsi_export *x, const char *value)
{
	if (x->n_initiators == ISCSI_INITIATORS_MAX)
		return false;
	x->initiators = xrealloc(x->initiators, (x->n_initiators + 1) * sizeof(*x->initiators));
	return name_copy(value, x->initiators[x->n_initiators]) && ++x->n_initiators;
}

static bool line_take(struct iscsi_export *x, const char *key, const char *value)
{
	uint64_t n;

	if (!strcmp(key, "target"))
		return name_copy(value, x->target);
	if (!strcmp(key, "lun")) {
		if (!iscsi_text_number(value, 0, ISCSI_LUN_MAX, &n))
			return false;
		x->lun = (uint16_t)n;
		return true;
	}
	if (!strcmp(key, "read-only"))
		return iscsi_text_bool(value, &x->read_only);
	if (!strcmp(key, "initiator"))
		return initiator_add(x, value);
	if (!strcmp(key, "chap-user"))
		return user_copy(value, &x->chap);
	if (!strcmp(key, "chap-secret"))
		return secret_copy(value, &x->chap);
	if (!strcmp(key, "mutual-user"))
		return user_copy(value, &x->mutual);
	return !strcmp(key, "mutual-secret") && secret_copy(value, &x->mutual);
}

static bool export_is_whole(const struct iscsi_export *x)
{
	return *x->target && !*x->chap.user == !x->chap.len && !*x->mutual.user == !x->mutual.len && (*x->chap.user || !*x->mutual.user);
}

/* One export's lines from *p on. */
static bool export_take(char **p, struct iscsi_export *x)
{
	char *end, *value;

	for (; **p && **p != '\n'; *p = end + 1) {
		end = strchr(*p, '\n');
		value = end ? memchr(*p, '=', (size_t)(end - *p)) : NULL;
		if (!value)
			return false;
		*end = *value++ = '\0';
		if (!line_take(x, *p, value))
			return false;
	}
	if (**p)
		++*p;
	return export_is_whole(x);
}

int iscsi_exports_parse(const void *note, size_t len, struct iscsi_export **out, size_t *n)
{
	char *text = xmalloc(len + 1), *p = text;
	int r = 0;

	*out = NULL;
	*n = 0;
	if (len)
		memcpy(text, note, len);
	text[len] = '\0';
	if (len && (strlen(text) != len || strncmp(text, NOTE_HEAD, strlen(NOTE_HEAD))))
		r = -EINVAL;
	else if (len)
		p += strlen(NOTE_HEAD);
	while (r == 0 && *p) {
		if (*n == ISCSI_EXPORTS_MAX) {
			r = -EINVAL;
			break;
		}
		*out = xrealloc(*out, (*n + 1) * sizeof(**out));
		memset(&(*out)[*n], 0, sizeof(**out));
		r = export_take(&p, &(*out)[(*n)++]) ? 0 : -EINVAL;
	}
	memset(text, 0, len);
	xfree(text);
	if (r == 0)
		return 0;
	iscsi_exports_free(*out, *n);
	*out = NULL;
	*n = 0;
	return r;
}

struct note_text {
	char *p;
	size_t len, cap;
};

static void put(struct note_text *t, const char *text)
{
	size_t n = strlen(text);

	if (t->len + n + 1 > t->cap) {
		t->cap = 2 * t->cap + n + 1024;
		t->p = xrealloc(t->p, t->cap);
	}
	memcpy(t->p + t->len, text, n + 1);
	t->len += n;
}

static void put_line(struct note_text *t, const char *key, const char *value)
{
	put(t, key);
	put(t, "=");
	put(t, value);
	put(t, "\n");
}

static void put_secret(struct note_text *t, const char *user_key, const char *secret_key, const struct iscsi_secret *s)
{
	char hex[2 * ISCSI_SECRET_MAX + 3];

	if (!*s->user)
		return;
	put_line(t, user_key, s->user);
	iscsi_text_hex(s->bytes, s->len, hex);
	put_line(t, secret_key, hex);
}

void *iscsi_exports_format(const struct iscsi_export *v, size_t n, size_t *len)
{
	struct note_text t = { 0 };
	char number[16];
	unsigned k;
	size_t i;

	if (n)
		put(&t, NOTE_HEAD);
	for (i = 0; i < n; i++) {
		put_line(&t, "target", v[i].target);
		snprintf(number, sizeof(number), "%u", v[i].lun);
		put_line(&t, "lun", number);
		put_line(&t, "read-only", v[i].read_only ? "Yes" : "No");
		for (k = 0; k < v[i].n_initiators; k++)
			put_line(&t, "initiator", v[i].initiators[k]);
		put_secret(&t, "chap-user", "chap-secret", &v[i].chap);
		put_secret(&t, "mutual-user", "mutual-secret", &v[i].mutual);
		put(&t, "\n");
	}
	*len = t.len;
	return t.p;
}

/* ---- listing ---- */

static int note_add(const struct ashlar_note *note, const char *pool, struct iscsi_export **out, size_t *n, struct err *e)
{
	struct iscsi_export *v;
	size_t k, i;

	if (iscsi_exports_parse(note->data, note->len, &v, &k) < 0)
		return err_set(e, -EINVAL, "volume %s/%s: its iSCSI exports cannot be read; `ashlar export remove --iscsi` drops them", pool, note->volume);
	*out = xrealloc(*out, (*n + k + 1) * sizeof(**out));
	for (i = 0; i < k; i++) {
		snprintf(v[i].pool, sizeof(v[i].pool), "%s", pool);
		snprintf(v[i].volume, sizeof(v[i].volume), "%s", note->volume);
		(*out)[(*n)++] = v[i];
	}
	xfree(v);
	return 0;
}

static int pool_co_add(struct ashlar_pool *p, const char *volume, struct iscsi_export **out, size_t *n, struct err *e)
{
	struct ashlar_pool_info *info = xcalloc(1, sizeof(*info));
	struct ashlar_note *notes;
	size_t i, k;
	int r;

	ashlar_co_pool_info(p, info);
	r = ashlar_co_note_list(p, ASHLAR_NOTE_ISCSI, &notes, &k, e);
	for (i = 0; r == 0 && i < k; i++)
		if (!volume || !strcmp(volume, notes[i].volume))
			r = note_add(&notes[i], info->name, out, n, e);
	if (notes)
		ashlar_notes_free(notes, k);
	xfree(info);
	return r;
}

int iscsi_exports_co_list(struct ashlar *a, struct ashlar_pool *p, const char *volume, struct iscsi_export **out, size_t *n, struct err *e)
{
	struct ashlar_pool *q;
	size_t i;
	int r = 0;

	*out = NULL;
	*n = 0;
	if (p)
		r = pool_co_add(p, volume, out, n, e);
	for (i = 0; !p && r == 0 && (q = ashlar_pool_at(a, i)); i++)
		r = pool_co_add(q, volume, out, n, e);
	if (r < 0) {
		iscsi_exports_free(*out, *n);
		*out = NULL;
		*n = 0;
	}
	return r;
}

/* ---- checks ---- */

int iscsi_export_check_name(const char *name, const char *what, struct err *e)
{
	if (iscsi_name_is_valid(name))
		return 0;
	return err_set(e, -EINVAL, "%s: '%.60s' is not an iSCSI name: write iqn.YYYY-MM.DOMAIN:NAME in lower case, or eui. or naa. and hex digits",
		       what, name);
}

int iscsi_export_check_secret(const struct iscsi_secret *s, const char *what, struct err *e)
{
	const char *p;

	for (p = s->user; *p; p++)
		if ((uint8_t)*p < 0x21 || (uint8_t)*p == 0x7f)
			return err_set(e, -EINVAL, "%s: a user's name has no blanks and control characters", what);
	if (*s->user && (s->len < ISCSI_SECRET_MIN || s->len > ISCSI_SECRET_MAX))
		return err_set(e, -EINVAL, "%s: the secret has %u bytes; CHAP secrets have %u to %u (Windows takes 12 to 16)", what, s->len, ISCSI_SECRET_MIN,
			       ISCSI_SECRET_MAX);
	return 0;
}

static bool initiator_may(const struct iscsi_export *x, const char *name)
{
	unsigned i;

	for (i = 0; i < x->n_initiators; i++)
		if (!strcmp(x->initiators[i], name))
			return true;
	return !x->n_initiators;
}

static bool initiators_meet(const struct iscsi_export *a, const struct iscsi_export *b)
{
	unsigned i;

	for (i = 0; i < a->n_initiators; i++)
		if (initiator_may(b, a->initiators[i]))
			return true;
	return !a->n_initiators || !b->n_initiators;
}

static bool is_same_volume(const struct iscsi_export *a, const struct iscsi_export *b)
{
	return !strcmp(a->pool, b->pool) && !strcmp(a->volume, b->volume);
}

static int conflict_check(const struct iscsi_export *x, const struct iscsi_export *v, size_t n, struct err *e)
{
	size_t i;

	for (i = 0; i < n; i++) {
		if (strcmp(v[i].target, x->target) || !initiators_meet(x, &v[i]))
			continue;
		if (is_same_volume(x, &v[i]) && v[i].lun == x->lun)
			continue; /* it is replaced */
		if (is_same_volume(x, &v[i]))
			return err_set(e, -EEXIST, "%s/%s is LUN %u of %s already, for an initiator that would see it twice; `ashlar export remove --iscsi` it first",
				       x->pool, x->volume, v[i].lun, x->target);
		if (v[i].lun == x->lun)
			return err_set(e, -EEXIST, "LUN %u of %s is %s/%s; choose another --lun, another --iqn, or initiators that do not see that one",
				       x->lun, x->target, v[i].pool, v[i].volume);
	}
	return 0;
}

static int secrets_check(const struct iscsi_export *x, struct err *e)
{
	int r = iscsi_export_check_secret(&x->chap, "--chap-user", e);

	if (r == 0)
		r = iscsi_export_check_secret(&x->mutual, "--mutual-user", e);
	if (r < 0)
		return r;
	if (*x->mutual.user && !*x->chap.user)
		return err_set(e, -EINVAL, "--mutual-user goes with --chap-user: the initiator proves itself first");
	if (x->chap.len && x->chap.len == x->mutual.len && !memcmp(x->chap.bytes, x->mutual.bytes, x->chap.len))
		return err_set(e, -EINVAL, "the two secrets are the same: who knows one could then pretend to be the other side");
	return 0;
}

/* ---- commands ---- */

/* POOL.VOLUME as a part of a name: lower case, what is not allowed there as a dash. */
static void target_default(struct iscsi_export *x)
{
	char *p;

	snprintf(x->target, sizeof(x->target), "%s%.63s.%.127s", ISCSI_IQN_PREFIX, x->pool, x->volume);
	for (p = x->target + strlen(ISCSI_IQN_PREFIX); *p; p++) {
		*p = (char)tolower((unsigned char)*p);
		if (!isalnum((unsigned char)*p) && *p != '.' && *p != ':')
			*p = '-';
	}
}

static bool lun_is_taken(const struct iscsi_export *x, const struct iscsi_export *v, size_t n, unsigned lun)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (v[i].lun == lun && !strcmp(v[i].target, x->target) && initiators_meet(x, &v[i]))
			return true;
	return false;
}

static int lun_choose(struct iscsi_export *x, const struct iscsi_export *v, size_t n, int lun, struct err *e)
{
	unsigned own = 0;
	size_t i;

	if (lun >= 0) {
		x->lun = (uint16_t)lun;
		return 0;
	}
	for (i = 0; i < n; i++) {
		if (!is_same_volume(x, &v[i]) || strcmp(x->target, v[i].target) || !initiators_meet(x, &v[i]))
			continue;
		x->lun = v[i].lun;
		own++;
	}
	if (own)
		return 0;
	for (lun = 0; lun <= ISCSI_LUN_MAX; lun++)
		if (!lun_is_taken(x, v, n, (unsigned)lun))
			break;
	if (lun > ISCSI_LUN_MAX)
		return err_set(e, -ENOSPC, "target %s has no LUN left", x->target);
	x->lun = (uint16_t)lun;
	return 0;
}

static int exports_co_store(struct ashlar_pool *p, const char *volume, const struct iscsi_export *v, size_t n, struct err *e)
{
	size_t len;
	char *note = iscsi_exports_format(v, n, &len);
	int r = ashlar_co_note_set(p, volume, ASHLAR_NOTE_ISCSI, note, len, e);

	if (note)
		memset(note, 0, len);
	xfree(note);
	return r;
}

/* Those of the volume, and x in place of what it replaces, or behind them. */
static int volume_co_put(struct ashlar_pool *p, const struct iscsi_export *x, const struct iscsi_export *all, size_t n, struct err *e)
{
	struct iscsi_export *v = xcalloc(n + 1, sizeof(*v));
	bool placed = false;
	size_t i, k = 0;
	int r;

	for (i = 0; i < n; i++) {
		if (!is_same_volume(x, &all[i]))
			continue;
		if (strcmp(x->target, all[i].target) || x->lun != all[i].lun || !initiators_meet(x, &all[i]))
			v[k++] = all[i];
		else if (!placed)
			v[k++] = *x, placed = true;
	}
	if (!placed)
		v[k++] = *x;
	if (k > ISCSI_EXPORTS_MAX)
		r = err_set(e, -ENOSPC, "%s/%s has %u iSCSI exports, which is the most that a volume can have", x->pool, x->volume, ISCSI_EXPORTS_MAX);
	else
		r = exports_co_store(p, x->volume, v, k, e);
	xfree(v);
	return r;
}

/* The target that a volume's exports have, if it is one. */
static const char *own_target(const struct iscsi_export *x, const struct iscsi_export *v, size_t n)
{
	const char *own = NULL;
	size_t i;

	for (i = 0; i < n; i++) {
		if (!is_same_volume(x, &v[i]))
			continue;
		if (own && strcmp(own, v[i].target))
			return NULL;
		own = v[i].target;
	}
	return own;
}

int iscsi_export_co_add(struct ashlar_pool *p, const char *volume, struct iscsi_export *x, int lun, struct err *e)
{
	struct ashlar_export_info *info = xcalloc(1, sizeof(*info));
	struct iscsi_export *v = NULL;
	size_t n = 0;
	int r = ashlar_export_find(p, volume, info, e);

	if (r == 0 && info->hidden)
		r = err_set(e, -EPERM, "%s/%s is hidden from all clients: `ashlar export add %s/%s` brings it back", info->pool, volume, info->pool, volume);
	if (r == 0)
		r = iscsi_exports_co_list(ashlar_pool_engine(p), NULL, NULL, &v, &n, e);
	if (r == 0) {
		snprintf(x->pool, sizeof(x->pool), "%s", info->pool);
		snprintf(x->volume, sizeof(x->volume), "%s", info->volume);
		x->read_only |= info->is_snapshot;
		if (!*x->target && own_target(x, v, n))
			snprintf(x->target, sizeof(x->target), "%s", own_target(x, v, n));
		else if (!*x->target)
			target_default(x);
		r = iscsi_export_check_name(x->target, "--iqn", e);
	}
	if (r == 0)
		r = secrets_check(x, e);
	if (r == 0)
		r = lun_choose(x, v, n, lun, e);
	if (r == 0)
		r = conflict_check(x, v, n, e);
	if (r == 0)
		r = volume_co_put(p, x, v, n, e);
	iscsi_exports_free(v, n);
	xfree(info);
	return r;
}

/* It is no disk for initiators any more: what they have reserved keeps nobody out. */
static int reservations_co_drop(struct ashlar_pool *p, const char *volume, struct err *e)
{
	int r = ashlar_co_note_set(p, volume, ASHLAR_NOTE_RESERVATIONS, NULL, 0, e);

	return r < 0 ? r : ashlar_co_fence(p, volume, e);
}

int iscsi_export_co_remove(struct ashlar_pool *p, const char *volume, const char *target, int lun, struct err *e)
{
	struct iscsi_export *v;
	size_t n, i, k = 0;
	int r = iscsi_exports_co_list(ashlar_pool_engine(p), p, volume, &v, &n, NULL);

	if (r < 0 && (*target || lun >= 0))
		return err_set(e, r, "the iSCSI exports of %s cannot be read; remove all of them", volume);
	if (r < 0) { /* all of it goes */
		r = ashlar_co_note_set(p, volume, ASHLAR_NOTE_ISCSI, NULL, 0, e);
		return r < 0 ? r : reservations_co_drop(p, volume, e);
	}
	for (i = 0; i < n; i++) {
		if ((!*target || !strcmp(target, v[i].target)) && (lun < 0 || lun == v[i].lun))
			export_fini(&v[i]);
		else
			v[k++] = v[i];
	}
	if (k == n && n)
		r = err_set(e, -ENOENT, "volume %s is not exported by iSCSI as that: it is LUN %u of %s", volume, v[0].lun, v[0].target);
	else if (!n)
		r = err_set(e, -ENOENT, "volume %s is not exported by iSCSI", volume);
	else
		r = exports_co_store(p, volume, v, k, e);
	iscsi_exports_free(v, k);
	return r == 0 && k == 0 ? reservations_co_drop(p, volume, e) : r;
}

/* ---- rules ---- */

#define AGAIN_MAX 10

/* A volume that is going from one pool to another just now is in one of them. */
static int exports_co_list_settled(struct ashlar *a, struct iscsi_export **v, size_t *n)
{
	unsigned again = 0;
	uint64_t arrivals;
	int r;

	for (;;) {
		arrivals = ashlar_co_arrivals(a);
		r = iscsi_exports_co_list(a, NULL, NULL, v, n, NULL);
		if (r < 0 || arrivals == ashlar_co_arrivals(a) || ++again == AGAIN_MAX)
			return r;
		iscsi_exports_free(*v, *n);
	}
}

static int co_rules(void *arg, const char *initiator, const char *target, struct iscsi_rule **out, size_t *n)
{
	struct ashlar_export_info *info;
	struct ashlar *a = arg;
	struct iscsi_export *v;
	struct iscsi_rule *rule;
	size_t i, k;
	int r = exports_co_list_settled(a, &v, &k);

	*n = 0;
	*out = NULL;
	if (r < 0)
		return r;
	info = xcalloc(1, sizeof(*info));
	*out = xcalloc(k + 1, sizeof(**out));
	for (i = 0; i < k; i++) {
		struct ashlar_pool *p = ashlar_pool_find(a, v[i].pool);

		if ((target && strcmp(target, v[i].target)) || !initiator_may(&v[i], initiator))
			continue;
		if (!p || ashlar_export_find(p, v[i].volume, info, NULL) < 0 || info->hidden)
			continue;
		rule = &(*out)[(*n)++];
		snprintf(rule->target, sizeof(rule->target), "%s", v[i].target);
		snprintf(rule->export_name, sizeof(rule->export_name), "%s", info->name);
		rule->lun = v[i].lun;
		rule->read_only = v[i].read_only || info->read_only;
		rule->chap = v[i].chap;
		rule->mutual = v[i].mutual;
	}
	xfree(info);
	iscsi_exports_free(v, k);
	return 0;
}

void iscsi_provider_from_ashlar(struct ashlar *a, struct iscsi_provider *out)
{
	*out = (struct iscsi_provider){ .co_rules = co_rules, .arg = a };
}
