/*
 * disk_uri.h: names of disks that are exports of an NBD server: nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH, and
 * nbds://, nbds+unix:// with TLS, as the NBD project's document on URIs has them. Whatever begins otherwise is a path. Any thread.
 */
#ifndef ENGINE_IO_DISK_URI_H
#define ENGINE_IO_DISK_URI_H

#include "engine/base/base.h"
#include "engine/base/err.h"

bool disk_path_is_uri(const char *path);
/* -EINVAL with a sentence, in which a password is not repeated: a URI that has one, or white space, or a socket that is not named
 * by a whole path. What is left to complain about is found by connecting. */
int disk_uri_check(const char *uri, struct err *e) __must_check;
/* Cuts the next name out of a list that is separated by colons; a URI has colons of its own and goes to the next white space. Moves
 * *list behind it and returns its start, its length in *len; NULL: there is none left. */
const char *disk_path_next(const char **list, size_t *len);

#endif
