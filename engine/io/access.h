/*
 * access.h: who may see something: rules in text, one a line, and whether a client meets any of them.
 *
 *	tls:NAME	the name in a verified client certificate (common or alternative), or of a pre-shared key
 *	uid:N, gid:N	the user or primary group of a client on a unix socket
 *	addr:A[/N]	the address of a client on TCP, or a prefix of it: addr:10.0.0.0/8, addr:fd00::/8
 */
#ifndef ENGINE_IO_ACCESS_H
#define ENGINE_IO_ACCESS_H

#include "engine/io/net.h"

/* One rule, without a newline: 0, or -EINVAL and a sentence. */
int access_rule_check(const char *rule, struct err *e) __must_check;
/* Rules that cannot be understood are met by nobody; without rules everybody may. */
bool access_is_allowed(const char *rules, const struct stream *s);
/* Whether one of the stream's names is this. */
bool access_has_name(const struct stream *s, const char *name, size_t len);

#endif
