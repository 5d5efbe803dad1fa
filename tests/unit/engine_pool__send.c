/* Send and receive, in the simulated world: streams whole, cut, damaged, resumed; power cuts on the receiving side. */
#include "engine/pool/stream.h"
#include "tests/lib/pipe_stream.h"
#include "tests/unit/engine_pool__send.h"
#include "tests/unit/unit.h"

/* ---- whole streams ---- */

static int body_chain(struct two *t)
{
	struct ashlar_snapshot_info a, b;
	char name[16];
	unsigned i;
	int r = 0;

	for (i = 0; i < N_SNAPS && r == 0; i++) {
		const struct bytes *s = i ? &t->inc[i] : &t->whole[0];

		r = two_co_receive(t, (struct ashlar_receive_spec){ 0 }, s->p, s->len);
		snprintf(name, sizeof(name), "b/w@s%u", i);
		MUST(r == 0 && two_co_newest(t) == (int)i && two_co_has(t, "b/w", i) && two_co_has(t, name, i));
	}
	for (i = 0; i < N_SNAPS && r == 0; i++) { /* later ones have not changed earlier ones */
		snprintf(name, sizeof(name), "b/w@s%u", i);
		MUST(two_co_has(t, name, i));
	}
	MUST(ashlar_co_snapshot_info(t->src, "v@s0", &a, &t->e) == 0 && ashlar_co_snapshot_info(t->dst, "w@s0", &b, &t->e) == 0);
	MUST(a.used_bytes < a.size_bytes);
	if (t->src_cluster == t->dst_cluster)
		MUST(a.used_bytes == b.used_bytes && a.refer_bytes == b.refer_bytes);
	MUST(uuid_is_equal(&a.guid, &b.guid));
	MUST(two_co_is_clean(t));
	return r;
}

static int body_still_there(struct two *t)
{
	MUST(two_co_newest(t) == N_SNAPS - 1 && two_co_has(t, "b/w@s0", 0) && two_co_has(t, "b/w", N_SNAPS - 1));
	MUST(two_co_is_clean(t));
	return 0;
}

static void whole_and_increments_arrive_with_their_holes(void)
{
	struct two t;
	uint64_t seed;

	for (seed = 1; seed <= 12; seed++) {
		two_open(&t, seed);
		CU_ASSERT_EQUAL(two_live(&t, body_chain), 0);
		CU_ASSERT_EQUAL(two_live(&t, body_still_there), 0);
		two_close(&t);
	}
}

/* From any snapshot to any other, backwards too. */
static int body_jump(struct two *t)
{
	struct bytes s = { 0 };
	int r = two_co_receive(t, (struct ashlar_receive_spec){ 0 }, t->whole[3].p, t->whole[3].len);

	if (r == 0)
		r = two_co_send(t, 1, 3, NULL, &s);
	if (r == 0)
		r = two_co_receive(t, (struct ashlar_receive_spec){ 0 }, s.p, s.len);
	MUST(two_co_has(t, "b/w", 1) && two_co_has(t, "b/w@s1", 1) && two_co_has(t, "b/w@s3", 3) && two_co_is_clean(t));
	free(s.p);
	return r;
}

static void increments_go_from_any_snapshot_to_any(void)
{
	struct two t;

	two_open(&t, 21);
	CU_ASSERT_EQUAL(two_live(&t, body_jump), 0);
	two_close(&t);
}

/* ---- cut and resumed ---- */

/* The stream, cut at random places again and again, each time resumed by the token if there is one. */
static int cut_until_done(struct two *t, unsigned snap, int from, const struct bytes *first)
{
	struct bytes s = { .p = malloc(first->len), .len = first->len };
	struct ashlar_receive_spec spec = { .keep_bytes = 64 * KIB };
	unsigned tries = 0, n_resumed = 0;
	char token[96];
	int r;

	memcpy(s.p, first->p, s.len);
	for (;;) {
		size_t cut = tries++ < 5 ? rng_below(&t->rng, s.len) : s.len;

		r = two_co_receive(t, spec, s.p, cut);
		if (r == 0 || cut == s.len)
			break;
		MUST(two_co_newest(t) == from); /* nothing new is to be seen */
		if (!two_co_token(t, token))
			continue;
		MUST(strstr(t->e.text, "there is no stream") || strstr(t->e.text, token));
		n_resumed++;
		MUST(two_co_send(t, snap, from, token, &s) == 0);
	}
	MUST(r == 0 && n_resumed && !two_co_token(t, token) && two_co_newest(t) == (int)snap && two_co_has(t, "b/w", snap));
	free(s.p);
	return r;
}

static int body_cuts(struct two *t)
{
	unsigned i;
	int r = cut_until_done(t, 0, -1, &t->whole[0]);

	for (i = 1; i < N_SNAPS && r == 0; i++)
		r = cut_until_done(t, i, (int)i - 1, &t->inc[i]);
	MUST(two_co_is_clean(t));
	return r;
}

static void a_cut_stream_shows_nothing_and_resumes(void)
{
	struct two t;
	uint64_t seed;

	for (seed = 31; seed < 37; seed++) {
		two_open(&t, seed);
		CU_ASSERT_EQUAL(two_live(&t, body_cuts), 0);
		two_close(&t);
	}
}

/* Cut where a subcluster of the one pool begins, and none of the other, to which it has gone since. */
static int body_moved(struct two *t)
{
	struct ashlar_send_spec s = { .snapshot = "v@s0" };
	struct ashlar_move_spec m = { .volume = "v", .to = t->dst };
	struct ashlar_receive_spec spec = { .keep_bytes = 1024 };
	struct ashlar_move_info info;
	struct ashlar_job_info job;
	struct ashlar_transfer done;
	char token[96] = "";
	struct stream *io;
	uint8_t *p = NULL;
	size_t len = 0, cut;
	struct stream_token tok = { 0 };

	for (cut = t->whole[0].len / 3; tok.start_bytes % 4096 == 0; cut += 1024) {
		MUST(two_co_receive(t, spec, t->whole[0].p, cut) < 0);
		MUST(two_co_token(t, token) && stream_token_parse(token, &tok) == 0);
	}
	MUST(ashlar_co_volume_move(t->src, &m, &info, &t->e) == 0);
	MUST(ashlar_co_job_wait(t->src, info.job, 600 * NS_PER_SEC, &job, &t->e) == 0 && job.state == ASHLAR_JOB_DONE);
	s.resume = token;
	io = stream_from_memory(NULL, 0, 0, &p, &len);
	MUST(ashlar_co_send(t->dst, &s, io, &done, &t->e) == 0);
	stream_close(io);
	MUST(two_co_receive(t, spec, p, len) == 0);
	MUST(two_co_has(t, "b/w", 0) && two_co_has(t, "b/w@s0", 0) && two_co_is_clean(t));
	xfree(p);
	return 0;
}

static void a_cut_stream_is_resumed_from_the_pool_that_the_snapshot_is_in_now(void)
{
	struct two t;

	two_open(&t, 39);
	CU_ASSERT(t.src_cluster < t.dst_cluster);
	CU_ASSERT_EQUAL(two_live(&t, body_moved), 0);
	two_close(&t);
}

static int body_nothing_kept(struct two *t)
{
	struct ashlar_receive_spec spec = { .no_resume = true, .keep_bytes = 4096 };
	char token[96];
	unsigned i;

	for (i = 0; i < 8; i++) {
		MUST(two_co_receive(t, spec, t->whole[0].p, rng_below(&t->rng, t->whole[0].len)) < 0);
		MUST(two_co_newest(t) == -1 && !two_co_token(t, token));
	}
	/* kept, then dropped by hand; kept, then dropped by a new one */
	MUST(two_co_receive(t, (struct ashlar_receive_spec){ 0 }, t->whole[0].p, t->whole[0].len / 2) < 0 && two_co_token(t, token));
	MUST(ashlar_co_receive_abort(t->dst, "w", &t->e) == 0 && !two_co_token(t, token));
	MUST(ashlar_co_receive_abort(t->dst, "w", &t->e) == -ENOENT);
	MUST(two_co_receive(t, (struct ashlar_receive_spec){ 0 }, t->whole[0].p, t->whole[0].len / 2) < 0 && two_co_token(t, token));
	MUST(two_co_receive(t, (struct ashlar_receive_spec){ 0 }, t->whole[1].p, t->whole[1].len) == 0 && !two_co_token(t, token));
	MUST(two_co_has(t, "b/w", 1) && two_co_is_clean(t));
	return 0;
}

static void what_is_not_wanted_is_not_kept(void)
{
	struct two t;

	two_open(&t, 41);
	CU_ASSERT_EQUAL(two_live(&t, body_nothing_kept), 0);
	two_close(&t);
}

/* ---- damage ---- */

static int body_flips(struct two *t)
{
	const struct bytes *s = t->i ? &t->inc[1] : &t->whole[0];
	int before = t->i ? 0 : -1, r = 0;
	uint8_t *p = malloc(s->len);
	unsigned i;

	if (t->i)
		r = two_co_receive(t, (struct ashlar_receive_spec){ 0 }, t->whole[0].p, t->whole[0].len);
	for (i = 0; i < 60 && r == 0; i++) {
		/* half of them in the header and the first records */
		size_t at = rng_below(&t->rng, i % 2 ? MIN(s->len, 4096) : s->len);

		memcpy(p, s->p, s->len);
		p[at] ^= (uint8_t)(1u << rng_below(&t->rng, 8));
		MUST(two_co_receive(t, (struct ashlar_receive_spec){ 0 }, p, s->len) < 0);
		MUST(two_co_newest(t) == before && (before < 0 || two_co_has(t, "b/w", 0)));
	}
	if (r == 0)
		r = two_co_receive(t, (struct ashlar_receive_spec){ 0 }, s->p, s->len);
	MUST(r == 0 && two_co_has(t, "b/w", t->i) && two_co_is_clean(t));
	free(p);
	return r;
}

static void a_flipped_bit_is_refused_and_shows_nothing(void)
{
	struct two t;
	unsigned i;

	for (i = 0; i < 2; i++) {
		two_open(&t, 51 + i);
		t.i = i;
		CU_ASSERT_EQUAL(two_live(&t, body_flips), 0);
		two_close(&t);
	}
}

/* ---- refusals ---- */

/* A token with a right checksum that no receiver has given: the snapshot begins from itself. */
static char *token_of_itself(const struct two *t, unsigned snap, char buf[STREAM_TOKEN_LEN])
{
	struct stream_token tok = { .start_bytes = 0 };

	memcpy(&tok.guid, t->whole[snap].p + offsetof(struct stream_header_disk, guid), sizeof(tok.guid));
	tok.base_guid = tok.guid;
	return stream_token_format(&tok, buf);
}

static int body_refusals(struct two *t)
{
	struct ashlar_receive_spec plain = { 0 }, force = { .force = true };
	struct ashlar_attach *at;
	struct bytes s = { 0 };
	char token[96] = "", self[STREAM_TOKEN_LEN];
	uint8_t *other = calloc(1, SIZE_MAX_BYTES);

	MUST(two_co_receive(t, plain, t->inc[1].p, t->inc[1].len) == -ENOENT); /* no volume */
	MUST(two_co_receive(t, plain, t->whole[0].p, t->whole[0].len) == 0);
	MUST(two_co_receive(t, plain, t->whole[1].p, t->whole[1].len) == -EEXIST);
	MUST(two_co_receive(t, plain, t->inc[2].p, t->inc[2].len) == -ENOENT); /* its base is not there */
	memcpy(other, t->image[0], SIZE_MAX_BYTES);
	MUST(two_co_change(t, "b/w", other) == 0);
	MUST(two_co_receive(t, plain, t->inc[1].p, t->inc[1].len) == -EBUSY); /* it has changed */
	MUST(two_co_receive(t, force, t->inc[1].p, t->inc[1].len) == 0 && two_co_has(t, "b/w", 1));
	MUST(two_co_receive(t, force, t->inc[1].p, t->inc[1].len) == -EEXIST); /* it is there */
	MUST(ashlar_co_attach(t->a, "b/w", NULL, NULL, &at, &t->e) == 0);
	MUST(two_co_receive(t, plain, t->inc[2].p, t->inc[2].len) == -EBUSY);
	MUST(two_co_receive(t, force, t->inc[2].p, t->inc[2].len) == 0);
	MUST(ashlar_attach_bdev(at)->size_bytes == t->size_of[2]); /* who is attached sees it */
	ashlar_co_detach(at);
	MUST(two_co_has(t, "b/w", 2));
	/* tokens of other streams */
	MUST(two_co_receive(t, plain, t->inc[3].p, t->inc[3].len / 2) < 0 && two_co_token(t, token));
	MUST(two_co_send(t, 2, -1, token, &s) == -EINVAL && two_co_send(t, 3, 0, token, &s) == -EINVAL);
	MUST(two_co_send(t, 3, -1, "a1-00", &s) == -EINVAL && two_co_send(t, 3, 3, NULL, &s) == -EINVAL);
	MUST(two_co_send(t, 3, -1, token_of_itself(t, 3, self), &s) == -EINVAL);
	MUST(two_co_send(t, 3, -1, token, &s) == 0);
	MUST(ashlar_co_receive_abort(t->dst, "w", &t->e) == 0);
	MUST(two_co_receive(t, plain, s.p, s.len) == -ENOENT); /* what it goes on with is gone */
	MUST(two_co_receive(t, plain, (const uint8_t *)"hello", 5) < 0 && two_co_newest(t) == 2 && two_co_is_clean(t));
	free(s.p);
	free(other);
	return 0;
}

static void what_does_not_fit_is_refused(void)
{
	struct two t;

	two_open(&t, 61);
	CU_ASSERT_EQUAL(two_live(&t, body_refusals), 0);
	two_close(&t);
}

/* While a stream is cut, its name is taken on the one side, and changed on the other. */
static int body_renamed(struct two *t)
{
	struct ashlar_receive_spec plain = { .keep_bytes = 4096 };
	struct ashlar_send_spec spec = { .snapshot = "v@n1" };
	const char *names[] = { "w@s1" };
	struct ashlar_snapshot_info info;
	struct ashlar_transfer done;
	struct stream *io;
	struct bytes s = { 0 };
	char token[96] = "";
	uint8_t *p;
	size_t len;

	MUST(two_co_receive(t, plain, t->whole[0].p, t->whole[0].len) == 0);
	MUST(two_co_receive(t, plain, t->inc[1].p, t->inc[1].len * 2 / 3) < 0 && two_co_token(t, token));
	MUST(ashlar_co_snapshot_create(t->dst, names, 1, &t->e) == 0);
	MUST(two_co_send(t, 1, 0, token, &s) == 0 && two_co_receive(t, plain, s.p, s.len) == -EEXIST);
	MUST(two_co_token(t, token) && ashlar_co_snapshot_rename(t->src, "v@s1", "n1", &t->e) == 0);
	spec.resume = token;
	io = stream_from_memory(NULL, 0, 0, &p, &len);
	MUST(ashlar_co_send(t->src, &spec, io, &done, &t->e) == 0 && done.start_bytes > 0 && !strcmp(done.base, "s0"));
	stream_close(io);
	MUST(two_co_receive(t, plain, p, len) == 0 && two_co_has(t, "b/w@n1", 1) && two_co_has(t, "b/w", 1));
	MUST(two_co_has(t, "b/w@s1", 0) && ashlar_co_snapshot_info(t->dst, "w@n1", &info, &t->e) == 0);
	MUST(two_co_is_clean(t));
	xfree(p);
	free(s.p);
	return 0;
}

static void a_resumed_snapshot_has_the_name_of_the_newest_stream(void)
{
	struct two t;

	two_open(&t, 65);
	CU_ASSERT_EQUAL(two_live(&t, body_renamed), 0);
	two_close(&t);
}

/* ---- both at once, over a pipe ---- */

struct half {
	struct two *t;
	struct stream *io;
	int result;
	bool done, is_receive;
	struct err e;
};

static void half_co_run(void *arg)
{
	struct half *h = arg;
	struct ashlar_send_spec s = { .snapshot = "v@s0" };
	struct ashlar_receive_spec rs = { .volume = "w" };
	struct ashlar_transfer x;

	if (h->is_receive)
		h->result = ashlar_co_receive(h->t->dst, &rs, h->io, &x, &h->e);
	else
		h->result = ashlar_co_send(h->t->src, &s, h->io, &x, &h->e);
	stream_shutdown(h->io);
	h->done = true;
}

static void half_co_start(struct half *h, struct two *t, struct stream *io, bool is_receive)
{
	*h = (struct half){ .t = t, .io = io, .is_receive = is_receive };
	co_spawn(CO_SERVICE, half_co_run, h, "half of a transfer");
}

static void half_co_wait(struct half *h)
{
	while (!h->done)
		co_sleep_ns(NS_PER_MS);
	stream_close(h->io);
}

static int body_pipe(struct two *t)
{
	struct half s, r;
	struct stream *a, *b;

	pipe_stream_pair(70000, &a, &b);
	half_co_start(&s, t, a, false);
	half_co_start(&r, t, b, true);
	half_co_wait(&s);
	half_co_wait(&r);
	MUST(s.result == 0 && r.result == 0 && two_co_has(t, "b/w@s0", 0));
	return 0;
}

static void send_and_receive_run_side_by_side(void)
{
	struct two t;

	two_open(&t, 71);
	CU_ASSERT_EQUAL(two_live(&t, body_pipe), 0);
	two_close(&t);
}

/* Nobody reads what is sent. */
static int body_stuck_send(struct two *t)
{
	const char *names[] = { "v@s0" };
	struct half s;
	struct stream *a, *b;

	pipe_stream_pair(5000, &a, &b);
	half_co_start(&s, t, a, false);
	co_sleep_ns(NS_PER_SEC);
	MUST(!s.done && ashlar_co_snapshot_delete(t->src, names, 1, false, false, NULL, &t->e) == -EBUSY);
	if (t->i)
		MUST(ashlar_co_snapshot_delete(t->src, names, 1, true, false, NULL, &t->e) == 0);
	else
		MUST(ashlar_co_pool_close(t->src, &t->e) == 0);
	half_co_wait(&s);
	MUST(s.result == -ESHUTDOWN);
	stream_close(b);
	return 0;
}

/* And nobody sends what is to be received. */
static int body_stuck_receive(struct two *t)
{
	struct iovec iov = { t->whole[0].p, t->whole[0].len / 2 };
	struct half r;
	struct stream *a, *b;

	pipe_stream_pair(t->whole[0].len, &a, &b);
	half_co_start(&r, t, b, true);
	MUST(stream_co_send_all(a, &iov, 1, UINT64_MAX) == 0);
	co_sleep_ns(NS_PER_SEC);
	MUST(!r.done && two_co_newest(t) == -1);
	MUST(two_co_receive(t, (struct ashlar_receive_spec){ 0 }, t->whole[0].p, t->whole[0].len) == -EBUSY);
	MUST(ashlar_co_receive_abort(t->dst, "w", &t->e) == -EBUSY);
	MUST(ashlar_co_pool_close(t->dst, &t->e) == 0);
	half_co_wait(&r);
	MUST(r.result == -ESHUTDOWN);
	stream_close(a);
	return 0;
}

static int body_after_stuck(struct two *t)
{
	MUST(two_co_newest(t) == -1 && two_co_is_clean(t));
	return 0;
}

static void closing_and_deleting_end_transfers(void)
{
	struct two t;

	for (unsigned i = 0; i < 2; i++) {
		two_open(&t, 81);
		t.i = i;
		CU_ASSERT_EQUAL(two_live(&t, body_stuck_send), 0);
		CU_ASSERT_EQUAL(two_live(&t, body_stuck_receive), 0);
		CU_ASSERT_EQUAL(two_live(&t, body_after_stuck), 0);
		two_close(&t);
	}
}

/* What is kept of an increment goes with its volume, also while more of it comes. */
static int body_delete_target(struct two *t)
{
	struct iovec iov = { t->inc[1].p, t->inc[1].len / 2 };
	struct ashlar_deleted gone;
	struct stream *a, *b;
	struct half r;
	char token[96];

	MUST(two_co_receive(t, (struct ashlar_receive_spec){ 0 }, t->whole[0].p, t->whole[0].len) == 0);
	if (t->i) {
		pipe_stream_pair(t->inc[1].len, &a, &b);
		half_co_start(&r, t, b, true);
		MUST(stream_co_send_all(a, &iov, 1, UINT64_MAX) == 0);
		co_sleep_ns(NS_PER_SEC);
		MUST(ashlar_co_volume_delete(t->dst, "w", false, true, false, &gone, &t->e) == -EBUSY);
		MUST(strstr(t->e.text, "being received into") != NULL && !gone.snapshots && !r.done);
	} else {
		MUST(two_co_receive(t, (struct ashlar_receive_spec){ 0 }, t->inc[1].p, t->inc[1].len / 2) < 0 && two_co_token(t, token));
	}
	MUST(ashlar_co_volume_delete(t->dst, "w", t->i, true, false, &gone, &t->e) == 0);
	MUST(gone.receive_dropped && gone.n_snapshots == 1 && !strcmp(gone.snapshots[0], "w@s0"));
	xfree(gone.snapshots);
	if (t->i) {
		half_co_wait(&r);
		MUST(r.result == -ESHUTDOWN);
		stream_close(a);
	}
	MUST(!two_co_token(t, token) && two_co_newest(t) == -1 && two_co_is_clean(t));
	return 0;
}

static void deleting_a_volume_drops_what_was_kept_for_it(void)
{
	struct two t;

	for (unsigned i = 0; i < 2; i++) {
		two_open(&t, 83);
		t.i = i;
		CU_ASSERT_EQUAL(two_live(&t, body_delete_target), 0);
		CU_ASSERT_EQUAL(two_live(&t, body_after_stuck), 0);
		two_close(&t);
	}
}

/* The volume that a whole stream makes has the layout that was asked for; one that is there keeps its own. */
static int body_layout(struct two *t)
{
	struct ashlar_receive_spec raid0 = { .layout = "raid0" }, bad = { .layout = "raid99" }, single = { .layout = "single" };
	struct ashlar_volume_info v;

	MUST(two_co_receive(t, bad, t->whole[0].p, t->whole[0].len) == -EINVAL && two_co_newest(t) == -1);
	MUST(two_co_receive(t, raid0, t->whole[0].p, t->whole[0].len) == 0);
	MUST(ashlar_co_volume_info(t->dst, "w", &v, &t->e) == 0 && !strcmp(v.layout, "raid0"));
	MUST(two_co_receive(t, single, t->inc[1].p, t->inc[1].len) == -EINVAL && strstr(t->e.text, "leave out --layout"));
	MUST(two_co_receive(t, raid0, t->inc[1].p, t->inc[1].len) == 0 && two_co_has(t, "b/w", 1) && two_co_is_clean(t));
	return 0;
}

static void a_whole_stream_gets_the_layout_asked_for(void)
{
	struct two t;

	two_open(&t, 85);
	CU_ASSERT_EQUAL(two_live(&t, body_layout), 0);
	two_close(&t);
}

/* ---- power cuts ---- */

static int body_receive(struct two *t)
{
	const struct bytes *s = t->i ? &t->inc[t->i] : &t->whole[0];

	return two_co_receive(t, (struct ashlar_receive_spec){ .keep_bytes = 256 * KIB }, s->p, s->len);
}

/* Whole or absent; and then it is finished. */
static int body_after_cut(struct two *t)
{
	int newest = two_co_newest(t), r = 0;
	struct bytes s = { 0 };
	char token[96], name[16];

	MUST(newest == (int)t->i || newest == (int)t->i - 1);
	MUST(newest < 0 || two_co_has(t, "b/w", (unsigned)newest));
	MUST(two_co_is_clean(t));
	if (newest < (int)t->i && two_co_token(t, token)) {
		r = two_co_send(t, t->i, -1, token, &s);
		if (r == 0)
			r = two_co_receive(t, (struct ashlar_receive_spec){ 0 }, s.p, s.len);
	} else if (newest < (int)t->i) {
		r = body_receive(t);
	}
	snprintf(name, sizeof(name), "b/w@s%u", t->i);
	MUST(r == 0 && two_co_has(t, "b/w", t->i) && two_co_has(t, name, t->i) && !two_co_token(t, token) && two_co_is_clean(t));
	free(s.p);
	return r;
}

/* At every step-th submission or completion of a disk operation. */
static void cut_everywhere(struct two *t, uint64_t step)
{
	struct sim_disks *before = sim_disks_clone(t->disks), *after;
	uint64_t begin = sim_disks_n_events(t->disks), n, k, n_cut = 0;

	CU_ASSERT_EQUAL(two_live(t, body_receive), 0);
	n = sim_disks_n_events(t->disks) - begin;
	after = t->disks;
	for (k = 1; k < n; k += step) {
		t->disks = sim_disks_clone(before);
		t->quiet = true;
		if (two_live_to(t, body_receive, sim_disks_n_events(t->disks) + k) == -ECANCELED) {
			sim_disks_power_cut(t->disks, (enum sim_cut)(k % 4), &t->rng);
			n_cut++;
		}
		t->quiet = false;
		CU_ASSERT_EQUAL(two_live(t, body_after_cut), 0);
		sim_disks_destroy(t->disks);
	}
	CU_ASSERT(n_cut > n / step * 3 / 4); /* every run is a little different */
	sim_disks_destroy(before);
	t->disks = after;
}

static void power_cuts_leave_all_or_nothing(void)
{
	struct two t;

	two_open(&t, 91);
	for (t.i = 0; t.i < N_SNAPS; t.i++)
		cut_everywhere(&t, t.i < 2 ? 1 : 3);
	two_close(&t);
}

/* ---- a full pool ---- */

static int fill_there(void *arg)
{
	struct two_io *x = arg;
	uint8_t *buf = xaligned(4096, MIB);
	uint64_t off;
	int r = 0;

	memset(buf, 0x5a, MIB);
	for (off = 0; off + MIB <= x->size && r == 0; off += MIB)
		r = bdev_co_write(x->b, off, buf, MIB, 0);
	r = 0;
	for (off -= MIB; off + 4096 <= x->size && r == 0; off += 4096) /* what is left of the last group */
		r = bdev_co_write(x->b, off, buf, 4096, 0);
	xfree(buf);
	return r == -ERR_POOL_FULL ? 0 : -EIO;
}

struct receiver {
	struct two *t;
	bool ended;
	int result;
};

static void receiver_co_run(void *arg)
{
	struct receiver *x = arg;

	x->result = two_co_receive(x->t, (struct ashlar_receive_spec){ 0 }, x->t->inc[1].p, x->t->inc[1].len);
	x->ended = true;
}

static int body_full(struct two *t)
{
	struct ashlar_volume_spec s = { .name = "filler", .size_bytes = 256 * MIB };
	struct receiver x = { .t = t };
	struct two_io io = { 0 };
	unsigned i;

	MUST(two_co_receive(t, (struct ashlar_receive_spec){ 0 }, t->whole[0].p, t->whole[0].len) == 0);
	MUST(ashlar_co_volume_create(t->dst, &s, &t->e) == 0);
	MUST(two_co_at(t, "b/filler", fill_there, &io) == 0);
	MUST(ashlar_co_volume_set_full_wait(t->dst, "w", UINT64_MAX, &t->e) == 0);
	co_spawn(CO_SERVICE, receiver_co_run, &x, "receiver");
	co_sleep_ns(3600 * NS_PER_SEC);
	MUST(!x.ended);
	MUST(ashlar_co_volume_set_full_wait(t->dst, "w", 0, &t->e) == 0);
	for (i = 0; i < 60 && !x.ended; i++)
		co_sleep_ns(NS_PER_SEC);
	MUST(x.ended && x.result == -ERR_POOL_FULL);
	MUST(ashlar_co_volume_delete(t->dst, "filler", false, false, false, NULL, &t->e) == 0);
	while (!x.ended)
		co_sleep_ns(NS_PER_SEC);
	MUST(two_co_has(t, "b/w", 0) && two_co_has(t, "b/w@s0", 0));
	return 0;
}

static void what_is_received_waits_for_space_as_its_volume_does(void)
{
	struct two t;

	two_open(&t, 101);
	CU_ASSERT_EQUAL(two_live(&t, body_full), 0);
	two_close(&t);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(whole_and_increments_arrive_with_their_holes),
		TEST(increments_go_from_any_snapshot_to_any),
		TEST(a_cut_stream_shows_nothing_and_resumes),
		TEST(a_cut_stream_is_resumed_from_the_pool_that_the_snapshot_is_in_now),
		TEST(what_is_not_wanted_is_not_kept),
		TEST(a_flipped_bit_is_refused_and_shows_nothing),
		TEST(what_does_not_fit_is_refused),
		TEST(a_resumed_snapshot_has_the_name_of_the_newest_stream),
		TEST(send_and_receive_run_side_by_side),
		TEST(closing_and_deleting_end_transfers),
		TEST(deleting_a_volume_drops_what_was_kept_for_it),
		TEST(a_whole_stream_gets_the_layout_asked_for),
		TEST(what_is_received_waits_for_space_as_its_volume_does),
		TEST(power_cuts_leave_all_or_nothing),
		CU_TEST_INFO_NULL,
	};

	return tests_run("send and receive", tests);
}
