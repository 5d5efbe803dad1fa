/*
 * sim: random runs of the whole engine in the simulated world against the model.
 *
 *   sim [--seed N] [--count N] [--minutes M] [--jobs N] [--file FILE] [--mutant NAME] [--keep] [--verbose]
 *
 * With --seed alone: that run. --count: so many, from a fresh seed or from --seed on. --minutes: until the time is over.
 * --file: the seeds in it (regressions) first. Each seed runs in a process of its own; one in sixteen runs twice and must
 * give the same trace hash. The first failure ends it all (unless --keep), with the command that repeats it.
 */
#include <getopt.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/mutant.h"
#include "tests/sim/sim_run.h"

#define JOBS_MAX 64
#define HANG_SECONDS 120
#define TWICE 16

struct outcome {
	uint64_t hash, n_ios, n_sectors;
	unsigned n_lives;
};

struct job {
	pid_t pid;
	uint64_t seed;
	bool again; /* second time */
	uint64_t want;
	int fd;
};

struct runs {
	const char *self, *mutant;
	struct job jobs[JOBS_MAX];
	unsigned n_jobs, n_running;
	uint64_t *seeds;
	size_t n_seeds, next, done, twice;
	uint64_t n_ios, n_sectors, n_lives;
	time_t until;
	bool verbose, failed, endless, keep;
	size_t n_failed;
};

static void child_main(const struct runs *rs, uint64_t seed, int fd)
{
	struct sim_run *s = calloc(1, sizeof(*s));
	struct outcome o;

	alarm(rs->verbose ? 0 : HANG_SECONDS);
	s->rig.verbose = rs->verbose;
	if (sim_run_seed(s, seed) < 0)
		_exit(1);
	o = (struct outcome){ s->hash, s->rig.n_ios, s->rig.n_reads_checked, s->n_lives };
	if (write(fd, &o, sizeof(o)) != sizeof(o))
		_exit(1);
	_exit(0);
}

static void job_start(struct runs *rs, uint64_t seed, bool again, uint64_t want)
{
	struct job *j;
	int p[2];

	for (j = rs->jobs; j->pid; j++)
		;
	if (pipe(p) < 0)
		abort();
	fflush(NULL);
	j->pid = fork();
	if (j->pid == 0)
		child_main(rs, seed, p[1]);
	close(p[1]);
	j->fd = p[0];
	j->seed = seed;
	j->again = again;
	j->want = want;
	rs->n_running++;
}

static void say_failure(struct runs *rs, const struct job *j, const char *what)
{
	printf("seed %" PRIu64 " failed: %s\nrepeat it: make sim SEED=%" PRIu64 " (%s --seed %" PRIu64 "%s%s)\n", j->seed, what,
	       j->seed, rs->self, j->seed, rs->mutant ? " --mutant " : "", rs->mutant ? rs->mutant : "");
	rs->n_failed++;
	rs->failed = true;
}

static void job_end(struct runs *rs, struct job *j, int status)
{
	struct outcome o = { 0 };
	struct job was = *j;
	bool whole = read(j->fd, &o, sizeof(o)) == sizeof(o);

	close(j->fd);
	j->pid = 0;
	rs->n_running--;
	if (WIFSIGNALED(status)) {
		say_failure(rs, &was, WTERMSIG(status) == SIGALRM ? "it does not end" : strsignal(WTERMSIG(status)));
	} else if (WEXITSTATUS(status) || !whole) {
		say_failure(rs, &was, "see above");
	} else if (was.again && o.hash != was.want) {
		say_failure(rs, &was, "two runs differ");
	} else {
		rs->n_ios += o.n_ios;
		rs->n_sectors += o.n_sectors;
		rs->n_lives += o.n_lives;
		rs->done++;
		if (rs->n_seeds == 1)
			printf("seed %" PRIu64 ": trace hash %016" PRIx64 ", %" PRIu64 " requests\n", was.seed, o.hash, o.n_ios);
		if (!was.again && (was.seed % TWICE == 0 || rs->n_seeds == 1)) {
			rs->twice++;
			job_start(rs, was.seed, true, o.hash);
		}
	}
}

static void wait_one(struct runs *rs)
{
	int status;
	pid_t pid = wait(&status);
	unsigned i;

	for (i = 0; i < JOBS_MAX; i++) {
		if (rs->jobs[i].pid == pid && pid > 0) {
			job_end(rs, &rs->jobs[i], status);
			return;
		}
	}
}

static void seed_add(struct runs *rs, uint64_t seed)
{
	rs->seeds = realloc(rs->seeds, (rs->n_seeds + 1) * sizeof(*rs->seeds));
	rs->seeds[rs->n_seeds++] = seed;
}

static void seeds_of_file(struct runs *rs, const char *path)
{
	FILE *f = fopen(path, "r");
	char line[200];

	if (!f) {
		perror(path);
		exit(2);
	}
	while (fgets(line, sizeof(line), f))
		if (line[0] >= '0' && line[0] <= '9')
			seed_add(rs, strtoull(line, NULL, 10));
	fclose(f);
}

static void run_all(struct runs *rs, uint64_t base)
{
	for (;;) {
		bool more = rs->next < rs->n_seeds || rs->endless;

		if ((rs->failed && !rs->keep) || (rs->until && time(NULL) >= rs->until))
			more = false;
		if (more && rs->n_running < rs->n_jobs) {
			if (rs->next == rs->n_seeds)
				seed_add(rs, base++);
			job_start(rs, rs->seeds[rs->next++], false, 0);
		} else if (rs->n_running) {
			wait_one(rs);
		} else {
			break;
		}
	}
	printf("sim: %zu runs (%zu twice), %" PRIu64 " lives, %" PRIu64 " requests, %" PRIu64 " sectors compared: %s\n", rs->done,
	       rs->twice, rs->n_lives, rs->n_ios, rs->n_sectors, rs->failed ? "FAILED" : "ok");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", 1, NULL, 's' },    { "count", 1, NULL, 'c' },	 { "minutes", 1, NULL, 'm' }, { "jobs", 1, NULL, 'j' },
		{ "file", 1, NULL, 'f' },    { "mutant", 1, NULL, 'x' }, { "verbose", 0, NULL, 'v' },
		{ "keep", 0, NULL, 'k' },    { NULL, 0, NULL, 0 },
	};
	struct runs rs = { .self = argv[0], .n_jobs = 1 };
	uint64_t base = 0, count = 0, i;
	bool have_seed = false;
	double minutes = 0;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 's':
			base = strtoull(optarg, NULL, 0);
			have_seed = true;
			break;
		case 'c':
			count = strtoull(optarg, NULL, 0);
			break;
		case 'm':
			minutes = strtod(optarg, NULL);
			break;
		case 'j':
			rs.n_jobs = MIN(MAX((unsigned)atoi(optarg), 1u), JOBS_MAX - 1u);
			break;
		case 'f':
			seeds_of_file(&rs, optarg);
			break;
		case 'x':
			rs.mutant = optarg;
			if (!mutant_set(optarg)) {
				fprintf(stderr, "sim: no such mutant in this build: %s\n", optarg);
				return 2;
			}
			break;
		case 'k':
			rs.keep = true;
			break;
		case 'v':
			rs.verbose = true;
			break;
		default:
			return 2;
		}
	}
	if (!have_seed && getrandom(&base, 6, 0) != 6)
		return 2;
	if (!count && !minutes && !rs.n_seeds)
		count = 1;
	for (i = 0; i < count; i++)
		seed_add(&rs, base++);
	rs.endless = minutes > 0 && !count;
	rs.until = minutes > 0 ? time(NULL) + (time_t)(minutes * 60) : 0;
	mallopt(M_MMAP_THRESHOLD, 256 << 20); /* worlds come and go: keep their memory */
	mallopt(M_TRIM_THRESHOLD, 256 << 20);
	setvbuf(stdout, NULL, _IOLBF, 0);
	run_all(&rs, base);
	free(rs.seeds);
	return rs.failed;
}
