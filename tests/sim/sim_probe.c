/*
 * sim_probe.c: "redundancy N" means that any N disks may go, at this very moment and with the power, and nothing is lost. Taken
 * at its word, in a copy of this process, so that the run itself goes on as if nothing had been.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/sim_run.h"

#define PROBE_SECONDS 100
#define PROBE_LIMIT_NS (3600 * NS_PER_SEC)

void probe_co_ask(struct sim_run *s)
{
	nemesis_co_look(s);
	if (rig_spare(&s->rig, &s->claim, s->hurt, s->tolerates) < 1)
		return;
	s->probe_wanted = true;
	sim_disks_stop_at(s->rig.disks, sim_disks_n_events(s->rig.disks));
	co_yield();
}

static int probe_co_main(void *arg)
{
	struct sim_run *s = arg;
	struct rig *g = &s->rig;
	int r = rig_co_open(g, 0);

	if (r < 0)
		return r;
	rig_co_verify(g);
	if (!g->failed)
		rig_co_check(g, true);
	if (!g->failed)
		rig_co_close(g);
	return g->failed ? -EUCLEAN : 0;
}

/* In the copy. */
static void probe_child(struct sim_run *s, struct rng *rng)
{
	struct rig *g = &s->rig;
	uint32_t behind = s->hurt | rig_away(g), lost = 0;
	unsigned n = (unsigned)rig_spare(g, &s->claim, s->hurt, s->tolerates), i, k;
	uint32_t members = rig_members(g);
	int r, result = 0;

	while (n && members & ~behind) {
		i = (unsigned)rng_below(rng, g->n_disks);
		if (behind >> i & 1 || !(members >> i & 1))
			continue;
		behind |= 1U << i;
		lost |= 1U << i;
		n--;
	}
	if (rng_chance(rng, 1, 2))
		lost |= behind;
	rig_note(g, "probe: redundancy is %d, so disks %x may go (%x are behind)", s->claim.redundancy, lost, behind);
	rig_world_drop(g);
	model_crash(g->model);
	sim_disks_power_cut(g->disks, rng_chance(rng, 1, 2) ? SIM_CUT_RANDOM : (enum sim_cut)rng_below(rng, SIM_CUT_ONLY_ONE + 1), rng);
	for (k = 0; k < g->n_disks; k++) {
		memset(sim_disk_faults(g->disks, k), 0, sizeof(struct sim_faults));
		sim_disk_clear_bad(g->disks, k);
		if (lost >> k & 1)
			sim_disk_remove(g->disks, k);
	}
	pools_off(s);
	rot_undo(s);
	g->may_be_full = g->degraded = true;
	rig_world_start(g, rng_next(rng));
	r = sim_run(g->w, probe_co_main, s, &result, PROBE_LIMIT_NS);
	if ((r < 0 || result < 0) && !g->failed)
		rig_fail(g, "%s", r == -EDEADLK ? "deadlock" : r < 0 ? "it does not end" : err_text(result));
	if (g->failed)
		fprintf(stderr, "FAILED: in a probe: redundancy was said to be %d, disks %x are gone, %x were behind\n",
			s->claim.redundancy, lost, behind);
	fflush(NULL);
	_exit(g->failed);
}

void probe_run(struct sim_run *s)
{
	struct rng rng;
	int status = 0;
	pid_t pid;

	rng_init(&rng, rng_next(&s->rng));
	if (rig_spare(&s->rig, &s->claim, s->hurt, s->tolerates) < 1)
		return;
	s->n_probes++;
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		alarm(s->rig.verbose ? 0 : PROBE_SECONDS);
		probe_child(s, &rng);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		rig_fail(&s->rig, "redundancy was said to be %d, and it was not (see above; status %x)", s->claim.redundancy,
			 (unsigned)status);
}
