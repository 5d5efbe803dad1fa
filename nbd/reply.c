/*
 * Replies: everything that became ready in one turn of the loop goes out in one send. Headers are packed into one small
 * buffer of the session, payload is sent from where the device put it; a request without payload is over as soon as its
 * header is packed, one with payload when the send is. What the peer's socket takes at once, mostly all, is sent by a call;
 * only what is left waits for it.
 */
#include "nbd/session.h"

enum nbd_error nbd_err(int code)
{
	switch (-err_to_errno(code)) {
	case 0:
		return NBD_SUCCESS;
	case EPERM:
	case EACCES:
	case EROFS:
		return NBD_EPERM;
	case ENOMEM:
		return NBD_ENOMEM;
	case EINVAL:
	case ERANGE:
		return NBD_EINVAL;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return NBD_ENOSPC;
	case EOVERFLOW:
		return NBD_EOVERFLOW;
	case EOPNOTSUPP:
		return NBD_ENOTSUP;
	case ESHUTDOWN:
		return NBD_ESHUTDOWN;
	default:
		return NBD_EIO;
	}
}

/* Header of a chunk in the session's form, before len bytes of payload. Returns its end. */
static void *chunk_hdr(void *out, const struct nbd_req *r, uint16_t flags, uint16_t type, uint32_t len)
{
	struct nbd_chunk_hdr_ext *x = out;
	struct nbd_chunk_hdr *h = out;

	h->magic = be32_make(r->s->extended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC);
	h->flags = be16_make(flags);
	h->type = be16_make(type);
	h->cookie = r->cookie;
	if (!r->s->extended) {
		h->len_bytes = be32_make(len);
		return h + 1;
	}
	x->off_bytes = be64_make(r->request_off_bytes);
	x->len_bytes = be64_make(len);
	return x + 1;
}

uint32_t nbd_reply_status_chunk(const struct nbd_req *r, void *out, unsigned context, uint32_t n_extents, bool last)
{
	struct nbd_chunk_status_ext *x = out;
	struct nbd_chunk_status *c = out;
	uint16_t flags = last ? NBD_REPLY_FLAG_DONE : 0;
	uint32_t len;

	if (!r->s->extended) {
		len = (uint32_t)sizeof(c->context) + n_extents * (uint32_t)sizeof(struct nbd_extent);
		chunk_hdr(c, r, flags, NBD_REPLY_TYPE_BLOCK_STATUS, len);
		c->context = be32_make(context);
		return (uint32_t)sizeof(c->hdr) + len;
	}
	len = (uint32_t)(sizeof(*x) - sizeof(x->hdr)) + n_extents * (uint32_t)sizeof(struct nbd_extent_ext);
	chunk_hdr(x, r, flags, NBD_REPLY_TYPE_BLOCK_STATUS_EXT, len);
	x->context = be32_make(context);
	x->n_extents = be32_make(n_extents);
	return (uint32_t)sizeof(x->hdr) + len;
}

static size_t encode_simple(const struct nbd_req *r, struct nbd_simple_reply *out)
{
	out->magic = be32_make(NBD_SIMPLE_REPLY_MAGIC);
	out->error = be32_make(nbd_err(r->result));
	out->cookie = r->cookie;
	return sizeof(*out);
}

/* Writes everything before the payload; returns its length, at most NBD_REPLY_HDR_MAX. */
static size_t encode(const struct nbd_req *r, uint8_t *out)
{
	struct nbd_chunk_error *error;
	struct nbd_chunk_data *data;
	uint8_t *end;

	if (!r->s->structured || (!r->s->extended && !r->result && !r->payload_bytes))
		return encode_simple(r, (struct nbd_simple_reply *)out);
	if (r->result) {
		error = chunk_hdr(out, r, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, sizeof(*error));
		error->error = be32_make(nbd_err(r->result));
		error->text_bytes = be16_make(0);
		end = (uint8_t *)(error + 1);
	} else if (!r->payload_bytes) {
		end = chunk_hdr(out, r, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_NONE, 0);
	} else if (r->cmd == NBD_CMD_BLOCK_STATUS) {
		end = out; /* the payload is whole chunks */
	} else {
		data = chunk_hdr(out, r, r->more ? 0 : NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_OFFSET_DATA,
				 (uint32_t)sizeof(*data) + r->payload_bytes);
		data->off_bytes = be64_make(r->off_bytes);
		end = (uint8_t *)(data + 1);
	}
	return (size_t)(end - out);
}

/* A part has been read or written, or not. Which of the two has an answer, and which: of a read the part's chunk, of which the last says
 * that it is; of a write, and if any has failed, in the end that of the whole. NULL: neither, it waits for other parts. */
static struct nbd_req *part_finish(struct nbd_req *part, int *result)
{
	struct nbd_req *whole = part->whole;
	bool more = --whole->n_parts > 0;

	if (*result && !whole->result)
		whole->result = *result;
	if (*result || part->cmd == NBD_CMD_WRITE || (!more && whole->result)) {
		nbd_req_put(part);
		*result = whole->result;
		return more ? NULL : whole;
	}
	if (!more)
		nbd_req_put(whole);
	part->whole = NULL;
	part->more = more;
	return part;
}

void nbd_req_finish(struct nbd_req *r, int result)
{
	struct nbd_session *s = r->s;

	if (unlikely(r->whole)) {
		r = part_finish(r, &result);
		if (!r)
			return;
	}
	if (unlikely(result == -ECANCELED && s->closing)) { /* as if the connection had been over before */
		nbd_req_put(r);
		return;
	}
	r->result = result;
	if (result)
		r->payload_bytes = 0;
	if (!r->payload_bytes)
		nbd_req_buf_put(r);
	list_push_back(&s->ready, &r->link);
	nbd_session_kick(s);
}

static void sent(struct nbd_session *s, int64_t result)
{
	struct list *n;

	s->sending = false;
	while ((n = list_pop_front(&s->sent)))
		nbd_req_put(list_entry(n, struct nbd_req, link));
	if (result < 0)
		nbd_session_kill(s);
	else if (s->closing || !list_is_empty(&s->ready))
		nbd_session_kick(s);
}

static void sent_done(struct net_op *op)
{
	sent(op->owner, op->result);
}

/* Takes what has been sent off the front. Returns the first iovec of the rest; n if there is none. */
static unsigned iov_advance(struct iovec *iov, unsigned n, uint64_t bytes)
{
	unsigned i;

	for (i = 0; i < n && bytes >= iov[i].iov_len; i++)
		bytes -= iov[i].iov_len;
	if (i < n) {
		iov[i].iov_base = (uint8_t *)iov[i].iov_base + bytes;
		iov[i].iov_len -= bytes;
	}
	return i;
}

static void ready_drop(struct nbd_session *s)
{
	struct list *n;

	while ((n = list_pop_front(&s->ready)))
		nbd_req_put(list_entry(n, struct nbd_req, link));
}

/* Moves replies from `ready` to the iovecs, and to `sent` while their payload is needed. Returns the number of iovecs. */
static unsigned gather(struct nbd_session *s)
{
	struct iovec *iov = s->send_iov;
	uint8_t *h = s->send_hdrs;
	uint64_t bytes = 0;
	unsigned n = 0, replies;
	struct nbd_req *r;
	size_t len;

	for (replies = 0; replies < NBD_SEND_REPLIES && bytes < NBD_SEND_BYTES && !list_is_empty(&s->ready); replies++) {
		r = list_entry(list_pop_front(&s->ready), struct nbd_req, link);
		len = encode(r, h);
		if (len && n && (uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == h)
			iov[n - 1].iov_len += len;
		else if (len)
			iov[n++] = (struct iovec){h, len};
		h += len;
		if (!r->payload_bytes) {
			nbd_req_put(r);
			continue;
		}
		iov[n++] = (struct iovec){r->buf, r->payload_bytes};
		bytes += r->payload_bytes;
		list_push_back(&s->sent, &r->link);
	}
	s->send_bytes = bytes;
	return n;
}

void nbd_reply_send(struct nbd_session *s)
{
	struct net_op *op = &s->send_op;
	unsigned n, first;
	int64_t r;

	if (s->sending || list_is_empty(&s->ready))
		return;
	if (s->dead) {
		ready_drop(s);
		return;
	}
	n = gather(s);
	s->sending = true;
	r = stream_try_send(s->net.st, s->send_iov, n);
	first = r < 0 ? n : iov_advance(s->send_iov, n, (uint64_t)r);
	if (first == n) {
		sent(s, r);
		return;
	}
	*op = (struct net_op){.kind = NET_SEND, .fd = s->net.st->fd, .iov = s->send_iov + first, .iov_n = n - first, .done = sent_done, .owner = s};
	s->send_ns = reactor_now_ns();
	stream_submit(s->net.st, op);
}
