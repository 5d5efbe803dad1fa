#include "tests/lib/nbd_pipe_client.h"

#include <CUnit/Basic.h>
#include <string.h>

#include "engine/base/units.h"

static void serve_co(void *arg)
{
	struct pipe_client *c = arg;

	nbd_server_co_serve(c->run->server, c->theirs);
	c->served = true;
}

int pipe_client_co_send(struct pipe_client *c, struct nbd_script *s, uint64_t deadline_ns)
{
	int r = stream_co_send_all(c->mine, &(struct iovec){s->p, s->len}, 1, deadline_ns);

	script_free(s);
	return r;
}

int pipe_client_co_recv(struct pipe_client *c, size_t len, uint64_t deadline_ns)
{
	void *p = xmalloc(len);
	int r = stream_co_recv_all(c->mine, p, len, deadline_ns);

	xfree(p);
	return r;
}

void pipe_client_co_connect(struct pipe_client *c, struct nbd_run *r, const char *name, struct stream *(*wrap)(struct stream *theirs))
{
	struct nbd_script s = {0};

	c->run = r;
	c->served = false;
	pipe_stream_pair(64 * KIB, &c->mine, &c->theirs);
	if (wrap)
		c->theirs = wrap(c->theirs);
	co_spawn(CO_SERVICE, serve_co, c, "serve");
	script_flags(&s, 3);
	script_option(&s, NBD_OPT_EXPORT_NAME, name, strlen(name));
	CU_ASSERT_EQUAL(pipe_client_co_send(c, &s, UINT64_MAX), 0);
	CU_ASSERT_EQUAL(pipe_client_co_recv(c, 18 + 10, UINT64_MAX), 0);
}

int pipe_client_co_read(struct pipe_client *c, uint32_t len, uint64_t within_ns)
{
	uint64_t deadline = reactor_now_ns() + within_ns;
	struct nbd_script s = {0};
	int r;

	script_request(&s, NBD_CMD_READ, 0, 7, 0, len);
	r = pipe_client_co_send(c, &s, deadline);
	return r ? r : pipe_client_co_recv(c, 16 + len, deadline);
}

void pipe_client_co_end(struct pipe_client *c)
{
	stream_close(c->mine);
	co_sleep_ns(100 * NS_PER_MS);
	CU_ASSERT_TRUE(c->served);
}
