/*
 * crash: the crash explorer.
 *
 *   crash [--parity] [--states N] [--minutes M] [--jobs N] [--first W] [--points N] [--variants N] [--mutant NAME] [--keep]
 *         [--verbose]
 *   crash [--parity] --workload W [--point P --variant V]
 *   crash [--parity] --op NAME [--jobs N] [--points N] [--variants N]
 *
 * Workloads are numbered: first every single operation on every small pool, then random sequences without end. Each runs in
 * a process of its own. Stops after so many states (or minutes), at the first failure (unless --keep), which it tells how
 * to repeat alone. --parity: the family of raid5 and raid6. --op: that operation alone on every pool, with a crash at every event of
 * its disks.
 */
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/hash.h"
#include "engine/base/mutant.h"
#include "tests/crash/crash_run.h"
#include "tests/lib/sim_transfer.h"

#define JOBS_MAX 64
#define HANG_SECONDS 300

static struct crash_run *current; /* for the signal handler */
static const char *self, *mutant;

static void say_state(const struct crash_run *c)
{
	char text[300];

	workload_describe(&c->wl, &c->rig, text, sizeof(text));
	printf("workload %" PRIu64 " (%s), event %" PRIu64 ", %s\nrepeat it: make crash %sWORKLOAD=%" PRIu64 " POINT=%" PRIu64
	       " VARIANT=%u (%s%s%s)\n", c->wl.number, text, c->point, c->what, c->parity ? "PARITY=1 " : "", c->wl.number, c->point,
	       c->variant, self, mutant ? " --mutant " : "", mutant ? mutant : "");
	fflush(stdout);
}

static void on_signal(int sig)
{
	printf("signal %d in ", sig);
	say_state(current); /* not safe, and better than nothing */
	signal(sig, SIG_DFL);
	raise(sig);
}

/* ---- one workload ---- */

/* Runs it from the start; stops at each of points[n] (ascending) to explore. Returns the number of events at its end. */
static uint64_t record(struct crash_run *c, const uint64_t *points, unsigned n)
{
	struct sim_options o = { .seed = hash_mix(c->wl.number), .n_reactors = c->rig.n_reactors };
	struct rig *g = &c->rig;
	uint64_t end;
	unsigned i = 0, v, variants;
	int r;

	c->done = false;
	g->w = sim_world_create(&o, g->disks);
	sim_disks_stop_at(g->disks, n ? points[0] : UINT64_MAX);
	r = sim_run(g->w, workload_co_run, c, &c->result, 3600 * NS_PER_SEC);
	while (r == -ECANCELED && !c->done && i < n) {
		variants = explore_variants(c);
		for (v = 0; v < variants && !g->failed; v++)
			if (!c->one || v == c->one_variant)
				g->failed = !explore_state(c, points[i], v);
		c->st.points++;
		if (g->failed)
			break;
		i++;
		sim_disks_stop_at(g->disks, i < n ? points[i] : UINT64_MAX);
		sim_run_for(g->w, 3600 * NS_PER_SEC);
	}
	end = sim_disks_n_events(g->disks);
	if (!g->failed && !c->done) {
		c->point = end;
		snprintf(c->what, sizeof(c->what), "the recorded run does not end (%s)", err_text(r));
		rig_fail(g, "%s", c->what);
	}
	sim_world_destroy(g->w);
	g->w = NULL;
	return end;
}

static void run_free(struct crash_run *c)
{
	sim_disks_destroy(c->rig.disks);
	model_destroy(c->rig.model);
	parcels_free(&c->rig);
	memset(&c->rig, 0, sizeof(c->rig));
}

static uint64_t set_up(struct crash_run *c, uint64_t number)
{
	bool verbose = c->rig.verbose;

	memset(&c->rig, 0, sizeof(c->rig));
	memset(&c->claim, 0, sizeof(c->claim));
	c->hurt = 0;
	c->n_running = c->n_names = 0;
	c->watch_ends = false;
	workload_make(c, number);
	workload_prepare(c);
	c->rig.verbose = verbose;
	return sim_disks_n_events(c->rig.disks);
}

/* Points spread over the run at random, all different, ascending. */
static unsigned choose_points(struct crash_run *c, uint64_t begin, uint64_t end, uint64_t *points)
{
	uint64_t n = end - begin, left = c->points_max ? MIN(n, c->points_max) : n, at;
	unsigned k = 0;

	if (c->one) {
		points[0] = c->one_point;
		return 1;
	}
	for (at = begin + 1; at <= end && left; at++) {
		if (rng_below(&c->rng, end - at + 1) < left) {
			points[k++] = at;
			left--;
		}
	}
	return k;
}

static bool run_workload(struct crash_run *c, uint64_t number)
{
	bool verbose = c->rig.verbose;
	uint64_t begin, end, *points;
	unsigned n;
	bool ok;

	c->rig.verbose = false;
	begin = set_up(c, number);
	end = c->rig.failed ? begin : record(c, NULL, 0);
	ok = !c->rig.failed;
	points = calloc(MAX(end - begin, 1), sizeof(*points));
	if (ok) {
		n = choose_points(c, begin, end, points);
		run_free(c);
		c->rig.verbose = verbose;
		set_up(c, number);
		record(c, points, n);
		ok = !c->rig.failed;
	}
	if (!ok)
		say_state(c);
	c->st.workloads++;
	free(points);
	if (ok)
		run_free(c);
	return ok;
}

/* ---- all of them ---- */

struct job {
	pid_t pid;
	int fd;
};

static void child_main(struct crash_run *c, uint64_t number, int fd)
{
	bool ok;

	current = c;
	signal(SIGABRT, on_signal);
	signal(SIGSEGV, on_signal);
	signal(SIGALRM, on_signal);
	alarm(c->rig.verbose || c->patient ? 0 : HANG_SECONDS);
	ok = run_workload(c, number);
	fflush(NULL);
	if (write(fd, &c->st, sizeof(c->st)) != sizeof(c->st))
		_exit(1);
	_exit(!ok);
}

static void job_start(struct crash_run *c, struct job *j, uint64_t number)
{
	int p[2];

	if (pipe(p) < 0)
		abort();
	fflush(NULL);
	j->pid = fork();
	if (j->pid == 0)
		child_main(c, number, p[1]);
	close(p[1]);
	j->fd = p[0];
}

/* Waits for one; false: it failed. */
static bool job_wait(struct job *jobs, struct stats *sum)
{
	struct stats st = { 0 };
	int status;
	pid_t pid = wait(&status);
	unsigned i;

	for (i = 0; jobs[i].pid != pid; i++)
		;
	if (read(jobs[i].fd, &st, sizeof(st)) == sizeof(st)) {
		sum->states += st.states;
		sum->missing += st.missing;
		sum->second += st.second;
		sum->points += st.points;
		sum->workloads++;
	}
	close(jobs[i].fd);
	jobs[i].pid = 0;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int explore_all(struct crash_run *c, uint64_t first, uint64_t last, uint64_t states, time_t until, unsigned n_jobs, bool keep)
{
	struct job jobs[JOBS_MAX] = { 0 };
	struct stats sum = { 0 };
	unsigned running = 0, i, failed = 0;
	uint64_t next = first;

	for (;;) {
		bool more = (!failed || keep) && next <= last && (!states || sum.states < states) &&
			    (!until || time(NULL) < until);

		if (more && running < n_jobs) {
			for (i = 0; jobs[i].pid; i++)
				;
			job_start(c, &jobs[i], next++);
			running++;
		} else if (running) {
			failed += !job_wait(jobs, &sum);
			running--;
		} else {
			break;
		}
	}
	printf("crash: %" PRIu64 " states (%" PRIu64 " with a disk missing, %" PRIu64 " after a second crash) at %" PRIu64
	       " points of %" PRIu64 " workloads: %s", sum.states, sum.missing, sum.second, sum.points, sum.workloads,
	       failed ? "" : "ok\n");
	if (failed)
		printf("%u FAILED\n", failed);
	return failed != 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "states", 1, NULL, 's' },   { "minutes", 1, NULL, 'm' }, { "jobs", 1, NULL, 'j' },	{ "first", 1, NULL, 'f' },
		{ "points", 1, NULL, 'p' },   { "variants", 1, NULL, 'n' }, { "mutant", 1, NULL, 'x' }, { "keep", 0, NULL, 'k' },
		{ "verbose", 0, NULL, 'v' },  { "parity", 0, NULL, 'a' }, { "op", 1, NULL, 'o' },	  { "workload", 1, NULL, 'w' }, { "point", 1, NULL, 'P' },	{ "variant", 1, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	struct crash_run *c = calloc(1, sizeof(*c));
	uint64_t states = 0, first = 0, last = UINT64_MAX, number = 0;
	const char *op = NULL;
	bool have_number = false, keep = false;
	unsigned n_jobs = 1;
	double minutes = 0;
	int o;

	self = argv[0];
	c->points_max = UINT_MAX;
	c->variants = 5;
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		uint64_t n = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (o) {
		case 's': states = n; break;
		case 'm': minutes = strtod(optarg, NULL); break;
		case 'j': n_jobs = (unsigned)MIN(MAX(n, 1), JOBS_MAX - 1); break;
		case 'f': first = n; break;
		case 'p': c->points_max = (unsigned)n; break;
		case 'n': c->variants = (unsigned)n; break;
		case 'k': keep = true; break;
		case 'v': c->rig.verbose = true; break;
		case 'a': c->parity = true; break;
		case 'o': op = optarg; break;
		case 'w': number = n; have_number = true; break;
		case 'P': c->one = true; c->one_point = n; break;
		case 'V': c->one_variant = (unsigned)n; c->variants = MAX(c->variants, (unsigned)n + 1); break;
		case 'x':
			mutant = optarg;
			if (mutant_set(optarg))
				break;
			fprintf(stderr, "crash: no such mutant in this build: %s\n", optarg);
			return 2;
		default: return 2;
		}
	}
	mallopt(M_MMAP_THRESHOLD, 256 << 20); /* worlds come and go: keep their memory */
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (c->points_max == UINT_MAX) /* --points 0: every event */
		c->points_max = op ? 0 : 24;
	c->patient = op != NULL;
	if (have_number) {
		current = c;
		signal(SIGABRT, on_signal);
		return !run_workload(c, number);
	}
	if (op) {
		number = workload_find_op(c, op, &first);
		if (!number) {
			fprintf(stderr, "crash: no operation of that name in this family: %s\n", op);
			return 2;
		}
		last = first + number - 1;
	} else if (!states && minutes == 0) {
		states = 10000;
	}
	return explore_all(c, first, last, states, minutes > 0 ? time(NULL) + (time_t)(minutes * 60) : 0, n_jobs, keep);
}
