/*
 * The stream. Whoever has something to do for it (a new operation, ciphertext that has come or gone) calls stream_turn() on
 * the reactor's own stack.
 *
 * A receive is in flight below only while one is asked for here, and a send likewise; so a stream without operations is
 * idle, and may change reactors. What GnuTLS wants to say by itself (alerts, new keys) waits for the next send.
 *
 * What is to be sent goes at once, by calls, as long as the socket takes it: records of 16 KiB, neighbouring pieces put together, some
 * of them per call. Only what the socket does not take is left to a send of the stream below.
 */
#include "engine/io/tls_priv.h"

#include <string.h>
#include <sys/socket.h>

#include "engine/base/units.h"

#define RX_BYTES (64 * KIB)
#define TX_BYTES (72 * KIB)
#define RECORD_BYTES (16 * KIB)	     /* plaintext of a record, at most */
#define TX_ROOM (RECORD_BYTES + KIB) /* of a record and its overhead */
#define TX_RESERVE (4 * KIB)	     /* for what GnuTLS sends by itself */
#define TURN_BYTES (256 * KIB)	     /* plaintext that is encrypted before it is others' turn */
#define WARNINGS_MAX 16

struct tls_stream {
	struct stream s;
	struct stream *below;
	gnutls_session_t session;
	struct task task;
	int failed; /* sticky: the error of every operation */

	struct net_op *recv, *send; /* asked for here */
	const struct iovec *from;   /* plaintext that is not encrypted yet: from `at` of the first, */
	unsigned from_n;
	size_t at;
	size_t record_len; /* and before it, of `record` */
	bool is_held;	   /* the first byte of the next send has been encrypted before: see tls_try_send() */

	struct net_op in, out; /* below */
	struct iovec in_iov, out_iov;
	bool receiving, sending, at_end;
	size_t rx_at, rx_len, tx_len, tx_sending;

	/* the handshake */
	struct co *waiter;
	struct timer limit;
	bool shaking, passed, said;
	int result;

	uint8_t rx[RX_BYTES], tx[TX_BYTES], record[RECORD_BYTES];
};
_Static_assert(sizeof(struct tls_stream) < TLS_STREAM_BYTES, "as promised");

static struct tls_stream *tls_of(struct stream *s)
{
	return container_of(s, struct tls_stream, s);
}

/* ---- GnuTLS's side ---- */

static ssize_t tls_pull(gnutls_transport_ptr_t arg, void *buf, size_t len)
{
	struct tls_stream *t = arg;

	len = MIN(len, t->rx_len - t->rx_at);
	if (!len && !t->at_end) {
		gnutls_transport_set_errno(t->session, EAGAIN);
		return -1;
	}
	memcpy(buf, t->rx + t->rx_at, len);
	t->rx_at += len;
	return (ssize_t)len;
}

static int tls_pull_timeout(gnutls_transport_ptr_t arg, unsigned ms)
{
	struct tls_stream *t = arg;

	return t->at_end || t->rx_at < t->rx_len;
}

static ssize_t tls_push(gnutls_transport_ptr_t arg, const void *buf, size_t len)
{
	struct tls_stream *t = arg;

	len = MIN(len, TX_BYTES - t->tx_len);
	if (!len) {
		gnutls_transport_set_errno(t->session, EAGAIN);
		return -1;
	}
	memcpy(t->tx + t->tx_len, buf, len);
	t->tx_len += len;
	return (ssize_t)len;
}

/* ---- below ---- */

static void in_start(struct tls_stream *t)
{
	CHECK(t->rx_at == t->rx_len);
	t->rx_at = t->rx_len = 0;
	t->in_iov = (struct iovec){t->rx, RX_BYTES};
	t->in.iov = &t->in_iov;
	t->in.iov_n = 1;
	t->receiving = true;
	stream_submit(t->below, &t->in);
}

static void out_start(struct tls_stream *t)
{
	t->tx_sending = t->tx_len;
	t->out_iov = (struct iovec){t->tx, t->tx_len};
	t->out.iov = &t->out_iov;
	t->out.iov_n = 1;
	t->sending = true;
	stream_submit(t->below, &t->out);
}

static void stream_turn(struct tls_stream *t);

static void in_done(struct net_op *op)
{
	struct tls_stream *t = op->owner;

	t->receiving = false;
	if (op->result > 0)
		t->rx_len = (size_t)op->result;
	else if (op->result == 0)
		t->at_end = true;
	else if (!t->failed)
		t->failed = (int)op->result;
	stream_turn(t);
}

static void out_done(struct net_op *op)
{
	struct tls_stream *t = op->owner;

	t->sending = false;
	t->tx_len -= t->tx_sending;
	memmove(t->tx, t->tx + t->tx_sending, t->tx_len);
	if (op->result < 0 && !t->failed)
		t->failed = (int)op->result;
	stream_turn(t);
}

/* ---- receiving ---- */

static void recv_end(struct tls_stream *t, int64_t result)
{
	struct net_op *op = t->recv;

	t->recv = NULL;
	op->result = result;
	op->done(op);
}

static bool is_again(int r)
{
	return r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED;
}

/* GnuTLS says so too when it has only dropped a record, and there are others. */
static bool has_more(const struct tls_stream *t, int r, size_t at_before)
{
	return is_again(r) && t->rx_at > at_before && t->rx_at < t->rx_len;
}

/* Bytes, 0 if there are none yet, or an error; t->at_end when no more come. */
static int64_t decrypt(struct tls_stream *t, void *buf, size_t len)
{
	unsigned warnings = 0;
	size_t at;
	ssize_t r;

	do {
		at = t->rx_at;
		r = gnutls_record_recv(t->session, buf, len);
	} while (has_more(t, (int)r, at) || (r == GNUTLS_E_WARNING_ALERT_RECEIVED && ++warnings < WARNINGS_MAX));
	if (r > 0)
		return r;
	if (is_again((int)r) && t->rx_at == t->rx_len)
		return 0;
	/* With or without a farewell: whatever ends a request is in the request. */
	if (r == 0 || r == GNUTLS_E_PREMATURE_TERMINATION) {
		t->at_end = true;
		return 0;
	}
	return -EPROTO;
}

static void recv_turn(struct tls_stream *t)
{
	int64_t sum = 0, n = 0;
	size_t at = 0;
	unsigned i = 0;

	if (!t->recv || t->receiving)
		return;
	while (!t->failed && i < t->recv->iov_n) {
		if (at == t->recv->iov[i].iov_len) {
			at = 0;
			i++;
			continue;
		}
		n = decrypt(t, (uint8_t *)t->recv->iov[i].iov_base + at, t->recv->iov[i].iov_len - at);
		if (n < 0)
			t->failed = (int)n;
		if (n <= 0)
			break;
		at += (size_t)n;
		sum += n;
	}
	if (sum || t->failed || t->at_end)
		recv_end(t, sum ? sum : t->failed);
	else
		in_start(t);
}

/* ---- sending ---- */

static void send_end(struct tls_stream *t, int result)
{
	struct net_op *op = t->send;

	t->send = NULL;
	op->result = result;
	op->done(op);
}

/* Takes n bytes off the plaintext. */
static void from_advance(struct tls_stream *t, size_t n)
{
	t->at += n;
	if (t->at == t->from->iov_len) {
		t->from++;
		t->from_n--;
		t->at = 0;
	}
}

/* The next record's plaintext: neighbours are put together, so that many small replies share one. */
static void record_fill(struct tls_stream *t)
{
	size_t n;

	while (t->record_len < RECORD_BYTES && t->from_n) {
		n = MIN(RECORD_BYTES - t->record_len, t->from->iov_len - t->at);
		memcpy(t->record + t->record_len, (const uint8_t *)t->from->iov_base + t->at, n);
		t->record_len += n;
		from_advance(t, n);
	}
}

/* One record, whose plaintext is the caller's if there is enough in one piece. Bytes of it, 0: there is none, or an error. */
static ssize_t record_send(struct tls_stream *t)
{
	ssize_t n;

	if (!t->record_len && t->from_n && t->from->iov_len - t->at >= RECORD_BYTES) {
		n = gnutls_record_send(t->session, (const uint8_t *)t->from->iov_base + t->at, RECORD_BYTES);
		if (n > 0)
			from_advance(t, (size_t)n);
		return n;
	}
	record_fill(t);
	if (!t->record_len)
		return 0;
	n = gnutls_record_send(t->session, t->record, t->record_len);
	if (n > 0) { /* the client may want smaller ones */
		t->record_len -= (size_t)n;
		memmove(t->record, t->record + n, t->record_len);
	}
	return n;
}

static bool has_plaintext(const struct tls_stream *t)
{
	return t->record_len || t->from_n;
}

static void encrypt(struct tls_stream *t, int64_t *budget)
{
	ssize_t n;

	while (has_plaintext(t) && *budget > 0 && t->tx_len + TX_ROOM + TX_RESERVE <= TX_BYTES) {
		n = record_send(t);
		if (n < 0) { /* there is room, so this is no EAGAIN */
			t->failed = -EPROTO;
			return;
		}
		if (!n)
			return;
		*budget -= n;
	}
}

/* As much ciphertext as the socket takes now. */
static void tx_push(struct tls_stream *t)
{
	struct iovec v = {t->tx, t->tx_len};
	int64_t r = t->tx_len ? stream_try_send(t->below, &v, 1) : 0;

	if (r < 0) {
		t->failed = (int)r;
		return;
	}
	t->tx_len -= (size_t)r;
	memmove(t->tx, t->tx + r, t->tx_len);
}

/* All that goes without waiting, within a turn's limits. */
static void send_now(struct tls_stream *t)
{
	int64_t budget = TURN_BYTES;

	do {
		encrypt(t, &budget);
		if (!t->failed)
			tx_push(t);
	} while (!t->failed && !t->tx_len && budget > 0 && has_plaintext(t));
}

static void send_turn(struct tls_stream *t)
{
	if (!t->send || t->sending)
		return;
	if (!t->failed)
		send_now(t);
	if (t->failed)
		send_end(t, t->failed);
	else if (t->tx_len)
		out_start(t);
	else if (has_plaintext(t))
		reactor_ready(&t->task);
	else
		send_end(t, 0);
}

static void plaintext_set(struct tls_stream *t, const struct iovec *iov, unsigned n)
{
	t->from = iov;
	t->from_n = n;
	t->at = 0;
}

static uint64_t plaintext_left(const struct tls_stream *t)
{
	uint64_t sum = 0;
	unsigned i;

	for (i = 0; i < t->from_n; i++)
		sum += t->from[i].iov_len;
	return sum - t->at;
}

/* What has been encrypted must not come again, but ciphertext or a record's rest may be left here; then one byte less than that is said to
 * have gone, so that a send of the rest follows, and that skips it. Not on a coroutine's stack: see tls.h. */
static int64_t tls_try_send(struct stream *s, struct iovec *iov, unsigned n)
{
	struct tls_stream *t = tls_of(s);
	uint64_t len;

	if (t->failed)
		return t->failed;
	if (co_self() || t->send || t->sending || t->is_held)
		return 0;
	plaintext_set(t, iov, n);
	len = plaintext_left(t);
	send_now(t);
	if (t->failed)
		return t->failed;
	len -= plaintext_left(t);
	plaintext_set(t, NULL, 0);
	t->is_held = len && (t->tx_len || t->record_len);
	return (int64_t)(len - t->is_held);
}

/* ---- the handshake ---- */

/* One step; true: GnuTLS is done with it, and t->result says how. */
static bool shake(struct tls_stream *t)
{
	unsigned warnings = 0;
	size_t at;
	int r;

	do {
		at = t->rx_at;
		r = gnutls_handshake(t->session);
	} while (has_more(t, r, at) || (r < 0 && !is_again(r) && !gnutls_error_is_fatal(r) && ++warnings < WARNINGS_MAX));
	if (is_again(r) && t->rx_at == t->rx_len)
		return false;
	t->result = r;
	if (r < 0)
		(void)gnutls_alert_send_appropriate(t->session, r);
	return true;
}

static void shake_turn(struct tls_stream *t)
{
	if (t->receiving || t->sending)
		return;
	if (!t->failed && !t->said)
		t->said = shake(t);
	if (!t->failed && t->tx_len) {
		out_start(t);
	} else if (t->failed || t->said) {
		t->shaking = false;
		co_wake(t->waiter);
	} else {
		in_start(t);
	}
}

static void limit_passed(struct timer *timer)
{
	struct tls_stream *t = container_of(timer, struct tls_stream, limit);

	t->passed = true;
	stream_shutdown(t->below);
}

static int shake_result(struct tls_stream *t, struct err *e)
{
	gnutls_datum_t why;
	unsigned status;

	if (t->passed)
		return err_set(e, -ETIMEDOUT, "TLS: the client has not finished its handshake in time");
	if (t->failed)
		return err_set(e, -EPROTO, "TLS: %s", strerror(-t->failed));
	if (t->result >= 0)
		return 0;
	status = gnutls_session_get_verify_cert_status(t->session);
	if (t->result == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR &&
	    gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &why, 0) >= 0) {
		err_set(e, -EPROTO, "TLS: %s", why.data);
		gnutls_free(why.data);
		return -EPROTO;
	}
	if (t->result == GNUTLS_E_FATAL_ALERT_RECEIVED || t->result == GNUTLS_E_WARNING_ALERT_RECEIVED) {
		const char *alert = gnutls_alert_get_name(gnutls_alert_get(t->session));

		return err_set(e, -EPROTO, "TLS: the client refuses: %s", alert ? alert : "for a reason of its own");
	}
	return err_set(e, -EPROTO, "TLS: %s", gnutls_strerror(t->result));
}

int tls_co_handshake(struct stream *s, uint64_t deadline_ns, struct err *e)
{
	struct tls_stream *t = tls_of(s);
	int r;

	if (!t->session)
		return err_set(e, -ENOMEM, "TLS: no memory");
	t->limit = (struct timer){.fire = limit_passed};
	timer_arm(&t->limit, deadline_ns);
	t->waiter = co_self();
	t->shaking = true;
	reactor_ready(&t->task);
	while (t->shaking)
		co_suspend();
	timer_cancel(&t->limit);
	r = shake_result(t, e);
	if (r == 0)
		s->tls_names = tls_session_names(t->session);
	return r;
}

/* ---- the stream ---- */

static void stream_turn(struct tls_stream *t)
{
	if (!list_is_empty(&t->task.link)) /* this is its turn */
		list_del(&t->task.link);
	if (t->shaking) {
		shake_turn(t);
		return;
	}
	recv_turn(t);
	send_turn(t);
}

static void task_run(struct task *task)
{
	stream_turn(container_of(task, struct tls_stream, task));
}

static void tls_submit(struct stream *s, struct net_op *op)
{
	struct tls_stream *t = tls_of(s);

	if (op->kind == NET_RECV) {
		CHECK(!t->recv);
		t->recv = op;
	} else {
		CHECK(!t->send && op->kind == NET_SEND);
		t->send = op;
		plaintext_set(t, op->iov, op->iov_n);
		if (t->is_held)
			from_advance(t, 1);
		t->is_held = false;
	}
	if (list_is_empty(&t->task.link))
		reactor_ready(&t->task);
}

/* Says farewell if that takes no waiting. */
static void tls_shutdown(struct stream *s)
{
	struct tls_stream *t = tls_of(s);

	if (t->session && !t->shaking && !t->failed && !t->sending && !t->tx_len && s->fd >= 0 &&
	    gnutls_bye(t->session, GNUTLS_SHUT_WR) >= 0)
		(void)!send(s->fd, t->tx, t->tx_len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (!t->failed)
		t->failed = -ESHUTDOWN;
	stream_shutdown(t->below);
}

static void tls_close(struct stream *s)
{
	struct tls_stream *t = tls_of(s);

	CHECK(!t->recv && !t->send && !t->receiving && !t->sending);
	if (!list_is_empty(&t->task.link))
		list_del(&t->task.link);
	if (t->session)
		gnutls_deinit(t->session);
	stream_close(t->below);
	gnutls_memset(t->record, 0, sizeof(t->record));
	xfree(s->tls_names);
	xfree(t);
}

static const struct stream_ops tls_ops = {.submit = tls_submit, .try_send = tls_try_send, .shutdown = tls_shutdown, .close = tls_close};

struct stream *tls_stream_create(struct tls_config *c, struct stream *below)
{
	struct tls_stream *t = xcalloc(1, sizeof(*t));

	t->s = *below;
	t->s.ops = &tls_ops;
	t->s.is_tls = true;
	t->below = below;
	list_init(&t->task.link);
	t->task.run = task_run;
	t->in = (struct net_op){.kind = NET_RECV, .fd = below->fd, .done = in_done, .owner = t};
	t->out = (struct net_op){.kind = NET_SEND, .fd = below->fd, .done = out_done, .owner = t};
	t->session = tls_session_create(c);
	if (!t->session)
		return &t->s; /* the handshake says so */
	gnutls_transport_set_ptr(t->session, t);
	gnutls_transport_set_pull_function(t->session, tls_pull);
	gnutls_transport_set_pull_timeout_function(t->session, tls_pull_timeout);
	gnutls_transport_set_push_function(t->session, tls_push);
	return &t->s;
}
