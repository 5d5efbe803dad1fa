/*
 * The NBD server over memory devices, in the real world: what protocol tests and benches talk to.
 *
 * nbd_mem_server ADDR [--reactors N] [--size BYTES] [--handshake-ms N] [--max-connections N] [--max-half-open N]
 *                     [--max-total BYTES] [--tls-certificates DIR] [--tls-psk FILE] [--tls-verify] [--tls-require]
 *                     [--tls-allow NAME]...
 *
 * Exports: "mem" (also the default), "ro", "block4k", "slow" (5 ms), "faulty" (errors in its second MiB), "nofast",
 * "huge" (6 GiB), "guarded" (for TLS clients of the name alice).
 * Prints "ready ADDR" when it listens, "attached N" at the end (sessions that were not detached), and ends on SIGTERM.
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/units.h"
#include "engine/io/real.h"
#include "tests/lib/nbd_mem_exports.h"

#define N_EXPORTS 8
#define NAMES_MAX 8

static struct {
	const char *addr;
	struct real_options world;
	struct nbd_options nbd;
	struct tls_options tls;
	struct tls_config *tls_config;
	const char *names[NAMES_MAX + 1];
	unsigned n_names;
	uint64_t size_bytes;
	struct nbd_mem_exports *exports;
	struct nbd_server *server;
	struct world *w;
} me = {.world.n_reactors = 2, .size_bytes = 64 * MIB};

static int fault(void *arg, struct io *io)
{
	return io->op != IO_FLUSH && io->off_bytes + io->len_bytes > MIB && io->off_bytes < 2 * MIB ? -EIO : 0;
}

static void log_line(void *arg, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

static int start(void *arg)
{
	const struct nbd_mem_export_spec specs[] = {
		{.name = "mem", .description = "plain memory", .home = 0, .o = {.size_bytes = me.size_bytes}},
		{.name = "ro", .description = "read only", .home = 1, .read_only = true, .o = {.size_bytes = me.size_bytes}},
		{.name = "block4k", .home = 1, .o = {.size_bytes = 16 * MIB, .block_bytes = 4096, .opt_bytes = 65536, .max_bytes = 65536}},
		{.name = "slow", .home = 1, .o = {.size_bytes = 64 * MIB, .delay_ns = 5 * NS_PER_MS}},
		{.name = "faulty", .home = 0, .o = {.size_bytes = 16 * MIB, .fault = fault}},
		{.name = "nofast", .home = 0, .o = {.size_bytes = 16 * MIB, .no_fast_zero = true, .no_discard = true}},
		{.name = "huge", .home = 1, .o = {.size_bytes = 6 * GIB, .max_bytes = 32 * MIB}},
		{.name = "guarded", .home = 1, .allow = "tls:alice", .o = {.size_bytes = 16 * MIB}},
	};
	struct nbd_provider p;
	struct err e = {0};
	int r;

	_Static_assert(ARRAY_LEN(specs) == N_EXPORTS, "exports");
	me.exports = nbd_mem_exports_co_create(me.w, specs, ARRAY_LEN(specs));
	nbd_mem_exports_provider(me.exports, &p);
	if (me.tls.cert_dir || me.tls.psk_file) {
		r = tls_config_create(&me.tls, &me.tls_config, &e);
		if (r < 0)
			fprintf(stderr, "%s\n", e.text);
		if (r < 0)
			return r;
		me.nbd.tls = me.tls_config;
	}
	me.server = nbd_server_create(me.w, &p, &me.nbd);
	r = nbd_server_listen(me.server, me.addr, &e);
	if (r < 0)
		fprintf(stderr, "%s\n", e.text);
	return r;
}

static int stop(void *arg)
{
	unsigned i, n = 0;

	nbd_server_co_destroy(me.server);
	if (me.tls_config)
		tls_config_destroy(me.tls_config);
	for (i = 0; i < N_EXPORTS; i++)
		n += nbd_mem_export_attached(me.exports, i);
	printf("attached %u\n", n);
	nbd_mem_exports_co_destroy(me.exports);
	return n ? -EBUSY : 0;
}

static void options(int argc, char **argv)
{
	static const struct option longs[] = {
		{"reactors", required_argument, NULL, 'r'},	   {"size", required_argument, NULL, 's'},
		{"handshake-ms", required_argument, NULL, 'h'},	   {"max-connections", required_argument, NULL, 'c'},
		{"max-half-open", required_argument, NULL, 'o'},   {"max-total", required_argument, NULL, 't'},
		{"tls-certificates", required_argument, NULL, 'C'}, {"tls-psk", required_argument, NULL, 'P'},
		{"tls-verify", no_argument, NULL, 'V'},		   {"tls-require", no_argument, NULL, 'R'},
		{"tls-allow", required_argument, NULL, 'A'},
		{0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		uint64_t v = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (c) {
		case 'r': me.world.n_reactors = (unsigned)v; break;
		case 's': me.size_bytes = v; break;
		case 'h': me.nbd.handshake_ns = v * NS_PER_MS; break;
		case 'c': me.nbd.max_connections = (unsigned)v; break;
		case 'o': me.nbd.max_unauthenticated = (unsigned)v; break;
		case 't': me.nbd.max_total_bytes = v; break;
		case 'C': me.tls.cert_dir = optarg; break;
		case 'P': me.tls.psk_file = optarg; break;
		case 'V': me.tls.verify_peer = true; break;
		case 'R': me.nbd.tls_required = true; break;
		case 'A':
			if (me.n_names == NAMES_MAX)
				exit(2);
			me.names[me.n_names++] = optarg;
			me.nbd.tls_allow = me.names;
			break;
		default: exit(2);
		}
	}
	if (optind + 1 != argc)
		exit(2);
	me.addr = argv[optind];
	me.nbd.log = log_line;
}

int main(int argc, char **argv)
{
	struct err e = {0};
	sigset_t set;
	int sig, r;

	options(argc, argv);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	r = real_world_create(&me.world, &me.w, &e);
	if (r == 0)
		r = real_world_run(me.w, start, NULL);
	if (r < 0) {
		fprintf(stderr, "nbd_mem_server: %s\n", e.code ? e.text : err_text(r));
		return 1;
	}
	printf("ready %s\n", me.addr);
	fflush(stdout);
	sigwait(&set, &sig);
	r = real_world_run(me.w, stop, NULL);
	real_world_destroy(me.w);
	return r ? 1 : 0;
}
