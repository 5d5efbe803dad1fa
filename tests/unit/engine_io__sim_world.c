/*
 * The simulated world: faults, locks, copies of disks, the schedule, and that a seed is a run.
 */
#include "tests/unit/engine_io__sim.h"
#include "tests/unit/unit.h"

#define ALWAYS 65536
#define HALF 32768

static struct sim_faults *faults(void)
{
	return sim_disk_faults(ds, 0);
}

/* ---- faults ---- */

static int co_errors(void *arg)
{
	EXPECT(fill(d, 0, PAGE, 1, 0) == 0);
	EXPECT(bdev_co_flush(&d->bdev) == 0);
	faults()->read_error = ALWAYS;
	EXPECT(read_fill_of(d, 0, PAGE) == -EIO);
	EXPECT(bdev_co_flush(&d->bdev) == 0);
	EXPECT(fill(d, PAGE, PAGE, 2, 0) == 0);
	faults()->read_error = 0;
	EXPECT(read_fill_of(d, 0, PAGE) == 1);
	faults()->flush_error = ALWAYS;
	EXPECT(bdev_co_flush(&d->bdev) == -EIO);
	faults()->flush_error = 0;
	faults()->write_error = ALWAYS;
	EXPECT(fill(d, 2 * PAGE, PAGE, 2, 0) == -EIO);
	EXPECT(bdev_co_zero(&d->bdev, 2 * PAGE, PAGE, 0) == -EIO);
	EXPECT(bdev_co_discard(&d->bdev, 2 * PAGE, PAGE, 0) == -EIO);
	EXPECT(read_fill_of(d, 0, PAGE) == 1);
	EXPECT(d->n_errors == 5);
	return 0;
}

static void errors_hit_the_operations_they_are_set_for(void)
{
	begin(1);
	run(co_errors, NULL);
	cut(SIM_CUT_NONE);
	EXPECT(durable_fill(0, PAGE, PAGE) == 0); /* the flush that failed made nothing durable */
	end();
}

static int co_failed_write(void *arg)
{
	unsigned *seen = arg;
	int c;

	EXPECT(fill(d, 0, PAGE, 1, 0) == 0);
	faults()->write_error = ALWAYS;
	EXPECT(fill(d, 0, PAGE, 2, 0) == -EIO);
	c = read_fill_of(d, 0, PAGE);
	EXPECT(c == -1 || c == 1 || c == 2);
	seen[c + 1]++;
	return 0;
}

static void failed_write_leaves_old_new_or_both(void)
{
	unsigned seen[4] = { 0 };
	uint64_t s;

	for (s = 0; s < 60; s++) {
		begin(s);
		run(co_failed_write, seen);
		end();
	}
	EXPECT(seen[0] && seen[2] && seen[3]);
}

static int co_rates(void *arg)
{
	unsigned failed = 0, i;

	faults()->read_error = HALF;
	for (i = 0; i < 400; i++)
		failed += read_fill_of(d, 0, PAGE) == -EIO;
	EXPECT(failed > 150 && failed < 250);
	return 0;
}

static void rates_are_rates(void)
{
	begin(5);
	run(co_rates, NULL);
	end();
}

static int co_stall(void *arg)
{
	uint64_t t = world_now_ns(w);

	EXPECT(read_fill_of(d, 0, PAGE) == 0);
	EXPECT(world_now_ns(w) - t < NS_PER_MS);
	faults()->stall = ALWAYS;
	faults()->stall_ns = NS_PER_SEC;
	t = world_now_ns(w);
	EXPECT(read_fill_of(d, 0, PAGE) == 0);
	EXPECT(world_now_ns(w) - t >= NS_PER_SEC && world_now_ns(w) - t < 2 * NS_PER_SEC);
	return 0;
}

static void stalled_request_completes_later(void)
{
	begin(1);
	run(co_stall, NULL);
	end();
}

static int co_lost(void *arg)
{
	EXPECT(fill(d, 0, PAGE, 1, 0) == 0);
	faults()->lost_write = ALWAYS;
	EXPECT(fill(d, 0, PAGE, 2, IO_FUA) == 0);
	EXPECT(bdev_co_zero(&d->bdev, 0, PAGE, 0) == 0);
	EXPECT(read_fill_of(d, 0, PAGE) == 1);
	return 0;
}

static void lost_write_succeeds_and_changes_nothing(void)
{
	begin(1);
	run(co_lost, NULL);
	end();
}

static int co_misdirected(void *arg)
{
	uint64_t off, found = 0;

	faults()->misdirected = ALWAYS;
	EXPECT(fill(d, PAGE, PAGE, 2, 0) == 0);
	EXPECT(read_fill_of(d, PAGE, PAGE) != 2);
	for (off = 0; off < d->bdev.size_bytes; off += GRAN)
		found += read_fill_of(d, off, GRAN) == 2;
	EXPECT(found == 8);
	return 0;
}

static void misdirected_write_lands_elsewhere_whole(void)
{
	begin_size(3, 1, 1, 64 * KIB, 512);
	run(co_misdirected, NULL);
	end();
}

static int co_rot(void *arg)
{
	uint8_t *buf = buf_alloc(4 * PAGE);
	unsigned i, k, bits = 0;

	EXPECT(fill(d, 0, 2 * PAGE, 0, IO_FUA) == 0);
	EXPECT(fill(d, 2 * PAGE, 2 * PAGE, 0, 0) == 0); /* a bit of these may flip in the cache only */
	faults()->bit_rot = ALWAYS;
	EXPECT(bdev_co_read(&d->bdev, 0, buf, 4 * PAGE) == 0);
	faults()->bit_rot = 0;
	for (k = 0; k < 2; k++) { /* it stays */
		for (i = bits = 0; i < 4 * PAGE; i++)
			bits += (unsigned)__builtin_popcount(buf[i]);
		EXPECT(bits == 1);
		EXPECT(bdev_co_flush(&d->bdev) == 0);
		EXPECT(bdev_co_read(&d->bdev, 0, buf, 4 * PAGE) == 0);
	}
	sim_disk_peek(ds, 0, 0, buf, 4 * PAGE);
	for (i = bits = 0; i < 4 * PAGE; i++)
		bits += (unsigned)__builtin_popcount(buf[i]);
	EXPECT(bits == 1);
	buf_free(buf, 4 * PAGE);
	return 0;
}

static void bit_rot_flips_one_bit_for_good(void)
{
	uint64_t s;

	for (s = 0; s < 10; s++) {
		begin(s);
		run(co_rot, NULL);
		end();
	}
}

static int co_gone(void *arg)
{
	struct disk *other = NULL;
	struct err e;
	struct bg b;

	EXPECT(fill(d, 0, PAGE, 1, 0) == 0);
	bg_start(&b, IO_WRITE, 0, PAGE, 2, 0);
	faults()->gone = true;
	EXPECT(bg_wait(&b) == -ENODEV);
	EXPECT(read_fill_of(d, 0, PAGE) == -ENODEV);
	EXPECT(bdev_co_flush(&d->bdev) == -ENODEV);
	EXPECT(disk_co_open(w, "disk0", DISK_NO_LOCK, &other, &e) == -ENODEV);
	EXPECT(d->ops->refresh(d, NULL) == -ENODEV);
	faults()->gone = false;
	EXPECT(read_fill_of(d, 0, PAGE) > 0);
	return 0;
}

static void disk_that_is_gone_fails_everything_until_it_is_back(void)
{
	begin(1);
	run(co_gone, NULL);
	end();
}

static int co_lying(void *arg)
{
	faults()->lying_flush = true;
	EXPECT(fill(d, 0, PAGE, 1, IO_FUA) == 0);
	EXPECT(bdev_co_flush(&d->bdev) == 0);
	EXPECT(read_fill_of(d, 0, PAGE) == 1);
	return 0;
}

static void lying_flush_makes_nothing_durable(void)
{
	begin(1);
	run(co_lying, NULL);
	cut(SIM_CUT_NONE);
	EXPECT(durable_fill(0, 0, PAGE) == 0);
	end();
}

static int co_hang(void *arg)
{
	struct bg b;

	faults()->hang = true;
	bg_start(&b, IO_WRITE, 0, PAGE, 2, 0);
	co_sleep_ns(NS_PER_SEC);
	EXPECT(!b.place);
	faults()->hang = false;
	EXPECT(bg_wait(&b) == 0);
	EXPECT(read_fill_of(d, 0, PAGE) == 2);
	return 0;
}

static int co_hang_for_ever(void *arg)
{
	faults()->hang = true;
	*(int *)arg = read_fill_of(d, 0, PAGE);
	return 0;
}

static void hanging_disk_completes_nothing_until_cleared(void)
{
	int got = -5, result;

	begin(1);
	run(co_hang, NULL);
	fprintf(stderr, "(a deadlock report is expected here)\n");
	EXPECT(sim_run(w, co_hang_for_ever, &got, &result, 0) == -EDEADLK);
	EXPECT(got == -5);
	faults()->hang = false;
	sim_run_for(w, NS_PER_SEC); /* and on it goes */
	EXPECT(got == 2);
	end();
}

static int co_bad_range(void *arg)
{
	EXPECT(fill(d, 0, 4 * PAGE, 1, 0) == 0);
	sim_disk_bad_range(ds, 0, PAGE, 2 * PAGE);
	EXPECT(read_fill_of(d, 0, PAGE) == 1);
	EXPECT(read_fill_of(d, 0, 2 * PAGE) == -EIO);
	EXPECT(read_fill_of(d, 2 * PAGE, PAGE) == -EIO);
	EXPECT(read_fill_of(d, 3 * PAGE, PAGE) == 1);
	EXPECT(fill(d, 2 * PAGE - GRAN, 2 * GRAN, 1, 0) == 0);
	EXPECT(read_fill_of(d, 2 * PAGE - GRAN, 2 * GRAN) == 1);
	EXPECT(read_fill_of(d, 2 * PAGE - 2 * GRAN, GRAN) == -EIO);
	EXPECT(read_fill_of(d, 2 * PAGE + GRAN, GRAN) == -EIO);
	EXPECT(fill(d, 0, 4 * PAGE, 3, 0) == 0);
	EXPECT(read_fill_of(d, 0, 4 * PAGE) == 3);
	return 0;
}

static void bad_range_fails_reads_until_it_is_written(void)
{
	begin(1);
	run(co_bad_range, NULL);
	end();
}

/* ---- opening ---- */

static void open_and_locks(void)
{
	struct sim_options o = { .seed = 9, .n_reactors = 1 };
	struct world *w2;
	struct disk *a = NULL, *b = NULL;
	struct err e;

	begin(1);
	w2 = sim_world_create(&o, ds);
	EXPECT(disk_co_open(w2, "disk0", 0, &a, &e) == -ERR_LOCKED);
	EXPECT(strstr(e.text, "disk0") != NULL);
	EXPECT(disk_co_open(w2, "disk0", DISK_RDONLY, &a, &e) == -ERR_LOCKED);
	EXPECT(disk_co_open(w2, "disk0", DISK_RDONLY | DISK_NO_LOCK, &a, &e) == 0);
	EXPECT(a->bdev.read_only && a->ident[0] == d->ident[0] && a->ident[1] == d->ident[1]);
	disk_close(d);
	EXPECT(disk_co_open(w2, "disk0", DISK_RDONLY, &a, &e) == 0);
	EXPECT(disk_co_open(w, "disk0", DISK_RDONLY, &b, &e) == 0);
	EXPECT(disk_co_open(w, "disk0", 0, &d, &e) == -ERR_LOCKED);
	disk_close(b);
	EXPECT(disk_co_open(w, "disk0", 0, &d, &e) == -ERR_LOCKED);
	sim_world_destroy(w2);
	EXPECT(disk_co_open(w, "disk0", 0, &d, &e) == 0);
	EXPECT(disk_co_open(w, "nothing", 0, &b, &e) == -ENOENT);
	end();
}

static int co_read_only(void *arg)
{
	struct disk *ro;

	EXPECT(disk_co_open(w, "disk0", DISK_NO_LOCK, &ro, NULL) == 0);
	EXPECT(fill(ro, 0, PAGE, 1, 0) == -EROFS);
	EXPECT(read_fill_of(ro, 0, PAGE) == 0);
	disk_close(ro);
	return 0;
}

static void read_only_disk_refuses_writes(void)
{
	begin(1);
	run(co_read_only, NULL);
	end();
}

static void disks_come_go_and_change_their_paths(void)
{
	struct disk *a;
	char what[8];

	begin_size(1, 1, 2, DISK_BYTES, 4096);
	EXPECT(disk_probe(w, "disk1", what, sizeof(what), NULL) == 0);
	sim_disk_set_signature(ds, 1, "ext4 file system");
	EXPECT(disk_probe(w, "disk1", what, sizeof(what), NULL) == 1);
	EXPECT(strcmp(what, "ext4 fi") == 0);
	sim_disk_remove(ds, 1);
	EXPECT(disk_co_open(w, "disk1", 0, &a, NULL) == -ENOENT);
	EXPECT(disk_probe(w, "disk1", what, sizeof(what), NULL) == -ENOENT);
	sim_disk_put_back(ds, 1);
	sim_disk_set_path(ds, 1, "elsewhere");
	EXPECT(disk_co_open(w, "disk1", 0, &a, NULL) == -ENOENT);
	EXPECT(disk_co_open(w, "elsewhere", 0, &a, NULL) == 0);
	EXPECT(strcmp(a->path, "elsewhere") == 0 && a->bdev.block_bytes == 4096 && a->bdev.size_bytes == DISK_BYTES);
	end();
}

static int co_resize(void *arg)
{
	EXPECT(fill(d, DISK_BYTES - PAGE, PAGE, 1, 0) == 0);
	sim_disk_resize(ds, 0, DISK_BYTES / 2);
	EXPECT(read_fill_of(d, DISK_BYTES - PAGE, PAGE) == -EIO); /* not noticed yet */
	EXPECT(fill(d, DISK_BYTES - PAGE, PAGE, 1, 0) == -EIO);
	EXPECT(d->ops->refresh(d, NULL) == 0 && d->bdev.size_bytes == DISK_BYTES / 2);
	sim_disk_resize(ds, 0, 2 * DISK_BYTES);
	EXPECT(d->ops->refresh(d, NULL) == 0 && d->bdev.size_bytes == 2 * DISK_BYTES);
	EXPECT(read_fill_of(d, DISK_BYTES - PAGE, PAGE) == 0);
	return 0;
}

static void resized_disk_loses_what_lay_beyond(void)
{
	begin(1);
	run(co_resize, NULL);
	end();
}

/* ---- beside the engine ---- */

static int co_poke(void *arg)
{
	uint8_t three[3] = { 3, 3, 3 };

	EXPECT(fill(d, 0, 4 * PAGE, 1, 0) == 0);
	EXPECT(durable_fill(0, 0, PAGE) == 0);
	sim_disk_poke(ds, 0, 2 * GRAN - 1, three, 3);
	EXPECT(read_fill_of(d, 0, GRAN) == 1);
	EXPECT(read_fill_of(d, GRAN, GRAN) == -1);
	EXPECT(durable_fill(0, 2 * GRAN - 1, 3) == 3);
	EXPECT(durable_fill(0, 0, GRAN) == 0);
	return bdev_co_flush(&d->bdev);
}

static void poked_bytes_are_seen_and_durable(void)
{
	begin(1);
	run(co_poke, NULL);
	EXPECT(durable_fill(0, 2 * GRAN - 1, 3) == 3);
	EXPECT(durable_fill(0, 0, 2 * GRAN - 1) == 1);
	end();
}

static int co_fill_at(void *arg)
{
	uint64_t *where = arg;

	EXPECT(fill(d, where[0], PAGE, (int)where[1], 0) == 0);
	return where[2] ? bdev_co_flush(&d->bdev) : 0;
}

static void clone_is_equal_and_independent(void)
{
	struct sim_disks *c;
	uint64_t hash;

	begin(1);
	run(co_fill_at, (uint64_t[]){ 0, 1, 1 });
	run(co_fill_at, (uint64_t[]){ PAGE, 2, 0 });
	hash = sim_disks_hash(ds);
	c = sim_disks_clone(ds);
	EXPECT(sim_disks_hash(c) == hash && sim_disks_n_events(c) == sim_disks_n_events(ds));
	EXPECT(sim_disk_n_ops(c, 0, IO_WRITE) == 2 && sim_disk_bytes_written(c, 0) == 2 * PAGE);
	run(co_fill_at, (uint64_t[]){ 0, 3, 1 });
	EXPECT(sim_disks_hash(ds) != hash && sim_disks_hash(c) == hash);
	world_down();
	sim_disks_destroy(ds);
	ds = c;
	world_up(1); /* the lock was not copied */
	cut(SIM_CUT_ALL);
	EXPECT(durable_fill(0, 0, PAGE) == 1 && durable_fill(0, PAGE, PAGE) == 2);
	end();
}

static int co_dead_handle(void *arg)
{
	struct disk *again;

	EXPECT(fill(d, 0, PAGE, 4, 0) == -ENODEV);
	EXPECT(read_fill_of(d, 0, PAGE) == -ENODEV);
	EXPECT(disk_co_open(w, "disk0", 0, &again, NULL) == 0); /* the old handle's lock is gone with the old device */
	EXPECT(fill(again, 0, PAGE, 5, IO_FUA) == 0);
	disk_close(d);
	d = again;
	return 0;
}

static void restored_disk_has_the_contents_of_the_clone_and_no_cache(void)
{
	struct sim_disks *old;

	begin_size(1, 1, 2, DISK_BYTES, 512);
	run(co_fill_at, (uint64_t[]){ 0, 1, 1 });
	old = sim_disks_clone(ds);
	run(co_fill_at, (uint64_t[]){ 0, 2, 1 });
	run(co_fill_at, (uint64_t[]){ PAGE, 3, 0 });
	world_down();
	sim_disk_restore(ds, 0, old);
	sim_disk_restore(ds, 1, NULL);
	world_up(1);
	EXPECT(durable_fill(0, 0, PAGE) == 1 && durable_fill(0, PAGE, PAGE) == 0);
	cut(SIM_CUT_ALL);
	EXPECT(durable_fill(0, PAGE, PAGE) == 0);
	sim_disk_restore(ds, 0, NULL);
	EXPECT(durable_fill(0, 0, 2 * PAGE) == 0);
	EXPECT(sim_disks_hash(old) != sim_disks_hash(ds)); /* the copy keeps what it has */
	run(co_dead_handle, NULL);
	EXPECT(durable_fill(0, 0, PAGE) == 5);
	sim_disks_destroy(old);
	end();
}

static void hash_is_of_contents_alone(void)
{
	uint64_t hash, empty;

	begin(1);
	empty = sim_disks_hash(ds);
	run(co_fill_at, (uint64_t[]){ 0, 1, 1 });
	run(co_fill_at, (uint64_t[]){ MIB, 2, 1 });
	hash = sim_disks_hash(ds);
	run(co_fill_at, (uint64_t[]){ MIB, 0, 1 });
	run(co_fill_at, (uint64_t[]){ 0, 0, 1 });
	EXPECT(sim_disks_hash(ds) == empty);
	end();
	begin(2);
	run(co_fill_at, (uint64_t[]){ MIB, 2, 1 });
	run(co_fill_at, (uint64_t[]){ 0, 2, 1 });
	EXPECT(sim_disks_hash(ds) != hash);
	run(co_fill_at, (uint64_t[]){ 0, 1, 1 });
	EXPECT(sim_disks_hash(ds) == hash && hash != empty);
	end();
}

/* ---- the schedule ---- */

struct hop {
	struct disk *disk;
	unsigned k;
};

static int co_there(void *arg)
{
	struct hop *h = arg;

	return fill(h->disk, h->k * PAGE, PAGE, (int)h->k + 1, h->k % 2 ? IO_FUA : 0);
}

static void co_leg(void *arg)
{
	struct co_join *j = arg;
	static _Atomic unsigned turn;
	struct hop h = { d, turn++ % 16 };

	co_join_done(j, reactor_co_call(w->reactors[h.k % w->n_reactors], co_there, &h));
}

static int co_busy(void *arg)
{
	struct co_join j;
	unsigned i;

	co_join_init(&j);
	for (i = 0; i < 16; i++) {
		co_join_add(&j);
		co_spawn(CO_REQUEST, co_leg, &j, "leg");
	}
	EXPECT(co_join_wait(&j) == 0);
	for (i = 0; i < 16; i++)
		EXPECT(read_fill_of(d, i * PAGE, PAGE) == (int)i + 1);
	return bdev_co_flush(&d->bdev);
}

static void trace_of(uint64_t s, unsigned n_reactors, uint64_t *trace, uint64_t *disks, void **heap)
{
	begin_size(s, n_reactors, 1, DISK_BYTES, 512);
	*heap = malloc(1000 + s); /* pointers differ from run to run */
	run(co_busy, NULL);
	*trace = sim_trace_hash(w);
	*disks = sim_disks_hash(ds);
	end();
}

static void same_seed_same_run_other_seed_other_run(void)
{
	uint64_t t[200], disks, t2, disks2, k, s;
	void *heap[2];

	for (s = 0; s < 50; s++) {
		for (k = 0; k < 4; k++) {
			trace_of(s, 1 + (unsigned)k, &t[s * 4 + k], &disks, &heap[0]);
			trace_of(s, 1 + (unsigned)k, &t2, &disks2, &heap[1]);
			EXPECT(t[s * 4 + k] == t2 && disks == disks2);
			free(heap[0]);
			free(heap[1]);
		}
	}
	for (s = 0; s < 200; s++)
		for (k = 0; k < s; k++)
			EXPECT(t[s] != t[k]);
}

static void hook_ran(struct loop_hook *h);
static struct loop_hook hook = { .run = hook_ran };
static unsigned tasks_before_hook;
static bool hook_was_last;

static void hook_ran(struct loop_hook *h)
{
	hook_was_last = tasks_before_hook == 10;
}

static void co_count(void *arg)
{
	tasks_before_hook++;
}

static int co_hook(void *arg)
{
	unsigned i;

	tasks_before_hook = 0;
	hook_was_last = false;
	list_init(&hook.link);
	reactor_hook(&hook);
	for (i = 0; i < 10; i++)
		co_spawn(CO_SERVICE, co_count, NULL, "count");
	co_sleep_ns(NS_PER_MS);
	EXPECT(hook_was_last);
	return 0;
}

static void hooks_run_when_nothing_else_is_ready(void)
{
	uint64_t s;

	for (s = 0; s < 20; s++) {
		begin(s);
		run(co_hook, NULL);
		end();
	}
}

static void co_note_order(void *arg)
{
	unsigned *at = arg;

	at[0] = at[1] = ++n_done;
}

static int co_tasks(void *arg)
{
	unsigned at[3][2], i, *firsts = arg;

	n_done = 0;
	for (i = 0; i < 3; i++)
		co_spawn(CO_SERVICE, co_note_order, at[i], "note");
	co_sleep_ns(NS_PER_MS);
	for (i = 0; i < 3; i++)
		firsts[i] += at[i][0] == 1;
	return 0;
}

static void ready_tasks_run_in_any_order(void)
{
	unsigned firsts[3] = { 0 };
	uint64_t s;

	for (s = 0; s < 100; s++) {
		begin(s);
		run(co_tasks, firsts);
		end();
	}
	EXPECT(firsts[0] > 15 && firsts[1] > 15 && firsts[2] > 15);
}

static int co_sleepy(void *arg)
{
	co_sleep_ns(3600 * NS_PER_SEC);
	return 5;
}

static int co_waits(void *arg)
{
	co_suspend();
	return 0;
}

static int co_spins(void *arg)
{
	while (!arg)
		co_yield();
	return 0;
}

static void run_ends_by_result_limit_or_deadlock(void)
{
	uint64_t t;
	int result = 0;

	begin(1);
	t = world_now_ns(w);
	EXPECT(sim_run(w, co_sleepy, NULL, &result, 0) == 0 && result == 5);
	EXPECT(world_now_ns(w) - t >= 3600 * NS_PER_SEC && world_now_ns(w) - t < 3601 * NS_PER_SEC);
	t = world_now_ns(w);
	EXPECT(sim_run(w, co_sleepy, NULL, &result, NS_PER_SEC) == -ETIME);
	EXPECT(world_now_ns(w) == t + NS_PER_SEC);
	sim_run_for(w, NS_PER_SEC);
	EXPECT(world_now_ns(w) == t + 2 * NS_PER_SEC);
	sim_run_for(w, 7200 * NS_PER_SEC); /* until idle */
	EXPECT(world_now_ns(w) < t + 3601 * NS_PER_SEC);
	fprintf(stderr, "(a deadlock report is expected here)\n");
	EXPECT(sim_run(w, co_waits, NULL, &result, 0) == -EDEADLK);
	EXPECT(sim_run(w, co_spins, NULL, &result, NS_PER_MS) == -ETIME); /* work takes time too */
	end();
}

static int co_events(void *arg)
{
	unsigned i;
	struct bg b[8];

	for (i = 0; i < 8; i++)
		bg_start(&b[i], IO_WRITE, i * PAGE, PAGE, 1, 0);
	EXPECT(bdev_co_flush(&d->bdev) == 0);
	for (i = 0; i < 8; i++)
		EXPECT(bg_wait(&b[i]) == 0);
	EXPECT(read_fill_of(d, 0, 8 * PAGE) == 1);
	return 0;
}

static void run_stops_at_exactly_the_event_asked_for(void)
{
	uint64_t n;
	int r = 0;

	for (n = 0; n <= 18; n++) {
		begin(7);
		sim_disks_stop_at(ds, n);
		r = sim_run(w, co_events, NULL, NULL, 0);
		EXPECT(r == -ECANCELED && sim_disks_n_events(ds) == n);
		EXPECT(sim_disk_n_ops(ds, 0, IO_WRITE) <= n);
		sim_disks_stop_at(ds, UINT64_MAX); /* and it can go on */
		sim_run_for(w, NS_PER_SEC);
		EXPECT(sim_disks_n_events(ds) == (n ? 18 : 0));
		end();
	}
}

static void clocks_start_at_random(void)
{
	uint64_t wall[2], now[2], k;

	for (k = 0; k < 2; k++) {
		begin(k);
		wall[k] = w->ops->wall_ns(w);
		now[k] = world_now_ns(w);
		EXPECT(wall[k] > 30 * 365 * 86400 * NS_PER_SEC);
		end();
	}
	EXPECT(wall[0] != wall[1] && now[0] != now[1]);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(errors_hit_the_operations_they_are_set_for),
		TEST(failed_write_leaves_old_new_or_both),
		TEST(rates_are_rates),
		TEST(stalled_request_completes_later),
		TEST(lost_write_succeeds_and_changes_nothing),
		TEST(misdirected_write_lands_elsewhere_whole),
		TEST(bit_rot_flips_one_bit_for_good),
		TEST(disk_that_is_gone_fails_everything_until_it_is_back),
		TEST(lying_flush_makes_nothing_durable),
		TEST(hanging_disk_completes_nothing_until_cleared),
		TEST(bad_range_fails_reads_until_it_is_written),
		TEST(open_and_locks),
		TEST(read_only_disk_refuses_writes),
		TEST(disks_come_go_and_change_their_paths),
		TEST(resized_disk_loses_what_lay_beyond),
		TEST(poked_bytes_are_seen_and_durable),
		TEST(clone_is_equal_and_independent),
		TEST(restored_disk_has_the_contents_of_the_clone_and_no_cache),
		TEST(hash_is_of_contents_alone),
		TEST(same_seed_same_run_other_seed_other_run),
		TEST(hooks_run_when_nothing_else_is_ready),
		TEST(ready_tasks_run_in_any_order),
		TEST(run_ends_by_result_limit_or_deadlock),
		TEST(run_stops_at_exactly_the_event_asked_for),
		TEST(clocks_start_at_random),
		CU_TEST_INFO_NULL,
	};

	return tests_run("sim_world", tests);
}
