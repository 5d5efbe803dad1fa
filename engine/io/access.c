#include "engine/io/access.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

enum rule_kind { RULE_TLS, RULE_UID, RULE_GID, RULE_ADDR };

struct rule {
	enum rule_kind kind;
	const char *name; /* RULE_TLS */
	size_t name_len;
	uint32_t id;
	uint8_t addr[16];
	unsigned bits; /* of addr */
};

static bool number_parse(const char *p, size_t len, uint64_t max, uint32_t *out)
{
	uint64_t v = 0;
	size_t i;

	if (!len || len > 10)
		return false;
	for (i = 0; i < len; i++) {
		if (p[i] < '0' || p[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(p[i] - '0');
	}
	*out = (uint32_t)v;
	return v <= max;
}

static bool addr_parse(const char *p, size_t len, struct rule *r)
{
	const char *slash = memchr(p, '/', len);
	size_t n = slash ? (size_t)(slash - p) : len;
	char host[INET6_ADDRSTRLEN];
	uint32_t bits = 128;
	struct in_addr a4;
	unsigned before = 0, i;

	if (n >= sizeof(host))
		return false;
	memcpy(host, p, n);
	host[n] = '\0';
	if (inet_pton(AF_INET, host, &a4) == 1) {
		memset(r->addr, 0, 10);
		memset(r->addr + 10, 0xff, 2);
		memcpy(r->addr + 12, &a4, 4);
		before = 96;
	} else if (inet_pton(AF_INET6, host, r->addr) != 1) {
		return false;
	}
	if (slash && !number_parse(slash + 1, len - n - 1, 128 - before, &bits))
		return false;
	r->bits = slash ? before + bits : 128;
	for (i = r->bits; i < 128; i++) /* 10.0.0.1/8 is a mistake */
		if (r->addr[i / 8] & 0x80 >> i % 8)
			return false;
	return true;
}

static bool rule_parse(const char *p, size_t len, struct rule *r)
{
	size_t i;

	for (i = 0; i < len; i++)
		if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f)
			return false;
	if (len > 4 && !memcmp(p, "tls:", 4)) {
		*r = (struct rule){.kind = RULE_TLS, .name = p + 4, .name_len = len - 4};
		return true;
	}
	if (len > 4 && (!memcmp(p, "uid:", 4) || !memcmp(p, "gid:", 4))) {
		r->kind = *p == 'u' ? RULE_UID : RULE_GID;
		return number_parse(p + 4, len - 4, UINT32_MAX - 1, &r->id);
	}
	if (len > 5 && !memcmp(p, "addr:", 5)) {
		r->kind = RULE_ADDR;
		return addr_parse(p + 5, len - 5, r);
	}
	return false;
}

int access_rule_check(const char *rule, struct err *e)
{
	struct rule r;

	if (rule_parse(rule, strlen(rule), &r))
		return 0;
	return err_set(e, -EINVAL, "\"%.100s\" is no rule: give tls:NAME, uid:NUMBER, gid:NUMBER or addr:ADDRESS[/BITS] (with zeros behind the prefix)",
		       strpbrk(rule, "\n\r\033") ? "(a control character)" : rule);
}

bool access_has_name(const struct stream *s, const char *name, size_t len)
{
	const char *p = s->tls_names, *end;

	for (; p && (end = strchr(p, '\n')); p = end + 1)
		if ((size_t)(end - p) == len && !memcmp(p, name, len))
			return true;
	return false;
}

static bool rule_is_met(const struct rule *r, const struct stream *s)
{
	unsigned whole = r->bits / 8, rest = r->bits % 8;

	switch (r->kind) {
	case RULE_TLS:
		return access_has_name(s, r->name, r->name_len);
	case RULE_UID:
		return s->has_cred && s->uid == r->id;
	case RULE_GID:
		return s->has_cred && s->gid == r->id;
	case RULE_ADDR:
		return s->has_addr && !memcmp(s->addr, r->addr, whole) &&
		       (!rest || (s->addr[whole] ^ r->addr[whole]) >> (8 - rest) == 0);
	}
	return false;
}

bool access_is_allowed(const char *rules, const struct stream *s)
{
	const char *p = rules, *end;
	struct rule r;

	if (!*rules)
		return true;
	for (; *p; p = *end ? end + 1 : end) {
		end = strchrnul(p, '\n');
		if (rule_parse(p, (size_t)(end - p), &r) && rule_is_met(&r, s))
			return true;
	}
	return false;
}
