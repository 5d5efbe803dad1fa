#include "engine/io/disk_uri.h"

#include <string.h>

#define WHITE " \t\r\n"

bool disk_path_is_uri(const char *path)
{
	static const char *const schemes[] = { "nbd://", "nbds://", "nbd+unix://", "nbds+unix://" };
	size_t i;

	for (i = 0; i < ARRAY_LEN(schemes); i++)
		if (!strncmp(path, schemes[i], strlen(schemes[i])))
			return true;
	return false;
}

/* Where the part before the host ends ("user@"), and its start. */
static const char *user_of(const char *uri, size_t *len)
{
	const char *start = strstr(uri, "://") + 3, *at = memchr(start, '@', strcspn(start, "/?#"));

	*len = at ? (size_t)(at - start) : 0;
	return start;
}

static bool has_whole_socket(const char *uri)
{
	const char *q = strchr(uri, '?');

	for (; q; q = strchr(q + 1, '&'))
		if (!strncmp(q + 1, "socket=", 7))
			return q[8] == '/' || !strncasecmp(q + 8, "%2f", 3);
	return false;
}

int disk_uri_check(const char *uri, struct err *e)
{
	size_t user_len;
	const char *user = user_of(uri, &user_len);

	if (memchr(user, ':', user_len))
		return err_set(e, -EINVAL,
			       "the URI of a disk at %.*s has a password, and NBD has none: take it out; to be sure of who connects, use "
			       "nbds:// with certificates", (int)strcspn(user + user_len + 1, "/?#"), user + user_len + 1);
	if (uri[strcspn(uri, WHITE)])
		return err_set(e, -EINVAL, "the URI \"%.200s\" has white space in it: write %%20", uri);
	if (strstr(uri, "+unix://") && !has_whole_socket(uri))
		return err_set(e, -EINVAL, "the URI %.200s does not name a socket by its whole path: nbd+unix:///EXPORT?socket=/PATH", uri);
	return 0;
}

const char *disk_path_next(const char **list, size_t *len)
{
	const char *s = *list + strspn(*list, ":" WHITE);
	bool is_uri = disk_path_is_uri(s);

	if (!is_uri) /* a path may have blanks, also at its start */
		s = *list + strspn(*list, ":");
	if (!*s)
		return NULL;
	*len = strcspn(s, is_uri ? WHITE : ":");
	*list = s + *len;
	if (is_uri)
		*list += strspn(*list, WHITE);
	return s;
}
