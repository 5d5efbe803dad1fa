/*
 * Log lines of the server: see log_limit.h.
 */
#include "frontends/iscsi/conn.h"

void iscsi_log(struct iscsi_server *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_limited(&s->shards[reactor_self()->index].log, "iscsi", s->o.log, s->o.log_arg, fmt, ap);
	va_end(ap);
}
