#include "engine/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *fmt, ...)
{
	va_list ap;

	CHECK(code < 0);
	if (!e)
		return code;
	e->code = code;
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	return code;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
	char old[sizeof(e->text)];
	va_list ap;
	size_t n;

	if (!e)
		return -EIO;
	memcpy(old, e->text, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	n = strlen(e->text);
	snprintf(e->text + n, sizeof(e->text) - n, "%s", old);
	return e->code;
}

int err_default(struct err *e, int code, const char *what)
{
	if (code < 0 && e && !e->code)
		err_set(e, code, "%s: %s", what, err_text(code));
	return code;
}

int err_to_errno(int code)
{
	switch (-code) {
#define X(name, num, parent, text) \
	case name:                 \
		return -parent;
		ERR_TABLE(X)
#undef X
	default:
		return code;
	}
}

const char *err_text(int code)
{
	switch (-code) {
#define X(name, num, parent, text) \
	case name:                 \
		return text;
		ERR_TABLE(X)
#undef X
	default:
		return strerror(-code);
	}
}
