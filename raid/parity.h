/*
 * parity.h: P and Q over k data columns, by ISA-L. Pure functions on memory; any context.
 *
 * P is the XOR of the data. Q is the sum of 2^i * D[i] in GF(2^8) with the polynomial 0x11d (what pq_gen() computes, and
 * what Linux md uses). Vectors list data columns 0 .. k-1, then P, then Q if p is 2. Every buffer is aligned to
 * PARITY_ALIGN and len is a multiple of PARITY_ALIGN; k 1 .. 30, p 1 or 2.
 */
#ifndef RAID_PARITY_H
#define RAID_PARITY_H

#include "engine/base/base.h"

#define PARITY_ALIGN 64
#define PARITY_DATA_MAX 30

/* Computes v[k .. k+p-1]. */
void parity_gen(unsigned k, unsigned p, size_t len, void *const *v);
/* Data column i changes from old_data to new_data: brings P (and Q; each NULL if there is none) in step. scratch: len bytes. */
void parity_update(unsigned i, size_t len, const void *old_data, const void *new_data, void *par_p, void *par_q, void *scratch);
/* Computes the columns of `lost` (bits of positions in v, at most p of them) from the others, data and parity alike. The
 * buffers of lost columns are written, the others are only read. With p = 2 and one data column lost, Q is not looked at; a
 * lost parity is computed from the data. */
void parity_recover(unsigned k, unsigned p, size_t len, void *const *v, uint32_t lost);
/* The first byte at which parity does not match the data: len if all match. */
size_t parity_compare(unsigned k, unsigned p, size_t len, void *const *v);
/* p = 2, range in which parity does not match: the one position (data, P or Q) whose change alone explains it in every byte,
 * or -1. */
int parity_locate(unsigned k, size_t len, void *const *v);

#endif
