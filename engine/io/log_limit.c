/*
 * log_limit.c: log lines that clients cause.
 */
#include "engine/io/log_limit.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/base.h"
#include "engine/base/units.h"
#include "engine/io/reactor.h"

#define LINES_PER_WINDOW 20
#define WINDOW_NS (5 * NS_PER_SEC)

char *log_escape(const void *text, size_t len, char *out, size_t out_len)
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

static bool may_log(struct log_limit *l, const char *who, void (*log)(void *arg, const char *line), void *arg)
{
	uint64_t now = reactor_now_ns();
	char line[64];

	if (now - l->window_ns >= WINDOW_NS) {
		if (l->suppressed) {
			snprintf(line, sizeof(line), "%s: %u messages suppressed", who, l->suppressed);
			log(arg, line);
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

void log_limited(struct log_limit *l, const char *who, void (*log)(void *arg, const char *line), void *arg, const char *fmt, va_list ap)
{
	char text[512], line[1024];

	if (!log || !may_log(l, who, log, arg))
		return;
	vsnprintf(text, sizeof(text), fmt, ap);
	log(arg, log_escape(text, strlen(text), line, sizeof(line)));
}
