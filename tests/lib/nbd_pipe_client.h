/*
 * nbd_pipe_client.h: a client of the server of an nbd_run, over pipe streams, in simulated time. All are coroutines; the form of its
 * replies is the simple one.
 */
#ifndef TESTS_LIB_NBD_PIPE_CLIENT_H
#define TESTS_LIB_NBD_PIPE_CLIENT_H

#include "tests/lib/nbd_run.h"
#include "tests/lib/pipe_stream.h"

struct pipe_client {
	struct nbd_run *run;
	struct stream *mine, *theirs;
	bool served;
};

/* The handshake, for the export of this name. wrap: NULL, or what to put around the server's end. */
void pipe_client_co_connect(struct pipe_client *c, struct nbd_run *r, const char *name, struct stream *(*wrap)(struct stream *theirs));
/* Sends the script and frees it. 0 or an error. */
int pipe_client_co_send(struct pipe_client *c, struct nbd_script *s, uint64_t deadline_ns);
/* Receives so much and forgets it. 0 or an error. */
int pipe_client_co_recv(struct pipe_client *c, size_t len, uint64_t deadline_ns);
/* One read at 0, and its reply. 0 or an error. */
int pipe_client_co_read(struct pipe_client *c, uint32_t len, uint64_t within_ns);
/* Hangs up; the server notices soon. */
void pipe_client_co_end(struct pipe_client *c);

#endif
