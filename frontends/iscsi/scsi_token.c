/*
 * scsi_token.c: copy by token (POPULATE TOKEN, WRITE USING TOKEN, RECEIVE ROD TOKEN INFORMATION), as Windows does it.
 *
 * A token stands for ranges of an LU, whatever they hold when it is used (type: access upon reference). It is 512 bytes, with 32 of
 * chance in them; who has it and a nexus to that LU may read the ranges by it, as he might anyway. Tokens are kept at the target, on
 * reactor 0, until their time is over.
 */
#include "frontends/iscsi/scsi_internal.h"

#define ROD_UPON_REFERENCE 0x00010000
#define ROD_ZERO 0xffff0001
#define TOKEN_SECRET_AT 128 /* the extended part is ours */

struct token {
	struct list link; /* oldest first */
	uint64_t until_ns, life_ns;
	uint8_t naa[8];
	uint8_t bytes[SCSI_TOKEN_LEN];
	uint64_t len_bytes;
	unsigned n_ranges;
	struct {
		uint64_t off_bytes, len_bytes;
	} ranges[SCSI_TOKEN_RANGES_MAX];
};

void scsi_tokens_init(struct scsi_target *t)
{
	list_init(&t->tokens);
}

static void token_drop(struct scsi_target *t, struct token *k)
{
	list_del(&k->link);
	t->n_tokens--;
	xfree(k);
}

void scsi_tokens_fini(struct scsi_target *t)
{
	while (!list_is_empty(&t->tokens))
		token_drop(t, list_first(&t->tokens, struct token, link));
}

/* ---- reactor 0 ---- */

struct token_call {
	struct scsi_target *t;
	struct token *k;	/* to be added; a copy of what has been found */
	const uint8_t *bytes;
	bool drop;
};

static void tokens_expire(struct scsi_target *t)
{
	struct token *k, *tmp;

	list_for_each_safe (k, tmp, &t->tokens, link)
		if (k->until_ns <= reactor_now_ns())
			token_drop(t, k);
	while (t->n_tokens >= SCSI_TOKENS_MAX)
		token_drop(t, list_first(&t->tokens, struct token, link));
}

static int token_add_home(void *arg)
{
	struct token_call *c = arg;

	tokens_expire(c->t);
	c->k->until_ns = reactor_now_ns() + c->k->life_ns;
	list_push_back(&c->t->tokens, &c->k->link);
	c->t->n_tokens++;
	return 0;
}

static int token_find_home(void *arg)
{
	struct token_call *c = arg;
	struct token *k;

	list_for_each (k, &c->t->tokens, link) {
		if (memcmp(k->bytes, c->bytes, SCSI_TOKEN_LEN))
			continue;
		if (k->until_ns <= reactor_now_ns())
			return -ETIME;
		k->until_ns = reactor_now_ns() + k->life_ns;
		*c->k = *k;
		list_init(&c->k->link);
		if (c->drop)
			token_drop(c->t, k);
		return 0;
	}
	return -ENOENT;
}

static int token_call(struct scsi_target *t, struct token_call *c, int (*fn)(void *arg))
{
	c->t = t;
	return reactor_co_call(t->world->reactors[0], fn, c);
}

/* ---- POPULATE TOKEN ---- */

static void token_make(struct scsi_task *t, struct token *k)
{
	uint8_t *b = k->bytes;

	memcpy(k->naa, t->lu->naa, sizeof(k->naa));
	be_put32(b, ROD_UPON_REFERENCE);
	be_put16(b + 6, SCSI_TOKEN_LEN - 8);
	world_random(t->lu->target->world, b + 8, 8);
	b[16] = 0xe4; /* by which LU */
	b[20] = 1;
	b[21] = 3;
	b[23] = 8;
	memcpy(b + 24, t->lu->naa, 8);
	be_put24(b + 16 + 29, t->lu->lba_bytes);
	be_put64(b + 48 + 8, k->len_bytes);
	be_put32(b + 96, t->lu->lba_bytes);
	world_random(t->lu->target->world, b + TOKEN_SECRET_AT, 32);
}

/* Ranges of a list at `at`; false: the failure has been set. The sum is in *sum. */
static bool ranges_check(struct scsi_task *t, const uint8_t *list, size_t at, size_t len, uint64_t *sum)
{
	const uint8_t *d = list + at;
	size_t n = len / 16, i;

	*sum = 0;
	if (!n || n > SCSI_TOKEN_RANGES_MAX || len % 16) {
		scsi_bad_list(t, (unsigned)at - 2, 8);
		return false;
	}
	for (i = 0; i < n; i++, d += 16) {
		if (!scsi_range_check(t, be_get64(d), be_get32(d + 8)))
			return false;
		*sum += t->len_bytes;
	}
	t->len_bytes = 0;
	if (*sum > SCSI_TOKEN_BYTES_MAX) {
		scsi_bad_list(t, (unsigned)at, 8);
		return false;
	}
	return true;
}

/* The parameter list, at least `least` long; NULL: the failure has been set. xfree(). */
static uint8_t *list_take(struct scsi_task *t, size_t least, size_t *len)
{
	size_t n = be_get32(scsi_task_cdb(t) + 10);
	uint8_t *list;

	t->c->want_bytes = n;
	*len = n;
	if (n < least || n > SCSI_PARAM_MAX) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return NULL;
	}
	list = xcalloc(1, n);
	if (scsi_task_out(t, 0, list, n) == n && be_get16(list) + 2u <= n)
		return list;
	scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
	xfree(list);
	return NULL;
}

/* Coroutine. */
static void populate_co(struct scsi_task *t, const uint8_t *list, size_t len, struct scsi_copy_result *result)
{
	size_t n = be_get16(list + 14), i;
	uint32_t seconds = be_get32(list + 4);
	struct token_call call = {0};
	struct token *k;
	uint64_t sum;

	if (n > len - 16) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return;
	}
	if (list[2] & 2 && be_get32(list + 8) != ROD_UPON_REFERENCE && be_get32(list + 8)) {
		scsi_bad_list(t, 8, 8);
		return;
	}
	if (seconds > SCSI_TOKEN_SECONDS_MAX) {
		scsi_bad_list(t, 4, 8);
		return;
	}
	if (!ranges_check(t, list, 16, n, &sum))
		return;
	k = xcalloc(1, sizeof(*k));
	k->life_ns = (seconds ? seconds : SCSI_TOKEN_SECONDS) * NS_PER_SEC;
	k->len_bytes = sum;
	for (i = 0; i < n / 16; i++) {
		k->ranges[i].off_bytes = be_get64(list + 16 + 16 * i) << t->lu->lba_shift;
		k->ranges[i].len_bytes = (uint64_t)be_get32(list + 16 + 16 * i + 8) << t->lu->lba_shift;
	}
	k->n_ranges = (unsigned)(n / 16);
	token_make(t, k);
	result->token = xmalloc(SCSI_TOKEN_LEN);
	memcpy(result->token, k->bytes, SCSI_TOKEN_LEN);
	result->moved = sum >> t->lu->lba_shift;
	call.k = k; /* the target's now: it may go at any time */
	(void)token_call(t->lu->target, &call, token_add_home);
}

void scsi_run_populate_token(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	struct scsi_copy_result *result;
	size_t len;
	uint8_t *list = list_take(t, 16, &len);

	if (list) {
		result = scsi_copy_result_begin(t, be_get32(cdb + 6));
		if (result) {
			populate_co(t, list, len, result);
			scsi_copy_result_end(t, result);
		} else {
			scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_OPERATION_IN_PROGRESS);
		}
	}
	xfree(list);
	scsi_task_end_later(t);
}

/* ---- WRITE USING TOKEN ---- */

struct write_token {
	struct scsi_task *t;
	const uint8_t *ranges; /* 16 bytes each */
	size_t n_ranges;
	uint64_t skip_bytes; /* into what the token stands for */
	uint64_t sum_bytes;
	struct scsi_copy_result *result;
};

/* The token's bytes [at, at + len): one piece of one of its ranges. Its length. */
static uint64_t token_piece(const struct token *k, uint64_t at, uint64_t len, uint64_t *off)
{
	unsigned i;

	for (i = 0; i < k->n_ranges; at -= k->ranges[i].len_bytes, i++) {
		if (at >= k->ranges[i].len_bytes)
			continue;
		*off = k->ranges[i].off_bytes + at;
		return MIN(len, k->ranges[i].len_bytes - at);
	}
	return 0;
}

/* Coroutine. src NULL: zeros. */
static int token_co_copy(struct write_token *w, const struct token *k, struct scsi_lu *src)
{
	uint64_t at = w->skip_bytes, off, len, n, moved, from = 0;
	struct scsi_lu *lu = w->t->lu;
	size_t i;
	int r = 0;

	for (i = 0; i < w->n_ranges && r == 0; i++) {
		off = be_get64(w->ranges + 16 * i) << lu->lba_shift;
		len = (uint64_t)be_get32(w->ranges + 16 * i + 8) << lu->lba_shift;
		for (; len && r == 0 && !w->t->aborted; len -= n, off += n, at += n) {
			n = src ? token_piece(k, at, len, &from) : len;
			if (!n)
				return 0; /* the token stands for less: what is moved says so */
			r = scsi_co_copy(w->t, (struct scsi_copy_end){src, from}, (struct scsi_copy_end){lu, off}, n, &moved);
			w->result->moved += moved >> lu->lba_shift;
		}
	}
	return r;
}

static void token_failed(struct scsi_task *t, int r)
{
	if (r == -ENOENT)
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_TOKEN_UNKNOWN);
	else if (r == -ETIME)
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_TOKEN_EXPIRED);
	else if (r == -EACCES)
		scsi_fail(t, KEY_COPY_ABORTED, ASC_COPY_TARGET_NOT_REACHABLE);
	else
		scsi_fail_errno(t, r);
}

/* Coroutine. */
static void write_token_co(struct write_token *w, const uint8_t *token, bool drop)
{
	struct scsi_task *t = w->t;
	struct token_call call = {.bytes = token, .drop = drop};
	struct scsi_lu *src = NULL;
	int r = 0;

	call.k = xcalloc(1, sizeof(*call.k));
	if (be_get32(token) != ROD_ZERO) {
		r = token_call(t->lu->target, &call, token_find_home);
		if (r == 0)
			r = scsi_lu_co_find(t->nexus, call.k->naa, &src);
	}
	if (r == 0 && src && w->skip_bytes >= call.k->len_bytes)
		scsi_bad_list(t, 8, 8);
	else if (r == 0)
		r = token_co_copy(w, call.k, src);
	if (r < 0)
		token_failed(t, r);
	if (src)
		scsi_lu_co_put(src);
	xfree(call.k);
}

void scsi_run_write_using_token(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	struct write_token w = {.t = t};
	uint64_t skip;
	size_t len, n;
	uint8_t *list = list_take(t, 536, &len);

	if (!list) {
		scsi_task_end_later(t);
		return;
	}
	n = be_get16(list + 534);
	skip = be_get64(list + 8);
	w.ranges = list + 536;
	w.n_ranges = n / 16;
	w.skip_bytes = skip << t->lu->lba_shift;
	if (n > len - 536) {
		scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
	} else if (skip > SCSI_TOKEN_BYTES_MAX) {
		scsi_bad_list(t, 8, 8);
	} else if (ranges_check(t, list, 536, n, &w.sum_bytes)) {
		w.result = scsi_copy_result_begin(t, be_get32(cdb + 6));
		if (w.result) {
			write_token_co(&w, list + 16, list[2] & 2);
			scsi_copy_result_end(t, w.result);
		} else {
			scsi_fail(t, KEY_ILLEGAL_REQUEST, ASC_OPERATION_IN_PROGRESS);
		}
	}
	xfree(list);
	scsi_task_end_later(t);
}

/* ---- RECEIVE ROD TOKEN INFORMATION ---- */

void scsi_run_receive_token(struct scsi_task *t)
{
	const uint8_t *cdb = scsi_task_cdb(t);
	const struct scsi_copy_result *r = scsi_copy_result_find(t, be_get32(cdb + 2));
	size_t n = 32;
	uint8_t *p;

	if (!r || r->service_action == SA_EXTENDED_COPY_LID1) {
		scsi_bad_cdb(t, 2, 8);
		scsi_task_end_later(t);
		return;
	}
	p = scsi_task_in(t, 32 + SCSI_SENSE_MAX + 4 + 2 + SCSI_TOKEN_LEN);
	p[4] = r->service_action;
	p[5] = r->status ? (r->status == 1 ? 0x01 : 0x02) : 0x11;
	be_put16(p + 6, 1);
	p[13] = r->sense_len; /* room for sense, and how much there is */
	p[14] = r->sense_len;
	p[15] = 0xf1; /* transfer count in blocks */
	be_put64(p + 16, r->moved);
	be_put16(p + 24, r->segments);
	memcpy(p + n, r->sense, r->sense_len);
	n += r->sense_len;
	n += 4;
	if (r->token && r->status == 1) {
		be_put32(p + n - 4, 2 + SCSI_TOKEN_LEN);
		memcpy(p + n + 2, r->token, SCSI_TOKEN_LEN);
		n += 2 + SCSI_TOKEN_LEN;
	}
	be_put32(p, (uint32_t)(n - 4));
	scsi_task_reply(t, n, be_get32(cdb + 10));
}
