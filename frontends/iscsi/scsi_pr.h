/*
 * scsi_pr.h: persistent reservations of an LU: who is registered, by which key, and who holds it. State and rules (SPC-4 5.13), without
 * commands: those are scsi_pr_out.c and scsi_pr_in.c. On the LU's home reactor.
 *
 * An I_T nexus is known by names that outlive it: initiator port, target port. Registrations stay when a session ends, and the state
 * when nobody is logged in (scsi_lu.c). With APTPL it is durable before PERSISTENT RESERVE OUT says GOOD: `scsi_store` keeps it.
 */
#ifndef FRONTENDS_ISCSI_SCSI_PR_H
#define FRONTENDS_ISCSI_SCSI_PR_H

#include "engine/base/uuid.h"
#include "engine/io/co.h"
#include "frontends/iscsi/scsi.h"

#define SCSI_PR_REGISTRATIONS_MAX 128
#define SCSI_PR_STATE_MAX (SCSI_PR_REGISTRATIONS_MAX * (SCSI_NAME_MAX + 16) + 64) /* encoded */

enum scsi_pr_type {
	PR_NONE = 0,
	PR_WRITE_EXCLUSIVE = 1,
	PR_EXCLUSIVE_ACCESS = 3,
	PR_WRITE_EXCLUSIVE_REGISTRANTS = 5,
	PR_EXCLUSIVE_ACCESS_REGISTRANTS = 6,
	PR_WRITE_EXCLUSIVE_ALL = 7,
	PR_EXCLUSIVE_ACCESS_ALL = 8,
};

struct scsi_pr_reg {
	struct list link;
	uint64_t key;
	uint16_t port;
	char initiator[SCSI_NAME_MAX + 1];
};

struct scsi_pr {
	uint32_t generation;
	uint32_t version; /* counts changes of the list, from 1: who keeps a pointer into it looks */
	struct list regs;
	unsigned n_regs;
	uint8_t type; /* enum scsi_pr_type */
	struct scsi_pr_reg *holder; /* NULL: nobody, or, of the types ALL, everybody who is registered */
	bool aptpl, is_stored;
	struct co_mutex change; /* one PERSISTENT RESERVE OUT at a time */
};

struct scsi_pr *scsi_pr_create(void);
void scsi_pr_destroy(struct scsi_pr *p);
void scsi_pr_clear(struct scsi_pr *p);
bool scsi_pr_type_is_valid(unsigned type);
static inline bool scsi_pr_type_is_all(unsigned type) { return type == PR_WRITE_EXCLUSIVE_ALL || type == PR_EXCLUSIVE_ACCESS_ALL; }
static inline bool scsi_pr_type_is_registrants(unsigned type) { return type >= PR_WRITE_EXCLUSIVE_REGISTRANTS; }
static inline bool scsi_pr_type_is_exclusive(unsigned type)
{
	return type == PR_EXCLUSIVE_ACCESS || type == PR_EXCLUSIVE_ACCESS_REGISTRANTS || type == PR_EXCLUSIVE_ACCESS_ALL;
}

struct scsi_pr_reg *scsi_pr_find(const struct scsi_pr *p, const char *initiator, uint16_t port);
/* NULL: there are too many. */
struct scsi_pr_reg *scsi_pr_add(struct scsi_pr *p, const char *initiator, uint16_t port, uint64_t key);
/* If it held the reservation, nobody does any more, and `released` (may be NULL) is set to its type. */
void scsi_pr_remove(struct scsi_pr *p, struct scsi_pr_reg *r, uint8_t *released);
static inline bool scsi_pr_is_holder(const struct scsi_pr *p, const struct scsi_pr_reg *r)
{
	return r && p->type && (p->holder == r || scsi_pr_type_is_all(p->type));
}

/* What clients of other frontends are kept from: BDEV_FENCE_*. */
uint8_t scsi_pr_type_fence(unsigned type);
/* Bytes, at most SCSI_PR_STATE_MAX, and back; -EINVAL leaves it empty. */
size_t scsi_pr_encode(const struct scsi_pr *p, uint8_t *out);
int scsi_pr_decode(struct scsi_pr *p, const uint8_t *in, size_t len) __must_check;

#endif
