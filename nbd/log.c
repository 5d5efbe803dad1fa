/*
 * Log lines of the server: see log_limit.h.
 */
#include "nbd/session.h"

void nbd_log(struct nbd_server *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_limited(&s->shards[reactor_self()->index].log, "nbd", s->o.log, s->o.log_arg, fmt, ap);
	va_end(ap);
}
