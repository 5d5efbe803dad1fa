/*
 * How ISA-L is used.
 *
 * xor_gen(), pq_gen() and their check functions want two data columns at least; with one, P and Q are copies of it, and
 * memcpy() does. Whatever else is a linear combination of columns with coefficients in GF(2^8), and so one pass of
 * ec_encode_data(): no result is read again, and nothing but the lost columns is written.
 *
 *	P = sum D[i]		Q = sum 2^i D[i]
 *	x lost, by Q:		D[x] = (Q + sum 2^i D[i]) / 2^x
 *	x and y lost:		D[x] = (Q + 2^y P + sum (2^i + 2^y) D[i]) / (2^x + 2^y), sums without x and y
 *
 * Vector paths of xor_gen() and pq_gen() may store past the cache, and such stores are not ordered with those that come
 * after, not even with a release: another thread that gets the buffer by a message, or a device by a doorbell, could see old
 * bytes. So each call is followed by a store fence.
 */
#include <limits.h>
#include <string.h>
#include <isa-l/erasure_code.h>
#include <isa-l/raid.h>

#include "raid/parity.h"

#define V_MAX (PARITY_DATA_MAX + 2)
#define TABLE_BYTES 32	    /* of one coefficient, for ec_encode_data() */
#define LOCATE_BYTES 512    /* at a time, on the stack */

static void stores_done(void)
{
#ifdef __x86_64__
	__builtin_ia32_sfence();
#endif
}

static void v_check(unsigned k, unsigned p, size_t len, void *const *v)
{
	uintptr_t all = len;

	CHECK(k >= 1 && k <= PARITY_DATA_MAX && p >= 1 && p <= 2 && len <= INT_MAX);
	for (unsigned i = 0; i < k + p; i++)
		all |= (uintptr_t)v[i];
	CHECK(IS_ALIGNED(all, PARITY_ALIGN));
}

static void v_shift(void **out, unsigned n, void *const *v, size_t off)
{
	for (unsigned i = 0; i < n; i++)
		out[i] = (uint8_t *)v[i] + off;
}

/* 2^i */
static uint8_t gf_pow2(unsigned i)
{
	uint8_t c = 1;

	while (i--)
		c = gf_mul(c, 2);
	return c;
}

/* src[n] is the sum of src[0 .. n-1]. */
static void xor_sum(unsigned n, size_t len, void **src)
{
	if (n == 1) {
		memcpy(src[1], src[0], len);
		return;
	}
	CHECK(xor_gen((int)n + 1, (int)len, src) == 0);
	stores_done();
}

/* Results of `rows` (at most 2) combinations of n (at most PARITY_DATA_MAX) columns: coefficient j of row r in coef[r * n + j]. */
static void combine(unsigned n, unsigned rows, size_t len, uint8_t *coef, void **src, void **dst)
{
	uint8_t tables[2 * PARITY_DATA_MAX * TABLE_BYTES];

	ec_init_tables((int)n, (int)rows, coef, tables);
	ec_encode_data((int)len, (int)n, (int)rows, tables, (unsigned char **)src, (unsigned char **)dst);
}

static void gen(unsigned k, unsigned p, size_t len, void **v)
{
	if (p == 1 || k == 1)
		xor_sum(k, len, v);
	if (p == 1)
		return;
	if (k == 1) {
		memcpy(v[2], v[0], len);
		return;
	}
	CHECK(pq_gen((int)k + 2, (int)len, v) == 0);
	stores_done();
}

void parity_gen(unsigned k, unsigned p, size_t len, void *const *v)
{
	void *cols[V_MAX];

	v_check(k, p, len, v);
	v_shift(cols, k + p, v, 0);
	gen(k, p, len, cols);
}

void parity_update(unsigned i, size_t len, const void *old_data, const void *new_data, void *par_p, void *par_q, void *scratch)
{
	void *delta[] = { (void *)old_data, (void *)new_data, scratch };
	void *par[2];
	uint8_t coef[2], tables[2 * TABLE_BYTES];
	unsigned rows = 0;

	CHECK(i < PARITY_DATA_MAX);
	v_check(1, 2, len, delta);
	xor_sum(2, len, delta);
	if (par_p) {
		CHECK(IS_ALIGNED((uintptr_t)par_p, PARITY_ALIGN));
		coef[rows] = 1;
		par[rows++] = par_p;
	}
	if (par_q) {
		CHECK(IS_ALIGNED((uintptr_t)par_q, PARITY_ALIGN));
		coef[rows] = gf_pow2(i);
		par[rows++] = par_q;
	}
	if (!rows)
		return;
	ec_init_tables(1, (int)rows, coef, tables);
	ec_encode_data_update((int)len, 1, (int)rows, 0, tables, scratch, (unsigned char **)par);
}

/* Column x (data or P) is the sum of all data and P but x. */
static void recover_by_p(unsigned k, size_t len, void *const *v, unsigned x)
{
	void *src[V_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i <= k; i++)
		if (i != x)
			src[n++] = v[i];
	src[n] = v[x];
	xor_sum(n, len, src);
}

/* Column x (data, or k + 1: Q itself) by the data and Q. */
static void recover_by_q(unsigned k, size_t len, void *const *v, unsigned x)
{
	uint8_t coef[PARITY_DATA_MAX], scale = x < k ? gf_inv(gf_pow2(x)) : 1;
	void *src[PARITY_DATA_MAX], *dst = v[x];
	unsigned n = 0;

	for (unsigned i = 0; i < k; i++) {
		if (i == x)
			continue;
		coef[n] = gf_mul(gf_pow2(i), scale);
		src[n++] = v[i];
	}
	if (x < k) {
		coef[n] = scale;
		src[n++] = v[k + 1];
	}
	combine(n, 1, len, coef, src, &dst);
}

static void recover_two_data(unsigned k, size_t len, void *const *v, unsigned x, unsigned y)
{
	uint8_t coef[2 * PARITY_DATA_MAX], gx = gf_pow2(x), gy = gf_pow2(y), scale = gf_inv(gx ^ gy);
	void *src[PARITY_DATA_MAX], *dst[] = { v[x], v[y] };
	unsigned n = 0;

	for (unsigned i = 0; i < k + 2; i++) {
		uint8_t in_p = i <= k, in_q = i < k ? gf_pow2(i) : i == k + 1;

		if (i == x || i == y)
			continue;
		coef[n] = gf_mul(in_q ^ gf_mul(gy, in_p), scale);
		coef[k + n] = gf_mul(in_q ^ gf_mul(gx, in_p), scale);
		src[n++] = v[i];
	}
	combine(n, 2, len, coef, src, dst);
}

void parity_recover(unsigned k, unsigned p, size_t len, void *const *v, uint32_t lost)
{
	uint32_t data, bit_p, bit_q;
	unsigned n_data;

	v_check(k, p, len, v);
	bit_p = 1U << k;
	bit_q = p == 2 ? bit_p << 1 : 0;
	data = lost & (bit_p - 1);
	n_data = (unsigned)__builtin_popcount(data);
	CHECK(!(lost & ~(data | bit_p | bit_q)) && (unsigned)__builtin_popcount(lost) <= p);
	if (lost == (bit_p | bit_q)) {
		parity_gen(k, p, len, v);
		return;
	}
	if (n_data == 2)
		recover_two_data(k, len, v, (unsigned)__builtin_ctz(data), 31U - (unsigned)__builtin_clz(data));
	else if (n_data == 1 && (lost & bit_p))
		recover_by_q(k, len, v, (unsigned)__builtin_ctz(data));
	else if (n_data == 1)
		recover_by_p(k, len, v, (unsigned)__builtin_ctz(data));
	if (lost & bit_p)
		recover_by_p(k, len, v, k);
	if (lost & bit_q)
		recover_by_q(k, len, v, k + 1);
}

static bool is_matching(unsigned k, unsigned p, size_t off, size_t len, void *const *v)
{
	void *cols[V_MAX];

	v_shift(cols, k + p, v, off);
	if (k == 1)
		return !memcmp(cols[0], cols[1], len) && (p == 1 || !memcmp(cols[0], cols[2], len));
	if (p == 1)
		return xor_check((int)k + 1, (int)len, cols) == 0;
	return pq_check((int)k + 2, (int)len, cols) == 0;
}

/* What parity should be for len bytes of the data at off. */
static void gen_at(unsigned k, unsigned p, size_t off, size_t len, void *const *v, void *want_p, void *want_q)
{
	void *cols[V_MAX];

	v_shift(cols, k, v, off);
	cols[k] = want_p;
	cols[k + 1] = want_q;
	gen(k, p, len, cols);
}

size_t parity_compare(unsigned k, unsigned p, size_t len, void *const *v)
{
	_Alignas(PARITY_ALIGN) uint8_t want_p[PARITY_ALIGN], want_q[PARITY_ALIGN];
	size_t off = 0, n = len;

	v_check(k, p, len, v);
	if (!len || is_matching(k, p, 0, len, v))
		return len;
	while (n > PARITY_ALIGN) { /* what is before off matches, off .. off + n does not */
		size_t half = ALIGN_UP(n / 2, PARITY_ALIGN);

		if (is_matching(k, p, off, half, v)) {
			off += half;
			n -= half;
		} else {
			n = half;
		}
	}
	gen_at(k, p, off, PARITY_ALIGN, v, want_p, want_q);
	for (size_t i = 0; i < PARITY_ALIGN; i++)
		if (((uint8_t *)v[k])[off + i] != want_p[i] || (p == 2 && ((uint8_t *)v[k + 1])[off + i] != want_q[i]))
			return off + i;
	CHECK(!"a check fails where parity computed again is the same");
	return len;
}

/* The position whose change makes P wrong by sp and Q by sq (not both 0), or -1: a change of D[i] by c is c in P, 2^i c in Q. */
static int explain(unsigned k, uint8_t sp, uint8_t sq)
{
	uint8_t c = sp;

	if (!sp)
		return (int)k + 1;
	if (!sq)
		return (int)k;
	for (unsigned i = 0; i < k; i++) {
		if (c == sq)
			return (int)i;
		c = gf_mul(c, 2);
	}
	return -1;
}

int parity_locate(unsigned k, size_t len, void *const *v)
{
	_Alignas(PARITY_ALIGN) uint8_t sp[LOCATE_BYTES], sq[LOCATE_BYTES];
	int found = -1;

	v_check(k, 2, len, v);
	for (size_t off = 0; off < len; off += LOCATE_BYTES) {
		size_t n = MIN(len - off, (size_t)LOCATE_BYTES);

		if (is_matching(k, 2, off, n, v))
			continue;
		gen_at(k, 2, off, n, v, sp, sq);
		for (size_t i = 0; i < n; i++) {
			uint8_t dp = sp[i] ^ ((uint8_t *)v[k])[off + i], dq = sq[i] ^ ((uint8_t *)v[k + 1])[off + i];
			int pos;

			if (!dp && !dq)
				continue;
			pos = explain(k, dp, dq);
			if (pos < 0 || (found >= 0 && pos != found))
				return -1;
			found = pos;
		}
	}
	return found;
}
