/*
 * log_limit.h: log lines of servers: what a client sent is escaped, and no client can make more than a few lines a second.
 */
#ifndef ENGINE_IO_LOG_LIMIT_H
#define ENGINE_IO_LOG_LIMIT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/* How much one reactor has said lately: touched only there; zero at first. */
struct log_limit {
	uint64_t window_ns;
	unsigned lines, suppressed;
};

/* A line that begins with `who` tells later how many there were too many of. */
void log_limited(struct log_limit *l, const char *who, void (*log)(void *arg, const char *line), void *arg, const char *fmt, va_list ap);
/* Any context. Printable copy of bytes from outside, cut to the buffer. Returns out. */
char *log_escape(const void *text, size_t len, char *out, size_t out_len);

#endif
