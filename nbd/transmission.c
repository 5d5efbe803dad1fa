/*
 * The transmission phase: receiving, admission, and the session's end. No coroutine and no allocation per request.
 *
 * A receive fills one big buffer and every request in it is taken at once, up to NBD_TURN_REQUESTS and NBD_TURN_BYTES: then the other sessions of
 * the reactor have their turn, so that a client who asks for little does not wait for all of what another asks for. Payload of
 * a small write is copied once, into the aligned buffer that the device gets; what of it has not arrived yet is received there
 * directly, and whatever follows goes to the big buffer in the same receive. After a large write nothing but a header may
 * follow: the next is likely to be as large, and its payload then arrives where the device gets it. A request is taken only
 * if its memory fits the limits (session.h); until then the session is stalled: nothing more is received, and the peer's
 * socket fills up. A long write is received in parts, each a request to the device as soon as it has come, and each admitted for itself:
 * so the device writes while the rest comes, and a write needs no more memory than what is under way. There is one reply, when all
 * parts have ended; after an error the rest is received and dropped. Like any write whose connection ends before the reply, one that is
 * cut off may have been done in part.
 *
 * The end, for whatever reason (DISC, end of stream, nonsense, volume or server going away): no more requests are taken;
 * what is in flight completes and is answered; then the socket is shut down, which ends a receive in flight; then the
 * coroutine that waits in nbd_transmit_co() is woken. Only an error of the socket, or a peer that does not read for
 * NBD_LINGER_NS, loses replies. What waits for space in a full pool, or for its turn under a limit, is not waited for: at once when the
 * server ends, for NBD_LINGER_NS when the client does.
 */
#include "nbd/session.h"

/* ---- memory ---- */

static uint64_t beyond_reserve(uint64_t bytes)
{
	return bytes > NBD_RESERVE_BYTES ? bytes - NBD_RESERVE_BYTES : 0;
}

static enum nbd_mem mem_kind(uint16_t cmd)
{
	return cmd == NBD_CMD_WRITE ? NBD_MEM_IN : NBD_MEM_OUT;
}

static uint64_t session_bytes(const struct nbd_session *s)
{
	return s->n_bytes[NBD_MEM_IN] + s->n_bytes[NBD_MEM_OUT];
}

static void session_count(struct nbd_session *s, enum nbd_mem kind, uint64_t bytes)
{
	s->shard->n_bytes[kind] += beyond_reserve(bytes) - beyond_reserve(s->n_bytes[kind]);
	s->n_bytes[kind] = bytes;
}

void nbd_req_buf_get(struct nbd_req *r, uint32_t len)
{
	enum nbd_mem kind = mem_kind(r->cmd);

	r->buf = buf_alloc(len);
	r->buf_bytes = len;
	session_count(r->s, kind, r->s->n_bytes[kind] + len);
}

static void shard_kick(struct nbd_shard *sh, enum nbd_mem kind)
{
	if (!list_is_empty(&sh->waiting[kind]))
		nbd_session_kick(list_first(&sh->waiting[kind], struct nbd_session, wait_link));
}

void nbd_req_buf_put(struct nbd_req *r)
{
	struct nbd_session *s = r->s;
	enum nbd_mem kind = mem_kind(r->cmd);

	if (!r->buf)
		return;
	buf_free(r->buf, r->buf_bytes);
	r->buf = NULL;
	session_count(s, kind, s->n_bytes[kind] - r->buf_bytes);
	if (s->stalled)
		nbd_session_kick(s);
	shard_kick(s->shard, kind);
}

static void slab_add(struct nbd_session *s)
{
	struct nbd_req_slab *slab = xmalloc(sizeof(*slab));
	unsigned i;

	slab->next = s->slabs;
	s->slabs = slab;
	for (i = 0; i < NBD_REQ_SLAB; i++)
		list_push_back(&s->free_reqs, &slab->req[i].link);
}

struct nbd_req *nbd_req_get(struct nbd_session *s)
{
	struct nbd_req *r;

	if (list_is_empty(&s->free_reqs))
		slab_add(s);
	r = list_entry(list_pop_front(&s->free_reqs), struct nbd_req, link);
	r->s = s;
	r->buf = NULL;
	r->split = NULL;
	r->whole = NULL;
	r->n_parts = 0;
	r->more = false;
	r->result = 0;
	r->payload_bytes = 0;
	r->contexts = UINT16_MAX;
	s->n_reqs++;
	return r;
}

void nbd_req_put(struct nbd_req *r)
{
	struct nbd_session *s = r->s;

	nbd_req_buf_put(r);
	list_push_front(&s->free_reqs, &r->link);
	s->n_reqs--;
	if (s->stalled || s->closing)
		nbd_session_kick(s);
}

/* ---- admission ---- */

static void wait_leave(struct nbd_session *s)
{
	if (list_is_empty(&s->wait_link))
		return;
	list_del(&s->wait_link);
	shard_kick(s->shard, s->wait_kind);
}

/* In line for the reactor's memory; its turn is announced by a kick. */
static bool wait_join(struct nbd_session *s, enum nbd_mem kind)
{
	struct nbd_shard *sh = s->shard;

	if (list_is_empty(&s->wait_link))
		list_push_back(&sh->waiting[kind], &s->wait_link);
	s->wait_kind = kind;
	if (!timer_is_armed(&sh->stall))
		timer_arm(&sh->stall, reactor_now_ns() + NBD_STALL_NS);
	return false;
}

/* Whether there is memory for it. One request that is alone may be larger than the limits: they are for the sum. Who holds some may hold
 * no more than is left for others: so there is some for who comes, however long that is held (a full pool, a limit). More of it is
 * tried when some of his own is free. */
static bool admit(struct nbd_session *s, enum nbd_mem kind, uint32_t need_bytes)
{
	const struct nbd_options *o = &s->srv->o;
	struct nbd_shard *sh = s->shard;
	struct list *waiting = &sh->waiting[kind];
	uint64_t have = beyond_reserve(s->n_bytes[kind]), extra = beyond_reserve(s->n_bytes[kind] + need_bytes) - have;
	uint64_t all = session_bytes(s), most = o->max_total_bytes / NBD_MEM_KINDS, left = most - MIN(sh->n_bytes[kind], most);
	bool ok = !need_bytes || !all || all + need_bytes <= o->max_in_flight_bytes;

	if (!list_is_empty(&s->wait_link) && s->wait_kind != kind)
		wait_leave(s);
	if (extra && have && have + extra > left)
		ok = false;
	if (ok && extra) {
		if (!list_is_empty(waiting) && waiting->next != &s->wait_link)
			return wait_join(s, kind);
		if (sh->n_bytes[kind] && extra > left)
			return wait_join(s, kind);
	}
	wait_leave(s);
	return ok;
}

/* The same, but a write is content with less: what its session has none of in use yet. */
static bool make_room(struct nbd_session *s, enum nbd_mem kind, uint32_t *need_bytes)
{
	if (admit(s, kind, *need_bytes))
		return true;
	if (kind != NBD_MEM_IN || s->n_bytes[kind])
		return false;
	*need_bytes = MIN(*need_bytes, (uint32_t)NBD_RESERVE_BYTES);
	return admit(s, kind, *need_bytes);
}

/* Nothing more is taken until some of its requests have ended. */
static bool session_stall(struct nbd_session *s)
{
	s->stalled = true;
	if (!timer_is_armed(&s->linger))
		timer_arm(&s->linger, reactor_now_ns() + NBD_LINGER_NS);
	return false;
}

static bool is_late(uint64_t since_ns, uint64_t bytes, uint64_t now)
{
	return now - since_ns >= NBD_STALL_NS + bytes / MIB * NS_PER_SEC;
}

static bool session_stands_still(const struct nbd_session *s, uint64_t now)
{
	if (!beyond_reserve(s->n_bytes[NBD_MEM_IN]) && !beyond_reserve(s->n_bytes[NBD_MEM_OUT]))
		return false;
	return (s->sending && is_late(s->send_ns, s->send_bytes, now)) ||
	       (s->rx && s->rx->buf && is_late(s->rx_ns, s->rx->rx_bytes, now));
}

/* Somebody waits for memory: whoever holds it and does not move loses it. */
static void stall_fire(struct timer *t)
{
	struct nbd_shard *sh = container_of(t, struct nbd_shard, stall);
	uint64_t now = reactor_now_ns();
	struct nbd_session *s;

	if (list_is_empty(&sh->waiting[NBD_MEM_IN]) && list_is_empty(&sh->waiting[NBD_MEM_OUT]))
		return;
	list_for_each(s, &sh->sessions, shard_link) {
		if (s->dead || !session_stands_still(s, now))
			continue;
		nbd_log(sh->srv, "nbd: %s: dropped: holds memory that others need and does not move", s->net.st->peer);
		nbd_session_kill(s);
	}
	timer_arm(t, now + NBD_STALL_NS / 8);
}

/* ---- taking requests ---- */

static void session_violation(struct nbd_session *s, const char *what)
{
	nbd_log(s->srv, "nbd: %s: dropped: %s", s->net.st->peer, what);
	nbd_session_close(s);
}

static size_t header_bytes(const struct nbd_session *s)
{
	return s->extended ? sizeof(struct nbd_request_ext) : sizeof(struct nbd_request);
}

/* 0, or -EPROTO: what comes next cannot be told from it. Both forms begin alike. */
static int header_parse(const struct nbd_session *s, const uint8_t *p, struct nbd_header *out)
{
	const struct nbd_request_ext *x = (const void *)p;
	const struct nbd_request *c = (const void *)p;

	if (be32_get(c->magic) != (s->extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC))
		return -EPROTO;
	*out = (struct nbd_header){
		.cmd = be16_get(c->cmd),
		.flags = be16_get(c->flags),
		.cookie = c->cookie,
		.off_bytes = be64_get(c->off_bytes),
		.len_bytes = s->extended ? be64_get(x->len_bytes) : be32_get(c->len_bytes),
	};
	if (s->extended ? out->flags & NBD_CMD_FLAG_PAYLOAD_LEN : out->cmd == NBD_CMD_WRITE)
		out->payload_bytes = out->len_bytes;
	else if (out->cmd == NBD_CMD_WRITE) /* data may follow or not, and data must never be taken for requests */
		return -EPROTO;
	return 0;
}

/* The payload comes next: into the request's buffer, or, from `got` on, to be dropped. */
static void rx_begin(struct nbd_session *s, struct nbd_req *r, uint64_t got)
{
	s->rx = r;
	s->rx_got = got;
	s->rx_ns = reactor_now_ns();
}

static void part_begin(struct nbd_session *s, uint32_t most_bytes)
{
	struct nbd_req *part = nbd_write_part(s->rx_whole, s->rx_parts_bytes, most_bytes);

	s->rx_parts_bytes += part->rx_bytes;
	nbd_req_buf_get(part, part->rx_bytes);
	rx_begin(s, part, 0);
}

/* The next part of a write, or, if one has failed, all the rest. False: must wait for memory. */
static bool take_part(struct nbd_session *s)
{
	struct nbd_req *whole = s->rx_whole;
	uint32_t most = NBD_PART_BYTES;

	if (whole->result) {
		s->rx_whole = NULL;
		rx_begin(s, whole, s->rx_parts_bytes);
		return true;
	}
	if (!make_room(s, NBD_MEM_IN, &most))
		return session_stall(s);
	part_begin(s, most);
	return true;
}

static void payload_expect(struct nbd_session *s, struct nbd_req *r, uint32_t need_bytes)
{
	if (!r->result && r->cmd == NBD_CMD_WRITE && need_bytes < r->rx_bytes) {
		nbd_write_begin(r);
		s->rx_whole = r;
		s->rx_parts_bytes = 0;
		part_begin(s, need_bytes);
		return;
	}
	rx_begin(s, r, 0);
	if (!r->result)
		nbd_req_buf_get(r, need_bytes);
}

/* False: must wait for memory, or the session closes. */
static bool take_header(struct nbd_session *s)
{
	struct nbd_header h;
	uint32_t need;
	struct nbd_req *r;
	int bad;

	if (header_parse(s, s->rbuf + s->rpos, &h) < 0) {
		session_violation(s, "not a request");
		return false;
	}
	if (h.cmd == NBD_CMD_DISC) {
		nbd_session_close(s);
		return false;
	}
	bad = nbd_request_check(s, &h, &need);
	if (bad && h.payload_bytes > NBD_DRAIN_MAX) {
		session_violation(s, "payload is too long");
		return false;
	}
	if (s->n_reqs >= s->srv->o.max_in_flight || !make_room(s, mem_kind(h.cmd), &need))
		return session_stall(s);
	r = nbd_req_get(s);
	r->cmd = h.cmd;
	r->flags = h.flags;
	r->cookie = h.cookie;
	r->off_bytes = r->request_off_bytes = h.off_bytes;
	r->len_bytes = h.len_bytes;
	r->rx_bytes = (uint32_t)h.payload_bytes;
	r->result = bad;
	s->rpos += header_bytes(s);
	s->large = r->rx_bytes >= NBD_LARGE_BYTES;
	if (r->rx_bytes || h.cmd == NBD_CMD_WRITE) {
		payload_expect(s, r, need);
	} else if (bad) {
		nbd_req_finish(r, bad);
	} else {
		nbd_request_start(r);
	}
	return true;
}

static void payload_end(struct nbd_session *s, struct nbd_req *r)
{
	struct nbd_req *whole = s->rx_whole;

	if (r->n_parts) /* the rest of a write of which a part has failed */
		nbd_write_received(r);
	else if (r->result || (r->whole && r->whole->result))
		nbd_req_finish(r, r->result);
	else
		nbd_request_start(r);
	if (whole && s->rx_parts_bytes == whole->rx_bytes) {
		s->rx_whole = NULL;
		nbd_write_received(whole);
	}
}

/* True when the payload is complete. */
static bool take_payload(struct nbd_session *s)
{
	struct nbd_req *r = s->rx;
	size_t n = MIN(s->rlen - s->rpos, r->rx_bytes - s->rx_got);

	if (n && r->buf)
		memcpy(r->buf + s->rx_got, s->rbuf + s->rpos, n);
	s->rpos += n;
	s->rx_got += n;
	if (s->rx_got < r->rx_bytes)
		return false;
	s->rx = NULL;
	payload_end(s, r);
	return true;
}

static void take_requests(struct nbd_session *s)
{
	uint64_t most = session_bytes(s) + NBD_TURN_BYTES;
	unsigned n;

	s->stalled = false;
	for (n = 0; !s->closing; n++) {
		if (s->rx && !take_payload(s))
			break;
		if (s->rx_whole) {
			if (!take_part(s))
				break;
			continue;
		}
		if (s->rlen - s->rpos < header_bytes(s))
			break;
		if (n >= NBD_TURN_REQUESTS || session_bytes(s) >= most) {
			s->stalled = true;
			nbd_session_kick(s);
			break;
		}
		if (!take_header(s))
			break;
	}
}

/* ---- receiving ---- */

/* How much may be received into the big buffer. */
static size_t recv_room(const struct nbd_session *s)
{
	if (s->rx_whole && s->rx_parts_bytes < s->rx_whole->rx_bytes)
		return 0; /* what follows is the next part's */
	if (s->large && (!s->rx || s->rx->buf) && s->rlen < header_bytes(s))
		return header_bytes(s) - s->rlen;
	return NBD_RECV_BYTES - s->rlen;
}

static void recv_start(struct nbd_session *s)
{
	unsigned n = 0;
	size_t room;

	if (s->receiving || s->closing || s->stalled)
		return;
	if (s->rpos) {
		s->rlen -= s->rpos;
		memmove(s->rbuf, s->rbuf + s->rpos, s->rlen);
		s->rpos = 0;
	}
	s->recv_direct = 0;
	if (s->rx && s->rx->buf) {
		s->recv_direct = s->rx->rx_bytes - s->rx_got;
		s->recv_iov[n++] = (struct iovec){s->rx->buf + s->rx_got, s->recv_direct};
	}
	room = recv_room(s);
	if (room)
		s->recv_iov[n++] = (struct iovec){s->rbuf + s->rlen, room};
	s->recv_op.iov = s->recv_iov;
	s->recv_op.iov_n = n;
	s->receiving = true;
	stream_submit(s->net.st, &s->recv_op);
}

static void recv_done(struct net_op *op)
{
	struct nbd_session *s = op->owner;
	size_t direct;

	s->receiving = false;
	if (op->result > 0 && !s->closing) {
		direct = MIN((size_t)op->result, s->recv_direct);
		s->rx_got += direct;
		s->rlen += (size_t)op->result - direct;
		take_requests(s);
		nbd_session_kick(s); /* the next receive is queued behind the replies of this turn */
	} else if (op->result < 0 && !s->closing) {
		nbd_session_kill(s);
	} else {
		nbd_session_close(s);
	}
}

/* ---- the session's turn ---- */

void nbd_session_close(struct nbd_session *s)
{
	if (!s->closing) {
		s->closing = true;
		s->stalled = false;
		wait_leave(s);
		timer_arm(&s->linger, reactor_now_ns() + NBD_LINGER_NS);
	}
	nbd_session_kick(s);
}

static void session_shutdown(struct nbd_session *s)
{
	if (s->shut)
		return;
	s->shut = true;
	stream_shutdown(s->net.st);
}

static void requests_take_back(struct nbd_session *s)
{
	nbd_requests_cancel(s);
	timer_arm(&s->linger, reactor_now_ns() + NBD_TAKE_BACK_NS);
}

void nbd_session_kill(struct nbd_session *s)
{
	s->dead = true;
	session_shutdown(s);
	nbd_session_close(s);
	requests_take_back(s);
}

void nbd_session_gone(struct nbd_session *s)
{
	s->gone = true;
	if (!s->running)
		return;
	nbd_session_close(s);
	requests_take_back(s);
}

bool nbd_session_moved(struct nbd_session *s, struct bdev *now)
{
	if (!s->running)
		return false;
	s->at.bdev = now;
	return true;
}

/* Ending: what waits for what may never come is tried to take back, again and again, since it may just be trying itself. Stalled: nothing
 * is received, so that nobody would notice the client's end; if he has gone, it is taken back as well. */
static void linger_fire(struct timer *t)
{
	struct nbd_session *s = container_of(t, struct nbd_session, linger);
	uint64_t now = reactor_now_ns();

	if (s->sending && s->closing && now - s->send_ns >= NBD_LINGER_NS)
		nbd_session_kill(s);
	else if (s->closing || (s->stalled && stream_peer_is_done(s->net.st)))
		requests_take_back(s);
	else if (s->stalled)
		timer_arm(t, now + NBD_LINGER_NS);
}

static void session_check_end(struct nbd_session *s)
{
	if (!s->closing || s->ended || s->sending || s->n_reqs > (s->rx ? 1u : 0) + (s->rx_whole ? 1u : 0))
		return;
	if (s->receiving) {
		session_shutdown(s);
		return;
	}
	s->ended = true;
	co_wake(s->waiter);
}

static void session_turn(struct loop_hook *h)
{
	struct nbd_session *s = container_of(h, struct nbd_session, hook);

	nbd_reply_send(s);
	if (s->stalled)
		take_requests(s);
	recv_start(s);
	session_check_end(s);
}

static void session_begin(struct nbd_session *s)
{
	struct nbd_shard *sh = &s->srv->shards[reactor_self()->index];

	s->shard = sh;
	sh->stall.fire = stall_fire;
	list_push_back(&sh->sessions, &s->shard_link);
	list_init(&s->wait_link);
	list_init(&s->free_reqs);
	list_init(&s->ready);
	list_init(&s->sent);
	s->hook.run = session_turn;
	s->linger.fire = linger_fire;
	s->rbuf = xaligned(PAGE_BYTES, NBD_RECV_BYTES);
	s->send_iov = xmalloc(NBD_SEND_IOV * sizeof(*s->send_iov));
	s->send_hdrs = xmalloc(NBD_SEND_REPLIES * NBD_REPLY_HDR_MAX);
	s->recv_op = (struct net_op){.kind = NET_RECV, .fd = s->net.st->fd, .done = recv_done, .owner = s};
	s->waiter = co_self();
	s->running = true;
	if (s->gone)
		nbd_session_close(s);
	else
		recv_start(s);
}

static void session_end(struct nbd_session *s)
{
	struct nbd_req_slab *slab;

	s->running = false;
	if (s->rx)
		nbd_req_put(s->rx);
	if (s->rx_whole)
		nbd_req_put(s->rx_whole);
	CHECK(!s->n_reqs && !session_bytes(s));
	if (s->hook.link.next)
		list_del(&s->hook.link);
	timer_cancel(&s->linger);
	wait_leave(s);
	list_del(&s->shard_link);
	if (list_is_empty(&s->shard->sessions))
		timer_cancel(&s->shard->stall);
	while ((slab = s->slabs)) {
		s->slabs = slab->next;
		xfree(slab);
	}
	xfree(s->rbuf);
	xfree(s->send_iov);
	xfree(s->send_hdrs);
}

int nbd_transmit_co(void *session)
{
	struct nbd_session *s = session;

	session_begin(s);
	while (!s->ended)
		co_suspend();
	session_end(s);
	s->srv->p.co_detach(s->srv->p.arg, &s->at);
	return 0;
}
