/*
 * The handshake: fixed newstyle. Straight-line coroutine code around a table of options.
 *
 * Nothing here trusts a length: an option's data is at most OPT_BYTES and is read whole before it is looked at (longer ones
 * are skipped and answered TOO_BIG, or end the connection), strings are at most NBD_STRING_MAX, the number of options and
 * the time are limited. Everything is received exactly, never beyond the current option, so no bytes are left over when
 * the transmission phase begins on another reactor.
 */
#include <stdio.h>

#include "engine/io/access.h"
#include "nbd/session.h"

#define OPT_BYTES (16 * KIB)
#define OPT_SKIP_MAX (64 * KIB)
#define OPTS_MAX 256
#define QUERIES_MAX 64
#define LIST_BYTES_MAX (4 * MIB)
#define PREFERRED_MAX (1 * MIB)

enum { HS_NEXT = 0, HS_START = 1 }; /* results of an option; negative: the connection ends */

struct handshake {
	struct nbd_session *s;
	uint64_t deadline_ns;
	bool no_zeroes;
	uint32_t opt, len;
	uint8_t *data;	   /* OPT_BYTES */
	uint8_t *out;
	size_t out_len, out_cap;
	char *ctx_export;  /* for which contexts were set; NULL: none */
	unsigned n_contexts;
	struct nbd_context contexts[NBD_CONTEXTS_MAX];
};

/* A reader over an option's data: after a read beyond its end everything is zero and bad is set. */
struct cursor {
	const uint8_t *p;
	size_t left;
	bool bad;
};

static const uint8_t *cursor_take(struct cursor *c, size_t len)
{
	const uint8_t *p = c->p;

	if (c->bad || len > c->left) {
		c->bad = true;
		return NULL;
	}
	c->p += len;
	c->left -= len;
	return p;
}

static uint32_t cursor_u32(struct cursor *c)
{
	const uint8_t *p = cursor_take(c, 4);

	return p ? be32_get(*(const be32 *)p) : 0;
}

static uint16_t cursor_u16(struct cursor *c)
{
	const uint8_t *p = cursor_take(c, 2);

	return p ? be16_get(*(const be16 *)p) : 0;
}

/* A string with its length before it; NULL if it does not fit. */
static const uint8_t *cursor_string(struct cursor *c, uint32_t *len)
{
	*len = cursor_u32(c);
	return cursor_take(c, *len);
}

/* Length of the UTF-8 sequence at p, 0 if it is none (overlong, surrogate, beyond U+10FFFF). */
static size_t utf8_len(const uint8_t *p, size_t left, uint32_t *cp)
{
	static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = p[0] < 0x80 ? 1 : (p[0] & 0xe0) == 0xc0 ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : (p[0] & 0xf8) == 0xf0 ? 4 : 0;
	size_t i;

	if (!n || n > left)
		return 0;
	*cp = n == 1 ? p[0] : p[0] & (0x7fu >> n);
	for (i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		*cp = *cp << 6 | (p[i] & 0x3f);
	}
	if (*cp < least[n] || *cp > 0x10ffff || (*cp >= 0xd800 && *cp < 0xe000))
		return 0;
	return n;
}

bool nbd_string_is_valid(const void *text, size_t len)
{
	const uint8_t *p = text;
	uint32_t cp;
	size_t n;

	if (len > NBD_STRING_MAX)
		return false;
	for (; len; p += n, len -= n) {
		n = utf8_len(p, len, &cp);
		if (!n || cp < 0x20 || (cp >= 0x7f && cp < 0xa0))
			return false;
	}
	return true;
}

/* ---- replies ---- */

static void out_add(struct handshake *h, const void *p, size_t len)
{
	if (h->out_len + len > h->out_cap) {
		h->out_cap = MAX(h->out_cap * 2, h->out_len + len + 512);
		h->out = xrealloc(h->out, h->out_cap);
	}
	if (len)
		memcpy(h->out + h->out_len, p, len);
	h->out_len += len;
}

static void rep_header(struct handshake *h, uint32_t type, size_t len)
{
	struct nbd_rep_hdr hdr = {
		.magic = be64_make(NBD_REP_MAGIC),
		.option = be32_make(h->opt),
		.type = be32_make(type),
		.len_bytes = be32_make((uint32_t)len),
	};

	out_add(h, &hdr, sizeof(hdr));
}

static int rep_plain(struct handshake *h, uint32_t type)
{
	rep_header(h, type, 0);
	return HS_NEXT;
}

static int rep_error(struct handshake *h, uint32_t type, const char *text)
{
	rep_header(h, type, strlen(text));
	out_add(h, text, strlen(text));
	return HS_NEXT;
}

static int out_flush(struct handshake *h)
{
	struct iovec iov = {.iov_base = h->out, .iov_len = h->out_len};
	int r;

	if (!h->out_len)
		return 0;
	r = stream_co_send_all(h->s->net.st, &iov, 1, h->deadline_ns);
	h->out_len = 0;
	return r;
}

static int hs_recv(struct handshake *h, void *p, size_t len)
{
	return len ? stream_co_recv_all(h->s->net.st, p, len, h->deadline_ns) : 0;
}

/* ---- attaching ---- */

static int detach_home(void *arg)
{
	struct nbd_session *s = arg;

	s->srv->p.co_detach(s->srv->p.arg, &s->at);
	s->gone = false; /* was about this attachment */
	return 0;
}

static void hs_detach(struct handshake *h)
{
	reactor_co_call(h->s->at.home, detach_home, h->s);
}

/* name: valid and terminated. */
static int hs_attach(struct handshake *h, const char *name)
{
	struct nbd_session *s = h->s;
	struct err e = {0};
	struct nbd_client c = {.s = s, .st = s->net.st, .is_look = h->opt != NBD_OPT_GO && h->opt != NBD_OPT_EXPORT_NAME};
	char shown[256];
	int r;

	memset(&s->at, 0, sizeof(s->at));
	r = s->srv->p.co_attach(s->srv->p.arg, name, &c, &s->at, &e);
	if (r < 0)
		nbd_log(s->srv, "nbd: %s: export \"%s\": %s", s->net.st->peer, log_escape(name, strlen(name), shown, sizeof(shown)),
			e.code ? e.text : err_text(r));
	return r;
}

static uint32_t attach_error(int r)
{
	return r == -ENOENT ? NBD_REP_ERR_UNKNOWN : r == -ESHUTDOWN ? NBD_REP_ERR_SHUTDOWN : NBD_REP_ERR_POLICY;
}

/* Terminates the name in place of the byte after it (data has room for one more), or refuses it. */
static char *name_dup(const uint8_t *p, uint32_t len)
{
	char *s;

	if (!p || !nbd_string_is_valid(p, len))
		return NULL;
	s = xmalloc(len + 1);
	memcpy(s, p, len);
	s[len] = '\0';
	return s;
}

static bool has_contexts(const struct handshake *h, const char *name)
{
	return h->ctx_export && !strcmp(h->ctx_export, name) && h->n_contexts;
}

/* Of the attached export, by this name. */
static uint16_t transmission_flags(const struct handshake *h, const char *name)
{
	const struct nbd_session *s = h->s;
	unsigned f = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;

	if (s->structured)
		f |= NBD_FLAG_SEND_DF;
	if (s->extended && (h->opt == NBD_OPT_INFO || has_contexts(h, name)))
		f |= NBD_FLAG_BLOCK_STATUS_PAYLOAD;
	if (s->at.read_only || s->at.bdev->read_only)
		return (uint16_t)(f | NBD_FLAG_READ_ONLY);
	if (s->at.bdev->can_discard)
		f |= NBD_FLAG_SEND_TRIM;
	return (uint16_t)(f | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO);
}

/* The attached session goes over to the transmission phase under this name. */
static int start(struct handshake *h, const char *name)
{
	struct nbd_session *s = h->s;
	const char *shown = s->at.name ? s->at.name : name;

	s->n_contexts = has_contexts(h, name) ? h->n_contexts : 0;
	memcpy(s->contexts, h->contexts, sizeof(s->contexts));
	snprintf(s->export_name, sizeof(s->export_name), "%s", shown);
	return HS_START;
}

/* ---- options ---- */

static int opt_export_name(struct handshake *h)
{
	struct nbd_export_reply rep = {0};
	char *name = name_dup(h->data, h->len);
	int r = -EPROTO;

	if (!name || h->s->extended || hs_attach(h, name) < 0)
		goto out; /* this option knows no error reply */
	rep.size_bytes = be64_make(h->s->at.bdev->size_bytes);
	rep.flags = be16_make(transmission_flags(h, name));
	out_add(h, &rep, h->no_zeroes ? offsetof(struct nbd_export_reply, zeroes) : sizeof(rep));
	r = start(h, name);
out:
	xfree(name);
	return r;
}

static int opt_abort(struct handshake *h)
{
	rep_plain(h, NBD_REP_ACK);
	if (out_flush(h) < 0)
		return -ECONNRESET;
	return -ECONNABORTED;
}

static void list_each(void *arg, const char *name, const char *description)
{
	struct handshake *h = arg;
	size_t n = strlen(name), d = description ? strlen(description) : 0;
	be32 len = be32_make((uint32_t)n);

	if (h->out_len > LIST_BYTES_MAX || n > NBD_STRING_MAX || d > NBD_STRING_MAX)
		return;
	rep_header(h, NBD_REP_SERVER, sizeof(len) + n + d);
	out_add(h, &len, sizeof(len));
	out_add(h, name, n);
	out_add(h, description, d);
}

static int opt_list(struct handshake *h)
{
	const struct nbd_provider *p = &h->s->srv->p;
	struct nbd_client c = {.s = h->s, .st = h->s->net.st, .is_look = true};
	int r;

	if (h->len)
		return rep_error(h, NBD_REP_ERR_INVALID, "LIST takes no data");
	r = p->co_list(p->arg, &c, list_each, h);
	if (r < 0)
		return rep_error(h, NBD_REP_ERR_POLICY, "exports cannot be listed now");
	if (h->out_len > LIST_BYTES_MAX)
		return rep_error(h, NBD_REP_ERR_TOO_BIG, "too many exports to list them all");
	return rep_plain(h, NBD_REP_ACK);
}

static void info_string(struct handshake *h, uint16_t type, const char *text)
{
	be16 t = be16_make(type);
	size_t n = strnlen(text, NBD_STRING_MAX);

	rep_header(h, NBD_REP_INFO, sizeof(t) + n);
	out_add(h, &t, sizeof(t));
	out_add(h, text, n);
}

static uint32_t preferred_bytes(const struct bdev *b)
{
	uint32_t want = MIN(MAX(b->opt_bytes, 4096u), (uint32_t)PREFERRED_MAX), p = MAX(b->block_bytes, 4096u);

	while (p * 2 <= want)
		p *= 2;
	return p;
}

static void info_add(struct handshake *h, uint16_t type, const char *name)
{
	const struct nbd_attach *at = &h->s->at;
	struct nbd_info_export e = {
		.type = be16_make(NBD_INFO_EXPORT),
		.size_bytes = be64_make(at->bdev->size_bytes),
		.flags = be16_make(transmission_flags(h, name)),
	};
	struct nbd_info_block_size b = {
		.type = be16_make(NBD_INFO_BLOCK_SIZE),
		.min_bytes = be32_make(at->bdev->block_bytes),
		.preferred_bytes = be32_make(preferred_bytes(at->bdev)),
		.max_bytes = be32_make((uint32_t)NBD_PAYLOAD_MAX),
	};

	switch (type) {
	case NBD_INFO_EXPORT:
		rep_header(h, NBD_REP_INFO, sizeof(e));
		out_add(h, &e, sizeof(e));
		break;
	case NBD_INFO_NAME:
		info_string(h, type, at->name ? at->name : name);
		break;
	case NBD_INFO_DESCRIPTION:
		if (at->description)
			info_string(h, type, at->description);
		break;
	case NBD_INFO_BLOCK_SIZE:
		rep_header(h, NBD_REP_INFO, sizeof(b));
		out_add(h, &b, sizeof(b));
		break;
	}
}

/* INFO and GO. */
static int opt_info(struct handshake *h)
{
	struct cursor c = {.p = h->data, .left = h->len};
	uint32_t len, i, n, wanted = 1u << NBD_INFO_EXPORT;
	const uint8_t *p = cursor_string(&c, &len);
	uint16_t type;
	char *name;
	int r;

	n = cursor_u16(&c);
	for (i = 0; i < n && !c.bad; i++) {
		type = cursor_u16(&c);
		wanted |= type <= NBD_INFO_BLOCK_SIZE ? 1u << type : 0;
	}
	if (c.bad || c.left)
		return rep_error(h, NBD_REP_ERR_INVALID, "lengths do not add up");
	name = name_dup(p, len);
	if (!name)
		return rep_error(h, NBD_REP_ERR_INVALID, "not a valid export name");
	r = hs_attach(h, name);
	if (r < 0) {
		xfree(name);
		return rep_error(h, attach_error(r), r == -ENOENT ? "no such export" : err_text(r));
	}
	for (type = 0; type <= NBD_INFO_BLOCK_SIZE; type++)
		if (wanted & 1u << type)
			info_add(h, type, name);
	rep_plain(h, NBD_REP_ACK);
	r = HS_NEXT;
	if (h->opt == NBD_OPT_GO)
		r = start(h, name);
	else
		hs_detach(h);
	xfree(name);
	return r;
}

static int opt_structured_reply(struct handshake *h)
{
	if (h->len)
		return rep_error(h, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY takes no data");
	if (h->s->extended)
		return rep_error(h, NBD_REP_ERR_EXT_HEADER_REQD, "extended headers are in use already");
	h->s->structured = true;
	return rep_plain(h, NBD_REP_ACK);
}

static int opt_extended_headers(struct handshake *h)
{
	if (h->len)
		return rep_error(h, NBD_REP_ERR_INVALID, "EXTENDED_HEADERS takes no data");
	h->s->structured = h->s->extended = true;
	return rep_plain(h, NBD_REP_ACK);
}

/* ---- TLS ---- */

static bool tls_is_required(const struct nbd_session *s)
{
	const struct nbd_options *o = &s->srv->o;

	return !s->net.st->is_tls && (o->tls_required || (!o->insecure && !s->net.st->is_loopback));
}

static void contexts_forget(struct handshake *h)
{
	xfree(h->ctx_export);
	h->ctx_export = NULL;
	h->n_contexts = 0;
}

static int tls_check_name(const struct nbd_session *s, struct err *e)
{
	const char *const *name;

	for (name = s->srv->o.tls_allow; name && *name; name++)
		if (access_has_name(s->net.st, *name, strlen(*name)))
			return 0;
	return s->srv->o.tls_allow ? err_set(e, -EACCES, "TLS: the client's name is not among those that are allowed") : 0;
}

/* Whatever was sent behind the option in the clear is taken for a part of TLS's handshake, and fails it; whatever was
 * agreed on before it is forgotten. */
static int opt_starttls(struct handshake *h)
{
	struct nbd_session *s = h->s;
	struct err e = {0};
	char shown[256];
	int r;

	if (!s->srv->o.tls)
		return rep_error(h, NBD_REP_ERR_UNSUP, "no TLS here");
	if (s->net.st->is_tls)
		return rep_error(h, NBD_REP_ERR_INVALID, "TLS is in use already");
	if (h->len)
		return rep_error(h, NBD_REP_ERR_INVALID, "STARTTLS takes no data");
	rep_plain(h, NBD_REP_ACK);
	r = out_flush(h);
	if (r < 0)
		return r;
	s->structured = s->extended = false;
	contexts_forget(h);
	s->net.st = tls_stream_create(s->srv->o.tls, s->net.st);
	r = tls_co_handshake(s->net.st, h->deadline_ns, &e);
	if (r == 0)
		r = tls_check_name(s, &e);
	if (r < 0 && !s->net.dropped)
		nbd_log(s->srv, "nbd: %s: %s", s->net.st->peer, log_escape(e.text, strlen(e.text), shown, sizeof(shown)));
	return r < 0 ? -ECONNABORTED : HS_NEXT;
}

/* ---- metadata contexts ---- */

struct ctx_query {
	struct handshake *h;
	bool set, too_many;
	uint32_t n;
	struct cursor queries; /* n strings; looked at already */
};

/* 0 or the reply type of the error. */
static uint32_t ctx_queries(struct ctx_query *q, struct cursor *c)
{
	uint32_t i, len;
	const uint8_t *p;

	q->n = cursor_u32(c);
	q->queries = *c;
	if (!c->bad && q->n > QUERIES_MAX)
		return NBD_REP_ERR_TOO_BIG;
	for (i = 0; i < q->n && !c->bad; i++) {
		p = cursor_string(c, &len);
		if (p && len > NBD_STRING_MAX)
			return NBD_REP_ERR_TOO_BIG;
	}
	return c->bad || c->left ? NBD_REP_ERR_INVALID : 0;
}

/* By its name; in a list also by a part of it up to a colon, or because nothing is asked for. */
static bool ctx_is_asked(const struct ctx_query *q, const char *name)
{
	struct cursor c = q->queries;
	size_t n = strlen(name);
	const uint8_t *p;
	uint32_t i, len;

	for (i = 0; i < q->n; i++) {
		p = cursor_string(&c, &len);
		if (len <= n && !memcmp(p, name, len) && (len == n || (!q->set && len && p[len - 1] == ':')))
			return true;
	}
	return !q->set && !q->n;
}

static void rep_context(struct handshake *h, uint32_t id, const char *name)
{
	be32 x = be32_make(id);

	rep_header(h, NBD_REP_META_CONTEXT, sizeof(x) + strlen(name));
	out_add(h, &x, sizeof(x));
	out_add(h, name, strlen(name));
}

static void ctx_add(struct ctx_query *q, const char *name, struct nbd_context c)
{
	struct handshake *h = q->h;

	if (q->too_many || !ctx_is_asked(q, name))
		return;
	q->too_many = q->set ? h->n_contexts == NBD_CONTEXTS_MAX : h->out_len > LIST_BYTES_MAX;
	if (q->too_many)
		return;
	if (q->set)
		h->contexts[h->n_contexts++] = c;
	rep_context(h, q->set ? h->n_contexts : 0, name);
}

static void ctx_each(void *arg, const char *name, uint64_t key)
{
	ctx_add(arg, name, (struct nbd_context){.key = key});
}

/* The attached export's contexts that are asked for. */
static int ctx_reply(struct ctx_query *q)
{
	struct handshake *h = q->h;
	const struct nbd_provider *p = &h->s->srv->p;
	size_t before = h->out_len;
	int r = 0;

	ctx_add(q, "base:allocation", (struct nbd_context){.is_allocation = true});
	if (p->co_contexts)
		r = p->co_contexts(p->arg, &h->s->at, ctx_each, q);
	if (r == 0 && !q->too_many)
		return rep_plain(h, NBD_REP_ACK);
	h->out_len = before;
	h->n_contexts = 0;
	if (r < 0)
		return rep_error(h, attach_error(r), err_text(r));
	return rep_error(h, NBD_REP_ERR_TOO_BIG, q->set ? "too many contexts at once" : "too many contexts to list them all");
}

/* LIST_META_CONTEXT and SET_META_CONTEXT. */
static int opt_meta_context(struct handshake *h)
{
	struct cursor c = {.p = h->data, .left = h->len};
	struct ctx_query q = {.h = h, .set = h->opt == NBD_OPT_SET_META_CONTEXT};
	uint32_t len, bad;
	const uint8_t *p;
	char *name;
	int r;

	if (q.set) /* replaces what was set before, also when it fails */
		contexts_forget(h);
	if (!h->s->structured)
		return rep_error(h, NBD_REP_ERR_INVALID, "structured replies come first");
	p = cursor_string(&c, &len);
	bad = ctx_queries(&q, &c);
	if (bad)
		return rep_error(h, bad, "not a valid list of queries");
	name = name_dup(p, len);
	if (!name)
		return rep_error(h, NBD_REP_ERR_INVALID, "not a valid export name");
	r = hs_attach(h, name);
	if (r < 0) {
		xfree(name);
		return rep_error(h, attach_error(r), r == -ENOENT ? "no such export" : err_text(r));
	}
	r = ctx_reply(&q);
	hs_detach(h);
	if (q.set)
		h->ctx_export = name;
	else
		xfree(name);
	return r;
}

static const struct {
	uint32_t opt;
	int (*run)(struct handshake *h);
} options[] = {
	{NBD_OPT_EXPORT_NAME, opt_export_name},
	{NBD_OPT_ABORT, opt_abort},
	{NBD_OPT_LIST, opt_list},
	{NBD_OPT_STARTTLS, opt_starttls},
	{NBD_OPT_INFO, opt_info},
	{NBD_OPT_GO, opt_info},
	{NBD_OPT_STRUCTURED_REPLY, opt_structured_reply},
	{NBD_OPT_LIST_META_CONTEXT, opt_meta_context},
	{NBD_OPT_SET_META_CONTEXT, opt_meta_context},
	{NBD_OPT_EXTENDED_HEADERS, opt_extended_headers},
};

static int opt_run(struct handshake *h)
{
	size_t i;

	if (tls_is_required(h->s) && h->opt != NBD_OPT_STARTTLS && h->opt != NBD_OPT_ABORT) {
		if (h->opt == NBD_OPT_EXPORT_NAME)
			return -EPROTO; /* it knows no error reply */
		return rep_error(h, NBD_REP_ERR_TLS_REQD, "this server speaks about it only through TLS");
	}
	for (i = 0; i < ARRAY_LEN(options); i++)
		if (options[i].opt == h->opt)
			return options[i].run(h);
	return rep_plain(h, NBD_REP_ERR_UNSUP);
}

/* ---- the conversation ---- */

static int greet(struct handshake *h)
{
	struct nbd_greeting g = {
		.magic = be64_make(NBD_MAGIC),
		.opt_magic = be64_make(NBD_OPT_MAGIC),
		.flags = be16_make(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
	};
	uint32_t flags;
	be32 wire;
	int r;

	out_add(h, &g, sizeof(g));
	r = out_flush(h);
	if (r < 0)
		return r;
	r = hs_recv(h, &wire, sizeof(wire));
	if (r < 0)
		return r;
	flags = be32_get(wire);
	if (flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES))
		return -EPROTO;
	h->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
	return 0;
}

/* An option that is too long to be looked at. */
static int opt_skip(struct handshake *h)
{
	uint32_t left, n;
	int r;

	if (h->len > OPT_SKIP_MAX || h->opt == NBD_OPT_EXPORT_NAME)
		return -EPROTO;
	for (left = h->len; left; left -= n) {
		n = MIN(left, (uint32_t)OPT_BYTES);
		r = hs_recv(h, h->data, n);
		if (r < 0)
			return r;
	}
	return rep_error(h, NBD_REP_ERR_TOO_BIG, "option is too long");
}

static int opt_next(struct handshake *h)
{
	struct nbd_opt_hdr hdr;
	int r;

	r = hs_recv(h, &hdr, sizeof(hdr));
	if (r < 0)
		return r;
	if (be64_get(hdr.magic) != NBD_OPT_MAGIC)
		return -EPROTO;
	h->opt = be32_get(hdr.option);
	h->len = be32_get(hdr.len_bytes);
	if (h->len > OPT_BYTES)
		return opt_skip(h);
	r = hs_recv(h, h->data, h->len);
	if (r < 0)
		return r;
	return opt_run(h);
}

static int converse(struct handshake *h)
{
	unsigned n;
	int r, r2;

	r = greet(h);
	for (n = 0; n < OPTS_MAX && r == HS_NEXT; n++) {
		r = opt_next(h);
		if (r < 0)
			return r;
		r2 = out_flush(h);
		if (r2 < 0 || h->s->net.dropped || h->s->srv->net.stopping) {
			if (r == HS_START)
				hs_detach(h);
			return r2 < 0 ? r2 : -ECONNABORTED;
		}
	}
	return r == HS_NEXT ? -EPROTO : r;
}

int nbd_handshake_co(struct nbd_session *s)
{
	struct handshake h = {.s = s};
	int r;

	h.deadline_ns = reactor_now_ns() + s->srv->o.handshake_ns;
	h.data = xmalloc(OPT_BYTES);
	r = converse(&h);
	if (r < 0 && r != -ECONNABORTED && r != -ECONNRESET)
		nbd_log(s->srv, "nbd: %s: handshake failed: %s", s->net.st->peer, err_text(r));
	xfree(h.data);
	xfree(h.out);
	xfree(h.ctx_export);
	return r == HS_START ? 0 : -1;
}
