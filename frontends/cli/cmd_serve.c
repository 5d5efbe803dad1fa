/*
 * The life of the daemon. The main thread prepares the process (limits, signals, addresses), starts the world and runs
 * serve_co() on reactor 0; that opens pools and sockets, waits for the wish to stop, and closes everything in reverse. A
 * thread of its own waits for signals, so nothing runs in a signal handler: the first one wakes serve_co(), the second one
 * ends the process at once, which is to the pools what a power cut is.
 */
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/base/units.h"
#include "engine/io/real.h"
#include "frontends/cli/serve.h"
#include "frontends/cli/session.h"
#include "frontends/control/methods.h"
#include "frontends/control/names.h"
#include "frontends/control/server.h"
#include "frontends/iscsi/iscsi.h"
#include "nbd/nbd.h"

#define FDS_PER_REACTOR 4
#define FDS_RESERVE 12 /* control connections, a disk that is opened again, the C library */
#define FDS_CLIENTS_MIN 4

#define TLS_ADVICE                                                                                  \
	"give keys for TLS (--tls-certificates DIR --tls-verify-peer, or --tls-psk FILE), use 127.0.0.1 or " \
	"unix:PATH, or add --insecure on a network that you trust"

struct daemon {
	const struct cli *cl;
	char control[128];
	char nbd_default[160];
	const char *nbd[CLI_MANY_MAX + MANAGER_FDS_MAX]; /* the last n_fds of them are the service manager's */
	unsigned n_nbd;
	const char *const *disks;
	size_t n_disks;
	bool is_explicit; /* disks were named on the command line: all of their pools must open */
	unsigned n_reactors;
	uint64_t metadata_cache_bytes, fd_limit, start_ns;
	struct world *world;
	struct ashlar *a;
	struct serve_tls tls;
	struct serve_iscsi iscsi;
	struct manager manager;
	struct nbd_server *nbd_server;
	struct control_server *control_server;
	struct control_env env;
	bool is_stopping;
	struct co_queue stop;
	struct err e;
};

static void say(const char *fmt, ...) __printf_like(1, 2);
static void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	fflush(stdout);
}

/* ---- what the control methods ask of a daemon ---- */

static json_t *daemon_co_connections(void *arg)
{
	struct daemon *d = arg;
	struct nbd_connection_info *v;
	json_t *rows = json_array();
	size_t i, n;

	serve_iscsi_connections(&d->iscsi, rows);
	if (nbd_server_co_connections(d->nbd_server, &v, &n) < 0)
		return rows;
	for (i = 0; i < n; i++) {
		json_t *name = json_string(v[i].export_name), *peer = json_string(v[i].peer);

		json_array_append_new(rows, json_pack("{s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:I}", "protocol", "nbd", "export",
						      name ? name : json_string("?"), "peer", peer ? peer : json_string("?"), "reads",
						      (json_int_t)v[i].reads, "writes", (json_int_t)v[i].writes, "bytes_read",
						      (json_int_t)v[i].bytes_read, "bytes_written", (json_int_t)v[i].bytes_written,
						      "since_unix", (json_int_t)(v[i].since_wall_ns / NS_PER_SEC)));
	}
	xfree(v);
	return rows;
}

static json_t *daemon_status(void *arg)
{
	struct daemon *d = arg;
	json_t *nbd = json_array(), *rows = daemon_co_connections(d);
	size_t n_pools = 0, n_conns = json_array_size(rows);
	unsigned i;
	int why;

	json_decref(rows);
	while (ashlar_pool_at(d->a, n_pools))
		n_pools++;
	for (i = 0; i < d->n_nbd; i++)
		json_array_append_new(nbd, json_string(d->nbd[i]));
	return json_pack("{s:s, s:i, s:I, s:i, s:s, s:i, s:i, s:s, s:o, s:o, s:b, s:s}", "version", ASHLAR_VERSION, "pid", (int)getpid(),
			 "uptime_seconds", (json_int_t)((world_now_ns(d->world) - d->start_ns) / NS_PER_SEC), "reactors",
			 (int)d->world->n_reactors, "io", real_world_io(d->world, &why), "pools", (int)n_pools, "connections", (int)n_conns,
			 "control", d->control, "nbd", nbd, "iscsi", serve_iscsi_addrs(&d->iscsi), "read_only", d->env.read_only, "tls", d->tls.mode);
}

static void daemon_co_iscsi_changed(void *arg)
{
	struct daemon *d = arg;

	serve_iscsi_co_changed(&d->iscsi);
}

static void daemon_stop(void *arg)
{
	struct daemon *d = arg;

	d->is_stopping = true;
	co_queue_wake_all(&d->stop);
}

/* ---- file descriptors ---- */

static unsigned fds_open(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	if (!dir)
		return 16;
	while (readdir(dir))
		n++;
	closedir(dir);
	return n > 3 ? n - 3 : 0; /* less ".", ".." and the directory itself */
}

static uint64_t fds_raise(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
		return 1024;
	rl.rlim_cur = rl.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &rl) < 0)
		getrlimit(RLIMIT_NOFILE, &rl);
	return rl.rlim_cur;
}

/* One reactor per CPU, fewer where the limit of descriptors would leave none for clients. */
static unsigned reactors_default(uint64_t fd_limit)
{
	uint64_t most = fd_limit / 4 / FDS_PER_REACTOR;
	cpu_set_t set;
	uint64_t n = 1;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		n = (uint64_t)CPU_COUNT(&set);
	return (unsigned)MAX(MIN(MIN(n, most), (uint64_t)REACTORS_MAX), (uint64_t)1);
}

static int clients_max(struct daemon *d, unsigned *n)
{
	uint64_t used = fds_open() + FDS_RESERVE;

	if (d->fd_limit < used + FDS_CLIENTS_MIN)
		return err_set(&d->e, -EMFILE,
			       "too few file descriptors: the limit is %llu, the disks and %u reactors need %llu and clients at least %d; "
			       "raise it (`ulimit -n 1024`, LimitNOFILE=) or use fewer --reactors",
			       (unsigned long long)d->fd_limit, d->n_reactors, (unsigned long long)used, FDS_CLIENTS_MIN);
	*n = (unsigned)MIN(d->fd_limit - used, (uint64_t)10000);
	return 0;
}

/* ---- pools ---- */

static void pool_say(struct ashlar_pool *p)
{
	struct ashlar_pool_info i;
	char used[16], free_text[16];

	ashlar_co_pool_info(p, &i);
	say("pool %s: %s%s, %s, %u of %u disks, %u volume%s, %s used, %s free, opened in %llu ms\n", i.name,
	    ashlar_health_name(i.health), i.read_only ? ", read-only" : "", i.layout, i.n_disks_online, i.n_disks, i.n_volumes,
	    i.n_volumes == 1 ? "" : "s", size_format(i.used_bytes, used, sizeof(used)),
	    size_format(i.free_bytes, free_text, sizeof(free_text)), (unsigned long long)(i.open_ns / NS_PER_MS));
}

static int pools_co_open(struct daemon *d)
{
	struct ashlar_found *f;
	struct ashlar_pool *p;
	struct ashlar_looked looked;
	size_t i, n, n_open = 0;
	int r = ashlar_co_discover(d->a, d->disks, d->n_disks, &f, &n, &looked, &d->e);

	if (r < 0)
		return r;
	if (n == 0 && looked.n_unread)
		r = err_set(&d->e, -ENOENT, "no pool found: %zu of %zu disks could not be read: %s", looked.n_unread, looked.n_disks,
			    looked.why.text);
	else if (n == 0)
		r = err_set(&d->e, -ENOENT, "no pool found on %s; make one by `ashlar pool create`",
			    d->n_disks ? "these disks" : "any block device");
	for (i = 0; i < n; i++) {
		struct err e = { 0 };

		r = cli_co_pool_open(d->a, f[i].name, (const char *const *)f[i].paths, f[i].n_paths,
				     d->env.read_only ? ASHLAR_OPEN_RDONLY : 0, &p, &e);
		if (r == 0) {
			n_open++;
			pool_say(p);
			continue;
		}
		err_default(&e, r, f[i].name);
		d->e = e;
		if (d->is_explicit || (i + 1 == n && n_open == 0))
			break;
		cli_log(NULL, e.text);
		r = 0;
	}
	ashlar_found_free(f, n);
	return r;
}

static int pools_co_close(struct daemon *d)
{
	struct ashlar_pool *p;
	struct err e = { 0 };
	int r, result = 0;

	while ((p = ashlar_pool_at(d->a, 0))) {
		r = ashlar_co_pool_close(p, &e);
		if (r < 0) {
			err_default(&e, r, "closing a pool");
			cli_log(NULL, e.text);
			result = r;
		}
	}
	return result;
}

/* ---- life ---- */

/* Encrypted is not guarded: who has certificates lets anybody in unless he asks for theirs, keys or not. */
static void anonymous_warn(const struct daemon *d, const char *addr)
{
	char line[400], q[72];

	if (cli_addr_is_local(addr) || !d->tls.config || !cli_has(d->cl, OPT_TLS_CERTS) || cli_has(d->cl, OPT_TLS_VERIFY) || d->cl->tls_allow.n)
		return;
	snprintf(line, sizeof(line), "nbd %s: whoever reaches this address may use every export that has no rules: nobody has to show who he is "
		 "(%s, ashlar export set --allow)", control_name_quote(addr, q, sizeof(q)), cli_has(d->cl, OPT_TLS_PSK) ?
		 "--tls-verify-peer, or --tls-psk without --tls-certificates" : "--tls-verify-peer, --tls-psk");
	cli_log(NULL, line);
}

static int nbd_start_fds(struct daemon *d)
{
	unsigned i;
	int r;

	for (i = 0; i < d->manager.n_fds; i++) {
		r = nbd_server_listen_fd(d->nbd_server, d->manager.fds[i], &d->nbd[d->n_nbd], &d->e);
		if (r < 0)
			return r;
		if (!cli_addr_is_local(d->nbd[d->n_nbd]) && !d->tls.config && !cli_has(d->cl, OPT_INSECURE))
			return err_set(&d->e, -EPERM, "other hosts can reach the socket %s that the service manager has opened: " TLS_ADVICE, d->nbd[d->n_nbd]);
		anonymous_warn(d, d->nbd[d->n_nbd]);
		say("nbd %s\n", d->nbd[d->n_nbd++]);
	}
	return 0;
}

static int nbd_start(struct daemon *d)
{
	struct nbd_options o = { .log = cli_log, .tls = d->tls.config, .tls_required = d->tls.is_required, .insecure = cli_has(d->cl, OPT_INSECURE) };
	struct nbd_provider provider;
	unsigned i;
	int r = clients_max(d, &o.max_connections);

	if (r < 0)
		return r;
	o.tls_allow = d->cl->tls_allow.n ? d->cl->tls_allow.v : NULL;
	o.max_unauthenticated = MIN(o.max_connections, 128U);
	nbd_provider_from_ashlar(d->a, &provider);
	d->nbd_server = nbd_server_create(d->world, &provider, &o);
	for (i = 0; i < d->n_nbd; i++) {
		r = nbd_server_listen_at(d->nbd_server, d->nbd[i], &d->nbd[i], &d->e);
		if (r < 0)
			return err_default(&d->e, r, d->nbd[i]);
		say("nbd %s\n", d->nbd[i]);
	}
	r = nbd_start_fds(d);
	return r < 0 ? r : serve_iscsi_start(&d->iscsi, d->a, o.max_connections, &d->e);
}

static int control_start(struct daemon *d)
{
	struct control_server_options o = { .methods = control_methods, .env = &d->env };
	int r;

	o.max_connections = (unsigned)MIN((uint64_t)64, MAX(d->fd_limit / 16, (uint64_t)4));
	d->env.co_connections = daemon_co_connections;
	d->env.status = daemon_status;
	d->env.shutdown = daemon_stop;
	d->env.co_iscsi_changed = daemon_co_iscsi_changed;
	d->env.arg = d;
	d->control_server = control_server_create(d->world, &o);
	r = control_server_listen(d->control_server, d->control, &d->e);
	if (r == 0)
		say("control %s\n", d->control);
	return r;
}

static void io_say(struct daemon *d)
{
	int why;
	const char *io = real_world_io(d->world, &why);

	if (why)
		say("io %s (the kernel refuses io_uring: %s)\n", io, strerror(-why));
	else
		say("io %s\n", io);
}

static int serve_co(void *arg)
{
	struct daemon *d = arg;
	struct ashlar_options o = { .metadata_cache_bytes = d->metadata_cache_bytes, .fence = iscsi_fence, .log = cli_log };
	int r, cr;

	d->start_ns = world_now_ns(d->world);
	d->a = ashlar_create(d->world, &o);
	control_env_init(&d->env, d->a);
	d->env.read_only = cli_has(d->cl, OPT_READ_ONLY);
	io_say(d);
	r = pools_co_open(d);
	if (r == 0)
		r = nbd_start(d);
	if (r == 0)
		r = control_start(d);
	if (r == 0) {
		say("ready\n");
		manager_ready(&d->manager);
		while (!d->is_stopping)
			co_queue_wait(&d->stop);
		say("stopping\n");
		manager_stopping(&d->manager);
	}
	if (d->control_server)
		control_server_co_destroy(d->control_server);
	if (d->nbd_server)
		nbd_server_co_destroy(d->nbd_server);
	serve_iscsi_co_stop(&d->iscsi); /* and its reservations, which clients of NBD were held to */
	cr = pools_co_close(d);
	ashlar_co_destroy(d->a);
	manager_end(&d->manager);
	if (r < 0)
		return r;
	return cr < 0 ? err_set(&d->e, cr, "not all pools could be closed cleanly; they recover when opened again") : 0;
}

static void stop_on_reactor(void *arg) { daemon_stop(arg); }

static void *signal_thread(void *arg)
{
	struct daemon *d = arg;
	sigset_t set;
	int sig, n = 0;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	for (;;) {
		if (sigwait(&set, &sig))
			continue;
		if (n++ > 0) {
			static const char text[] = "ashlar: second signal: ending at once\n";

			if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
				_exit(CLI_FAILED);
			_exit(CLI_FAILED);
		}
		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		reactor_spawn(d->world->reactors[0], stop_on_reactor, d, "stop");
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	}
	return NULL;
}

/* ---- the command ---- */

static int addresses_set(struct daemon *d)
{
	const struct cli *cl = d->cl;
	char q[72];
	unsigned i;

	if (cli_has(cl, OPT_CONTROL) && strlen(cl->values[OPT_CONTROL]) >= sizeof(d->control))
		return cli_failf("the path of the control socket is longer than 107 bytes: %.64s...", cl->values[OPT_CONTROL]);
	cli_control_path(cl, d->control, sizeof(d->control));
	if (!*d->control)
		return cli_failf("there is no runtime directory ($XDG_RUNTIME_DIR); say where the control socket shall be: --control SOCK");
	for (i = 0; i < cl->nbd.n; i++) {
		const char *addr = cl->nbd.v[i], *port = strrchr(addr, ':');

		if (!port || port == addr || !port[1])
			return cli_usage(cl, "--nbd takes unix:PATH or HOST:PORT, not '%s'", control_name_quote(addr, q, sizeof(q)));
		if (!cli_addr_is_local(addr) && !d->tls.config && !cli_has(cl, OPT_INSECURE))
			return cli_failf("--nbd %s: other hosts can reach this address: " TLS_ADVICE,
					 control_name_quote(addr, q, sizeof(q)));
		d->nbd[d->n_nbd++] = addr;
		anonymous_warn(d, addr);
	}
	if (d->n_nbd == 0 && !d->manager.n_fds) {
		cli_addr_beside_control(d->control, d->nbd_default, sizeof(d->nbd_default));
		d->nbd[d->n_nbd++] = d->nbd_default;
	}
	return 0;
}

static int numbers_set(struct daemon *d)
{
	uint64_t n;
	int r;

	d->fd_limit = fds_raise();
	d->n_reactors = reactors_default(d->fd_limit);
	if (cli_has(d->cl, OPT_REACTORS)) {
		r = cli_count(d->cl, OPT_REACTORS, 1, REACTORS_MAX, &n);
		if (r)
			return r;
		d->n_reactors = (unsigned)n;
	}
	if (cli_has(d->cl, OPT_METADATA_CACHE)) {
		r = cli_size(d->cl, OPT_METADATA_CACHE, &d->metadata_cache_bytes);
		if (r)
			return r;
		if (d->metadata_cache_bytes < MIB)
			return cli_failf("--metadata-cache must be at least 1M");
	}
	return 0;
}

static void signals_block(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	/* A shell starts background jobs with SIGINT ignored. */
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
}

static int daemon_run(struct daemon *d)
{
	struct real_options o = { .n_reactors = d->n_reactors };
	pthread_t signals;
	int r = cli_io(d->cl, &o.io, &d->e);

	if (r == 0)
		r = real_world_create(&o, &d->world, &d->e);
	if (r < 0) {
		err_default(&d->e, r, "starting the engine");
		return cli_fail(&d->e);
	}
	co_queue_init(&d->stop);
	r = pthread_create(&signals, NULL, signal_thread, d);
	if (r) {
		real_world_destroy(d->world);
		return cli_failf("cannot start a thread: %s", strerror(r));
	}
	r = real_world_run(d->world, serve_co, d);
	pthread_cancel(signals);
	pthread_join(signals, NULL);
	real_world_destroy(d->world);
	if (r < 0) {
		err_default(&d->e, r, "serve");
		return cli_fail(&d->e);
	}
	return CLI_OK;
}

int cli_serve(struct cli *cl)
{
	struct daemon *d = xcalloc(1, sizeof(*d));
	char **env = NULL;
	size_t n_env = 0;
	int r;

	d->cl = cl;
	r = serve_tls_set(&d->tls, cl);
	if (r == 0)
		r = manager_take(&d->manager);
	if (r == 0)
		r = addresses_set(d);
	if (r == 0)
		r = serve_iscsi_set(&d->iscsi, cl);
	if (r == 0)
		r = numbers_set(d);
	if (r)
		goto out;
	d->is_explicit = cl->n_operands > 0;
	if (d->is_explicit) {
		d->disks = (const char *const *)cl->operands;
		d->n_disks = (size_t)cl->n_operands;
	} else {
		env = cli_disks_from_env(&n_env);
		d->disks = (const char *const *)env;
		d->n_disks = n_env;
	}
	signals_block();
	r = daemon_run(d);
	cli_disks_free(env, n_env);
out:
	if (d->tls.config)
		tls_config_destroy(d->tls.config);
	xfree(d);
	return r;
}
