/*
 * tail.h: the journal's tail in kept memory (engine/io/keep.h), for the case that the process is killed. Private to
 * engine/meta.
 *
 * Records become durable with the next flush, or after a second. Until then they are lost with the power, as the promise of a disk
 * with a cache allows; but whoever is killed and started again shall have lost nothing that a client has been told is done. So each
 * record is put here before anybody is answered, which costs a copy and no I/O, and taken out when it is durable. Opening applies
 * the journal, and then what is here beyond it.
 *
 * It is believed if it belongs to the opening whose journal was replayed, and to no older checkpoint than the pool's (disks that
 * somebody has put back): everything it speaks of has been written to the disks, which have not lost power since. A store that has failed
 * takes it away: what disks have done with writes before an error is not known.
 *
 * Records come to be at home. What another reactor has handed in is on its way there while the client has its answer; so each has a
 * ring of its own for that (hands), from which home takes what has become a record (meta_hand_put() in meta.h). In the order of things the hands that are left come
 * behind all records, as they would have.
 */
#ifndef ENGINE_META_TAIL_H
#define ENGINE_META_TAIL_H

#include "engine/meta/meta.h"

struct meta_tail;
struct pending;

/* Opens what is left of this pool's tail, if anything is. Never NULL. */
struct meta_tail *meta_tail_open(const struct meta_conf *c);
/* Frees; what is kept stays unless it was ended. */
void meta_tail_close(struct meta_tail *t);

/* Coroutine, behind the replay of the journal. Applies what is there beyond it. *n counts. */
int meta_tail_co_replay(struct meta *m, uint64_t *n, struct err *e) __must_check;
/* A fresh one, for the opening whose first checkpoint has been published. Without kept memory nothing is kept. */
void meta_tail_start(struct meta *m);
/* Nobody is to find it any more. */
void meta_tail_end(struct meta *m);

/* Home. A record has come to be. by: who handed it in, or NULL. */
void meta_tail_put(struct meta *m, const struct pending *p, const struct meta_hand *by);
/* Home. All up to seq are durable; a checkpoint has been published. */
void meta_tail_durable(struct meta *m, uint64_t seq);
void meta_tail_published(struct meta *m);
/* Home. Is it less than half full? Whoever may wait does so otherwise, for a commit. */
bool meta_tail_has_room(const struct meta *m);

#endif
