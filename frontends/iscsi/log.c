/*
 * Log lines of the server: what a client sent is escaped, and no client can make more than a few lines a second.
 */
#include <stdarg.h>
#include <stdio.h>

#include "frontends/iscsi/conn.h"

#define LINES_PER_WINDOW 20
#define WINDOW_NS (5 * NS_PER_SEC)

static char *escape(const void *text, size_t len, char *out, size_t out_len)
{
	const uint8_t *p = text;
	size_t i, n = 0;

	for (i = 0; i < len; i++) {
		if (n + 5 > out_len)
			break;
		if (p[i] >= 0x20 && p[i] < 0x7f && p[i] != '\\')
			out[n++] = (char)p[i];
		else
			n += (size_t)snprintf(out + n, out_len - n, "\\x%02x", p[i]);
	}
	out[n] = '\0';
	return out;
}

static bool may_log(struct iscsi_server *s, struct iscsi_log_limit *l)
{
	uint64_t now = reactor_now_ns();
	char line[64];

	if (now - l->window_ns >= WINDOW_NS) {
		if (l->suppressed) {
			snprintf(line, sizeof(line), "iscsi: %u messages suppressed", l->suppressed);
			s->o.log(s->o.log_arg, line);
		}
		l->window_ns = now;
		l->lines = 0;
		l->suppressed = 0;
	}
	if (l->lines >= LINES_PER_WINDOW) {
		l->suppressed++;
		return false;
	}
	l->lines++;
	return true;
}

void iscsi_log(struct iscsi_server *s, const char *fmt, ...)
{
	char text[512], line[1024];
	va_list ap;

	if (!s->o.log || !may_log(s, &s->shards[reactor_self()->index].log))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	s->o.log(s->o.log_arg, escape(text, strlen(text), line, sizeof(line)));
}
