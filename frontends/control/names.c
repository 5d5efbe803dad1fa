#include "frontends/control/names.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"

#define QUOTED_LEN 72

char *control_name_quote(const char *text, char *buf, size_t len)
{
	size_t i, n = strnlen(text, len);
	bool cut = n >= len;

	if (cut)
		n = len - 1;
	for (i = 0; i < n; i++)
		buf[i] = text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
	buf[n] = '\0';
	if (cut && len > 4)
		memcpy(buf + len - 4, "...", 3);
	return buf;
}

static bool is_name_char(char ch) { return isalnum((unsigned char)ch) || strchr("_-.:", ch); }

static int check(const char *what, const char *name, size_t max, struct err *e)
{
	char q[QUOTED_LEN];
	const char *s;

	if (!*name)
		return err_set(e, -EINVAL, "a %s name must not be empty", what);
	if (strlen(name) > max)
		return err_set(e, -ENAMETOOLONG, "the %s name '%s' is %zu bytes long; at most %zu are allowed", what,
			       control_name_quote(name, q, sizeof(q)), strlen(name), max);
	if (*name == '-' || *name == '.')
		return err_set(e, -EINVAL, "the %s name '%s' must not start with '%c'", what, control_name_quote(name, q, sizeof(q)), *name);
	for (s = name; *s; s++) {
		if (is_name_char(*s))
			continue;
		control_name_quote(name, q, sizeof(q));
		if (*s == '\n')
			return err_set(e, -EINVAL, "the %s name '%s' contains a newline", what, q);
		if (*s == '/')
			return err_set(e, -EINVAL, "the %s name '%s' must not contain '/'", what, q);
		return err_set(e, -EINVAL, "the %s name '%s' has a character that is not allowed; use letters, digits, '_', '-', '.', ':'",
			       what, q);
	}
	return 0;
}

int control_check_pool(const char *name, struct err *e) { return check("pool", name, ASHLAR_POOL_NAME_MAX, e); }

int control_check_volume(const char *name, struct err *e)
{
	char q[QUOTED_LEN];

	if (strchr(name, '@'))
		return err_set(e, -EINVAL, "'%s' names a snapshot where a volume is meant", control_name_quote(name, q, sizeof(q)));
	return check("volume", name, ASHLAR_VOLUME_NAME_MAX, e);
}

int control_check_snapshot(const char *name, struct err *e) { return check("snapshot", name, ASHLAR_VOLUME_NAME_MAX, e); }

/* Length of the well-formed UTF-8 sequence at s, 0 if there is none. */
static unsigned utf8_len(const unsigned char *s)
{
	unsigned n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
		   : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
	unsigned i;

	for (i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

int control_check_export(const char *name, struct err *e)
{
	const unsigned char *s = (const unsigned char *)name;
	char q[QUOTED_LEN];
	unsigned n;

	if (!*name)
		return err_set(e, -EINVAL, "an export name must not be empty");
	if (strlen(name) > ASHLAR_EXPORT_NAME_MAX)
		return err_set(e, -ENAMETOOLONG, "the export name '%s' is %zu bytes long; at most %d are allowed",
			       control_name_quote(name, q, sizeof(q)), strlen(name), ASHLAR_EXPORT_NAME_MAX);
	for (; *s; s += n) {
		n = utf8_len(s);
		if (n == 0 || *s < 0x20 || *s == 0x7f || (s[0] == 0xc2 && s[1] < 0xa0))
			return err_set(e, -EINVAL, "the export name '%s' must be UTF-8 text without control characters",
				       control_name_quote(name, q, sizeof(q)));
	}
	return 0;
}

int control_name_split(const char *text, struct volume_name *out, struct err *e)
{
	const char *slash = strchr(text, '/');
	char q[QUOTED_LEN], pool[ASHLAR_POOL_NAME_MAX + 1];
	size_t n;
	int r;

	if (!slash)
		return err_set(e, -EINVAL, "'%s' is not the name of a volume; it must be POOL/VOLUME",
			       control_name_quote(text, q, sizeof(q)));
	if (strchr(slash, '@'))
		return err_set(e, -EINVAL, "'%s' names a snapshot where a volume is meant", control_name_quote(text, q, sizeof(q)));
	n = (size_t)(slash - text);
	if (n >= sizeof(pool))
		return err_set(e, -ENAMETOOLONG, "the pool name in '%s' is %zu bytes long; at most %d are allowed",
			       control_name_quote(text, q, sizeof(q)), n, ASHLAR_POOL_NAME_MAX);
	memcpy(pool, text, n);
	pool[n] = '\0';
	r = control_check_pool(pool, e);
	if (r == 0)
		r = control_check_volume(slash + 1, e);
	if (r < 0)
		return r;
	memcpy(out->pool, pool, n + 1);
	snprintf(out->volume, sizeof(out->volume), "%s", slash + 1);
	return 0;
}

int control_point_split(const char *text, struct point_name *out, struct err *e)
{
	size_t n = strcspn(text, "@");
	struct volume_name name;
	char *volume;
	int r;

	volume = xcalloc(1, n + 1);
	memcpy(volume, text, n);
	r = control_name_split(volume, &name, e);
	xfree(volume);
	if (r == 0 && text[n])
		r = control_check_snapshot(text + n + 1, e);
	if (r < 0)
		return r;
	snprintf(out->pool, sizeof(out->pool), "%s", name.pool);
	snprintf(out->volume, sizeof(out->volume), "%s", name.volume);
	snprintf(out->snap, sizeof(out->snap), "%s", text[n] ? text + n + 1 : "");
	snprintf(out->rest, sizeof(out->rest), "%s%s%s", out->volume, *out->snap ? "@" : "", out->snap);
	return 0;
}

int control_snapshot_split(const char *text, struct point_name *out, struct err *e)
{
	char q[QUOTED_LEN];

	if (!strchr(text, '@') || !memchr(text, '/', strcspn(text, "@")))
		return err_set(e, -EINVAL, "'%s' is not the name of a snapshot; it must be POOL/VOLUME@SNAPSHOT",
			       control_name_quote(text, q, sizeof(q)));
	return control_point_split(text, out, e);
}

int control_name_split_new(const char *text, const struct volume_name *old, struct volume_name *out, struct err *e)
{
	int r;

	if (!strchr(text, '/')) {
		r = control_check_volume(text, e);
		if (r < 0)
			return r;
		*out = *old;
		snprintf(out->volume, sizeof(out->volume), "%s", text);
		return 0;
	}
	r = control_name_split(text, out, e);
	if (r < 0)
		return r;
	if (strcmp(old->pool, out->pool))
		return err_set(e, -EXDEV, "a volume cannot be renamed from pool %s into pool %s: its data stays where it is", old->pool,
			       out->pool);
	return 0;
}

int control_check_size(uint64_t size_bytes, struct err *e)
{
	char max[16];

	if (size_bytes == 0)
		return err_set(e, -EINVAL, "a volume's size must not be 0");
	if (size_bytes > ASHLAR_VOLUME_SIZE_MAX)
		return err_set(e, -EFBIG, "a volume has at most %s", size_format(ASHLAR_VOLUME_SIZE_MAX, max, sizeof(max)));
	return 0;
}
