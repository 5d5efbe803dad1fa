/*
 * send and receive. The engine, here or in the daemon, has one end of a socket; a thread carries what goes through it from or
 * to our standard input or output. So a pipe that is cut, a terminal that stops, or the end of this process reaches the engine
 * as the end of the socket.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "frontends/cli/progress.h"
#include "frontends/cli/session.h"
#include "frontends/cli/table.h"
#include "frontends/control/names.h"

#define RELAY_BYTES (256 * 1024)
#define INPUT_WAIT_MS 1000

/* ---- carrying ---- */

struct relay {
	pthread_t thread;
	int from, to, sock; /* sock is one of the two */
	char *buf;
	int error; /* of reading or writing what is not the socket */
	uint64_t n_read;
};

static bool all_write(int fd, const char *p, ssize_t len)
{
	ssize_t n;

	for (; len > 0; p += n, len -= n) {
		n = write(fd, p, (size_t)len);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n < 0)
			return false;
	}
	return true;
}

static void *relay_run(void *arg)
{
	struct relay *y = arg;
	ssize_t n;

	for (;;) {
		n = read(y->from, y->buf, RELAY_BYTES);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && y->from != y->sock)
			y->error = errno;
		if (n <= 0)
			break;
		y->n_read += (uint64_t)n;
		if (!all_write(y->to, y->buf, n)) {
			if (y->to != y->sock)
				y->error = errno;
			break;
		}
	}
	shutdown(y->sock, y->to == y->sock ? SHUT_WR : SHUT_RDWR);
	return NULL;
}

static int relay_start(struct relay *y, int from, int to, int sock, struct err *e)
{
	int r;

	*y = (struct relay){ .from = from, .to = to, .sock = sock, .buf = xmalloc(RELAY_BYTES) };
	r = pthread_create(&y->thread, NULL, relay_run, y);
	if (r)
		xfree(y->buf);
	return r ? err_set(e, -r, "cannot start a thread: %s", strerror(r)) : 0;
}

/* What the engine has sent goes out, if it was all; of what it does not want, no more is read. Whoever is at the other end of a pipe
 * may be stuck: we do not wait for him in vain. */
static void relay_end(struct relay *y, bool failed)
{
	if (y->to == y->sock || failed) {
		shutdown(y->sock, SHUT_RDWR);
		pthread_cancel(y->thread);
	}
	pthread_join(y->thread, NULL);
	xfree(y->buf);
}

/* Does the input go on behind the stream, which was so long? After the relay's end. Whoever sends is about to end as a rule: we give him
 * a moment, and wait for nobody who holds a pipe open. */
static bool input_goes_on(const struct relay *y, uint64_t stream_bytes)
{
	struct pollfd p = { .fd = y->from, .events = POLLIN };
	char c;

	return y->n_read > stream_bytes || (poll(&p, 1, INPUT_WAIT_MS) > 0 && read(y->from, &c, 1) == 1);
}

/* ---- one call with data ---- */

struct transfer {
	const char *pool, *method;
	json_t *params; /* taken over */
	unsigned flags;
	bool is_send;
	bool goes_on; /* out: the input does, behind the stream that was received */
};

static int transfer_run(struct cli *cl, struct transfer *t, json_t **row)
{
	struct cli_session *s = cli_session_open(cl);
	struct err e = { 0 };
	struct relay y;
	json_int_t number;
	int fd, r = cli_session_stream(s, t->pool, &fd, &number, &e);

	if (r == 0)
		r = relay_start(&y, t->is_send ? fd : STDIN_FILENO, t->is_send ? STDOUT_FILENO : fd, fd, &e);
	if (r == 0) {
		if (cli_has(cl, OPT_PROGRESS))
			cli_progress_force();
		cli_progress_watch(s);
		json_object_set_new(t->params, "stream", json_integer(number));
		r = cli_session_call(s, t->pool, t->method, t->params, t->flags, row, &e);
		relay_end(&y, r < 0);
		if (r == 0 && !t->is_send)
			t->goes_on = input_goes_on(&y, (uint64_t)json_integer_value(json_object_get(*row, "stream_bytes")));
		cli_progress_end();
		if (y.error && (r < 0 || t->is_send)) {
			json_decref(r < 0 ? NULL : *row);
			if (r == 0)
				r = err_set(&e, -y.error, "not all of it was written");
			err_prefix(&e, "standard %s: %s: ", t->is_send ? "output" : "input", strerror(y.error));
		}
	}
	json_decref(t->params);
	cli_session_close(s);
	return r < 0 ? cli_fail(&e) : CLI_OK;
}

static const char *text_of(const json_t *row, const char *key)
{
	const char *s = json_string_value(json_object_get(row, key));

	return s ? s : "";
}

static void bytes_text(const json_t *row, const char *key, char buf[16])
{
	size_format((uint64_t)json_integer_value(json_object_get(row, key)), buf, 16);
}

/* ---- commands ---- */

static int run_send(struct cli *cl)
{
	struct transfer t = { .method = "snapshot.send", .flags = SESSION_READ, .is_send = true };
	struct point_name name;
	struct err e = { 0 };
	json_t *row = NULL;
	char sent[16];
	int r = control_snapshot_split(cl->operands[0], &name, &e);

	if (r < 0)
		return cli_fail(&e);
	if (isatty(STDOUT_FILENO))
		return cli_usage(cl, "the stream is not for a terminal: redirect it to a file, or pipe it to `ashlar receive`");
	signal(SIGPIPE, SIG_IGN);
	t.pool = name.pool;
	t.params = json_pack("{s:s}", "snapshot", cl->operands[0]);
	if (cli_has(cl, OPT_FROM))
		json_object_set_new(t.params, "from", json_string(cl->values[OPT_FROM]));
	if (cli_has(cl, OPT_RESUME))
		json_object_set_new(t.params, "resume", json_string(cl->values[OPT_RESUME]));
	r = transfer_run(cl, &t, &row);
	if (r == CLI_OK && (cli_has(cl, OPT_PROGRESS) || isatty(STDERR_FILENO))) {
		bytes_text(row, "data_bytes", sent);
		fprintf(stderr, "%s sent, %s of data\n", text_of(row, "snapshot"), sent);
	}
	json_decref(r == CLI_OK ? row : NULL);
	return r;
}

static const struct column receive_cols[] = {
	{ "volume", "volume", COL_TEXT, true },
	{ "snapshot", "snapshot", COL_TEXT, true },
	{ "size", "size_bytes", COL_SIZE, true },
	{ "done", "done_percent", COL_PERCENT, true },
	{ "used", "used_bytes", COL_SIZE, true },
	{ "running", "running", COL_YES, true },
	{ "incremental", "incremental", COL_YES, false },
	{ "received", "received_bytes", COL_SIZE, false },
	{ "token", "token", COL_TEXT, true },
};
static const struct table receive_table = TABLE(receive_cols);

static int run_abort(struct cli *cl, const struct volume_name *name)
{
	struct cli_session *s = cli_session_open(cl);
	json_t *params = json_pack("{s:s}", "volume", cl->operands[0]), *row = NULL;
	struct err e = { 0 };
	int r = cli_session_call(s, name->pool, "receive.abort", params, 0, &row, &e);

	if (r == 0)
		printf("what was kept for %s is dropped\n", cl->operands[0]);
	json_decref(params);
	json_decref(r < 0 ? NULL : row);
	cli_session_close(s);
	return r < 0 ? cli_fail(&e) : CLI_OK;
}

static int run_receive(struct cli *cl)
{
	struct transfer t = { .method = "snapshot.receive" };
	struct volume_name name;
	struct err e = { 0 };
	json_t *row = NULL;
	char got[16];
	int r;

	if (cli_has(cl, OPT_LIST))
		return cl->n_operands && strchr(cl->operands[0], '/') ? cli_usage(cl, "--list wants a pool, or nothing") :
									 cli_list(cl, &receive_table, "receive.list");
	if (!cl->n_operands)
		return cli_usage(cl, "say which volume it shall be: POOL/VOL");
	r = control_name_split(cl->operands[0], &name, &e);
	if (r < 0)
		return cli_fail(&e);
	if (cli_has(cl, OPT_ABORT))
		return run_abort(cl, &name);
	if (isatty(STDIN_FILENO))
		return cli_usage(cl, "there is no stream on a terminal: redirect it from a file, or from `ashlar send`");
	signal(SIGPIPE, SIG_IGN);
	t.pool = name.pool;
	t.params = json_pack("{s:s, s:b, s:b}", "volume", cl->operands[0], "force", cli_has(cl, OPT_FORCE), "no_resume",
			     cli_has(cl, OPT_NO_RESUME));
	if (cli_has(cl, OPT_LAYOUT))
		json_object_set_new(t.params, "layout", json_string(cl->values[OPT_LAYOUT]));
	r = transfer_run(cl, &t, &row);
	if (r != CLI_OK)
		return r;
	bytes_text(row, "data_bytes", got);
	if (cli_has(cl, OPT_JSON))
		cli_print_json(row);
	else
		printf("%s received, %s of data\n", text_of(row, "snapshot"), got);
	if (t.goes_on)
		r = cli_failf("%s has been received, and the input goes on behind that stream: nothing of the rest has been; give each stream to a "
			      "`receive` of its own", text_of(row, "snapshot"));
	json_decref(row);
	return r;
}

const struct cli_command cli_send_commands[] = {
	{ NULL, "send", NULL, "POOL/VOL@SNAP", 1, 1, OPT(FROM) | OPT(RESUME) | OPT(PROGRESS) | OPT(CONTROL), run_send,
	  "write a snapshot to standard output, for `ashlar receive`",
	  "With --from SNAP only what differs from that snapshot, which the receiving volume must have; SNAP of the same volume, or\n"
	  "VOL@SNAP of one that it was cloned from. A stream that was cut goes on with --resume TOKEN. From a pool into itself only where\n"
	  "a daemon has it open: two commands cannot have its disks at the same time.",
	  NULL },
	{ NULL, "receive", "recv", "POOL/VOL", 0, 1,
	  OPT(LAYOUT) | OPT(FORCE) | OPT(NO_RESUME) | OPT(ABORT) | OPT(LIST) | OPT(PROGRESS) | OPTS_LIST | OPT(CONTROL), run_receive,
	  "make a volume, or its next snapshot, of a stream on standard input",
	  "A whole stream makes a new volume, of the pool's layout or --layout, and its snapshot; one sent --from a snapshot changes the\n"
	  "volume that has that one: refused if it has been written to since or is in use, unless --force. Both appear at the stream's\n"
	  "end, at once; before, nothing is to be seen. What came of a stream that was cut is kept for --resume, until --abort, or a\n"
	  "new whole stream; --list shows it. One `receive` takes one stream; if more follows in its input, it says so and fails.",
	  &receive_table },
	{ .verb = NULL },
};
