/* Remote disks against real servers (nbdkit): requests from all reactors, servers that lack this or that, end, hang, or refuse. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <CUnit/Basic.h>

#include "engine/base/rng.h"
#include "engine/base/units.h"
#include "engine/io/buf.h"
#include "engine/io/disk.h"
#include "engine/io/disk_uri.h"
#include "engine/io/real.h"

#define SIZE (64 * MIB)
#define N_REACTORS 3
#define PART_BYTES MIB /* of the disk, for each worker */

static struct world *world;
static char dir[64], uri[256], path_log[80];

/* ---- a server ---- */

static pid_t server;

static void sleep_ms(unsigned ms)
{
	usleep(ms * 1000);
}

static void server_end(int sig)
{
	if (server > 0) {
		kill(server, sig);
		waitpid(server, NULL, 0);
	}
	server = 0;
}

/* nbdkit with these arguments, on a unix socket of its own; `uri` is the disk's. */
static void server_start(const char *args)
{
	static unsigned n;
	char cmd[512], sock[96];
	unsigned i;

	snprintf(sock, sizeof(sock), "%s/%u.sock", dir, n++);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", sock);
	snprintf(cmd, sizeof(cmd), "exec nbdkit -f -U %s %s", sock, args);
	server = fork();
	if (server == 0) {
		execl("/bin/sh", "sh", "-c", cmd, NULL);
		_exit(127);
	}
	for (i = 0; i < 500 && access(sock, F_OK) < 0; i++)
		sleep_ms(10);
	CHECK(i < 500);
}

static enum real_io way;

static int by_uring(void)
{
	way = REAL_IO_URING;
	return 0;
}

static int by_epoll(void)
{
	way = REAL_IO_AIO;
	return 0;
}

static int run(int (*fn)(void *arg), void *arg)
{
	struct real_options options = { .n_reactors = N_REACTORS, .io = way };
	struct err e = { 0 };
	int r = real_world_create(&options, &world, &e);

	if (r < 0) {
		fprintf(stderr, "%s\n", e.text);
		return r;
	}
	r = real_world_run(world, fn, arg);
	real_world_destroy(world);
	return r;
}

static struct disk *co_open(unsigned flags)
{
	struct disk *d = NULL;
	struct err e = { 0 };

	if (disk_co_open(world, uri, flags, &d, &e) < 0)
		fprintf(stderr, "%s\n", e.text);
	CHECK(d);
	return d;
}

/* ---- requests ---- */

struct worker {
	struct disk *d;
	uint64_t off;
	unsigned seed, n_steps;
};

/* One request in pieces of a few buffers. */
static int co_vector(struct worker *k, enum io_op op, uint64_t off, char *buf, uint64_t len, unsigned flags)
{
	struct iovec iov[3];
	struct io io;

	if (len < 3 * 512)
		return op == IO_READ ? bdev_co_read(&k->d->bdev, off, buf, len) : bdev_co_write(&k->d->bdev, off, buf, len, flags);
	io_prep(&io, op, off, len, buf, flags);
	iov[0] = (struct iovec){ buf, 512 };
	iov[1] = (struct iovec){ buf + 512, len - 1024 };
	iov[2] = (struct iovec){ buf + len - 512, 512 };
	io.iov = iov;
	io.iov_n = 3;
	return bdev_co_submit(&k->d->bdev, &io);
}

static int step(struct worker *k, struct rng *rng, char *model, char *buf, uint64_t block)
{
	uint64_t off = rng_below(rng, PART_BYTES / block) * block, len = (1 + rng_below(rng, 32)) * block;
	unsigned flags = rng_below(rng, 4) ? 0 : IO_FUA, op = (unsigned)rng_below(rng, 10);
	struct bdev *b = &k->d->bdev;
	int r;

	len = MIN(len, PART_BYTES - off);
	if (op < 4) {
		memset(buf, (int)rng_below(rng, 256), len);
		memcpy(model + off, buf, len);
		return co_vector(k, IO_WRITE, k->off + off, buf, len, flags);
	}
	if (op == 4) {
		memset(model + off, 0, len);
		return bdev_co_zero(b, k->off + off, len, flags | (rng_below(rng, 2) ? IO_NO_HOLE : 0));
	}
	if (op == 5)
		return bdev_co_flush(b);
	if (op == 6) { /* what a discard leaves is not said */
		r = bdev_co_discard(b, k->off + off, len, flags);
		memset(model + off, 0, len);
		return r ? r : bdev_co_zero(b, k->off + off, len, 0);
	}
	r = co_vector(k, IO_READ, k->off + off, buf, len, 0);
	CU_ASSERT(memcmp(buf, model + off, len) == 0);
	return r;
}

static int co_work(void *arg)
{
	struct worker *k = arg;
	char *model = xcalloc(1, PART_BYTES), *buf = buf_alloc(PART_BYTES);
	struct rng rng;
	unsigned i;
	int r = 0;

	rng_init(&rng, k->seed);
	for (i = 0; i < k->n_steps && r == 0; i++)
		r = step(k, &rng, model, buf, k->d->bdev.block_bytes);
	if (r == 0)
		r = bdev_co_read(&k->d->bdev, k->off, buf, PART_BYTES);
	if (r == 0)
		CU_ASSERT(memcmp(buf, model, PART_BYTES) == 0);
	buf_free(buf, PART_BYTES);
	xfree(model);
	return r;
}

struct leg {
	struct worker k;
	struct co_join *join;
};

static void co_leg(void *arg)
{
	struct leg *l = arg;

	co_join_done(l->join, reactor_co_call(world->reactors[l->k.seed % N_REACTORS], co_work, &l->k));
}

/* Twelve workers, four on each reactor. */
static int co_all_work(struct disk *d, unsigned n_steps)
{
	struct leg legs[12];
	struct co_join join;
	unsigned i;

	co_join_init(&join);
	for (i = 0; i < ARRAY_LEN(legs); i++) {
		legs[i] = (struct leg){ { d, i * PART_BYTES, i, n_steps }, &join };
		co_join_add(&join);
		co_spawn(CO_SERVICE, co_leg, &legs[i], "leg");
	}
	return co_join_wait(&join);
}

static int co_requests(void *arg)
{
	struct disk *d = co_open(0);
	struct err e = { 0 };
	int r;

	CU_ASSERT_EQUAL(d->bdev.size_bytes, SIZE);
	CU_ASSERT_EQUAL(d->bdev.block_bytes, arg ? 4096 : 512);
	r = co_all_work(d, 300);
	CU_ASSERT_EQUAL(disk_co_alive(d, SIZE, &e), 0);
	CU_ASSERT_EQUAL(disk_co_alive(d, SIZE + 512, &e), -EIO);
	CU_ASSERT(d->n_reads > 0 && d->n_writes > 0 && d->n_flushes > 0 && d->n_errors == 0 && d->n_volatile > 0);
	disk_close(d);
	return r;
}

static bool log_has(const char *word)
{
	char cmd[160];

	snprintf(cmd, sizeof(cmd), "grep -q '%s' %s", word, path_log);
	return system(cmd) == 0;
}

static void requests_of_all_kinds_from_all_reactors(void)
{
	static const char *const servers[] = {
		"memory 64M", "--filter=multi-conn memory 64M multi-conn-mode=disable", "--filter=nozero memory 64M",
		"--filter=nozero memory 64M zeromode=notrim", "--filter=cow memory 64M",
	};
	unsigned i;

	for (i = 0; i < ARRAY_LEN(servers); i++) {
		server_start(servers[i]);
		CU_ASSERT_EQUAL(run(co_requests, NULL), 0);
		server_end(SIGTERM);
	}
	server_start("--filter=blocksize-policy memory 64M blocksize-minimum=4096 blocksize-error-policy=error");
	CU_ASSERT_EQUAL(run(co_requests, &world), 0);
	server_end(SIGTERM);
}

static int co_one_durable_write(void *arg)
{
	struct disk *d = co_open(0);
	char *buf = buf_alloc(4096);
	int r;

	memset(buf, 1, 4096);
	r = bdev_co_write(&d->bdev, 8192, buf, 4096, IO_FUA);
	CU_ASSERT_EQUAL(d->n_volatile, 0);
	buf_free(buf, 4096);
	disk_close(d);
	return r;
}

static void requests_over_tls(void)
{
	char args[256], path[80];
	FILE *f;

	snprintf(path, sizeof(path), "%s/keys.psk", dir);
	f = fopen(path, "w");
	CHECK(f && fputs("joe:00112233445566778899aabbccddeeff\n", f) > 0 && fclose(f) == 0);
	snprintf(args, sizeof(args), "--tls=require --tls-psk=%s memory 64M", path);
	server_start(args);
	snprintf(args, sizeof(args), "nbds+unix://joe@/?tls-psk-file=%s&%s", path, strstr(uri, "socket="));
	strcpy(uri, args);
	CU_ASSERT_EQUAL(run(co_requests, NULL), 0);
	server_end(SIGTERM);
}

static void fua_is_the_servers_or_a_flush(void)
{
	char args[320];

	snprintf(args, sizeof(args), "--filter=log eval get_size='echo 64M' pread='exit 1' can_write='exit 0' can_flush='exit 0' "
		 "can_fua='echo none' pwrite='cat >/dev/null' flush='exit 0' logfile=%s", path_log);
	server_start(args);
	CU_ASSERT_EQUAL(run(co_one_durable_write, NULL), 0);
	server_end(SIGTERM);
	CU_ASSERT(log_has("Write.*fua=0"));
	CU_ASSERT(log_has("Flush"));
	unlink(path_log);
	snprintf(args, sizeof(args), "--filter=log memory 64M logfile=%s", path_log);
	server_start(args);
	CU_ASSERT_EQUAL(run(co_one_durable_write, NULL), 0);
	server_end(SIGTERM);
	CU_ASSERT(log_has("Write.*fua=1"));
	CU_ASSERT(!log_has("Flush"));
}

static int co_connections(void *arg)
{
	struct disk *d = co_open(0);
	int r = co_all_work(d, 5);

	disk_close(d);
	return r;
}

/* A flush must cover the writes of all reactors. */
static void only_a_server_with_multi_conn_gets_several_connections(void)
{
	char args[256];
	int several;

	for (several = 0; several < 2; several++) {
		unlink(path_log);
		snprintf(args, sizeof(args), "--filter=log --filter=multi-conn memory 64M multi-conn-mode=%s logfile=%s",
			 several ? "unsafe" : "disable", path_log);
		server_start(args);
		CU_ASSERT_EQUAL(run(co_connections, NULL), 0);
		server_end(SIGTERM);
		CU_ASSERT(log_has("connection=1 "));
		CU_ASSERT_EQUAL(log_has("connection=3 "), several);
		CU_ASSERT(!log_has("connection=4 "));
	}
}

/* ---- servers that go ---- */

static int co_read_fails(void *arg)
{
	struct disk *d = arg;
	char *buf = buf_alloc(4096);
	int r = bdev_co_read(&d->bdev, 0, buf, 4096);

	buf_free(buf, 4096);
	return r;
}

struct reader {
	struct disk *d;
	struct reactor *on;
	struct co_join *join;
	int result;
};

static void co_reader(void *arg)
{
	struct reader *k = arg;

	k->result = reactor_co_call(k->on, co_read_fails, k->d);
	co_join_done(k->join, 0);
}

/* Every request of every reactor ends with -ENODEV, and later ones do; it can be closed. */
static int co_loses_server(void *arg)
{
	struct disk *d = co_open(0);
	struct reader readers[3 * N_REACTORS];
	struct co_join join;
	struct err e = { 0 };
	uint64_t start;
	unsigned i;

	co_join_init(&join);
	kill(server, SIGSTOP);
	CU_ASSERT_EQUAL(waitpid(server, NULL, WUNTRACED), server); /* it has stopped, and answers nothing more */
	for (i = 0; i < ARRAY_LEN(readers); i++) {
		readers[i] = (struct reader){ d, world->reactors[i % N_REACTORS], &join, 0 };
		co_join_add(&join);
		co_spawn(CO_SERVICE, co_reader, &readers[i], "reader");
	}
	co_sleep_ns(100 * NS_PER_MS);
	CU_ASSERT_EQUAL(join.pending, ARRAY_LEN(readers)); /* it hangs, but is there */
	CU_ASSERT_EQUAL(disk_co_alive(d, SIZE, &e), 0);
	start = world_now_ns(world);
	server_end(SIGKILL);
	CU_ASSERT_EQUAL(co_join_wait(&join), 0);
	CU_ASSERT(world_now_ns(world) - start < NS_PER_SEC);
	for (i = 0; i < ARRAY_LEN(readers); i++)
		CU_ASSERT_EQUAL(readers[i].result, -ENODEV);
	for (i = 0; i < N_REACTORS; i++)
		CU_ASSERT_EQUAL(reactor_co_call(world->reactors[i], co_read_fails, d), -ENODEV);
	CU_ASSERT_EQUAL(disk_co_alive(d, SIZE, &e), -ENODEV);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.text, "its connection broke"));
	disk_close(d);
	return 0;
}

static void a_server_that_ends_is_a_disk_that_is_gone(void)
{
	server_start("memory 64M");
	CU_ASSERT_EQUAL(run(co_loses_server, NULL), 0);
	server_start("--filter=multi-conn memory 64M multi-conn-mode=disable");
	CU_ASSERT_EQUAL(run(co_loses_server, NULL), 0);
}

static int co_idle_loss(void *arg)
{
	struct disk *d = co_open(0);
	unsigned i;

	server_end(SIGKILL);
	for (i = 0; i < 100 && disk_co_alive(d, SIZE, NULL) == 0; i++)
		co_sleep_ns(10 * NS_PER_MS);
	CU_ASSERT_EQUAL(disk_co_alive(d, SIZE, NULL), -ENODEV);
	disk_close(d);
	return 0;
}

static void it_is_seen_without_a_request(void)
{
	server_start("memory 64M");
	CU_ASSERT_EQUAL(run(co_idle_loss, NULL), 0);
}

static int co_opens_again(void *arg)
{
	struct disk *d = co_open(0);
	char keep[256], sock[256], args[256];
	uint64_t start;

	strcpy(keep, uri);
	server_end(SIGKILL);
	while (disk_co_alive(d, SIZE, NULL) == 0)
		co_sleep_ns(NS_PER_MS);
	disk_close(d);
	server_start("memory 64M");
	snprintf(sock, sizeof(sock), "%s", strchr(keep, '/') + strlen("///?socket="));
	snprintf(args, sizeof(args), "%s", strchr(uri, '/') + strlen("///?socket="));
	CU_ASSERT_EQUAL(unlink(sock), 0);
	CU_ASSERT_EQUAL(rename(args, sock), 0);
	strcpy(uri, keep);
	start = world_now_ns(world);
	disk_close(co_open(DISK_RDONLY));
	CU_ASSERT(world_now_ns(world) - start < NS_PER_SEC);
	disk_close(co_open(0));
	CU_ASSERT(world_now_ns(world) - start > NS_PER_SEC);
	return 0;
}

/* The server may still have writes of the connection that broke. */
static void after_a_break_it_is_not_written_at_once(void)
{
	server_start("memory 64M");
	CU_ASSERT_EQUAL(run(co_opens_again, NULL), 0);
	server_end(SIGKILL);
}

/* ---- opening ---- */

static unsigned n_ticks;

static void co_ticks(void *arg)
{
	bool *stop = arg;

	while (!*stop) {
		co_sleep_ns(10 * NS_PER_MS);
		n_ticks++;
	}
	*stop = false;
}

static int co_open_fails(void *arg)
{
	struct disk *d;
	struct err *e = arg;

	return disk_co_open(world, uri, 0, &d, e);
}

/* Somebody listens and never answers. */
static int co_open_hangs(void *arg)
{
	bool stop = false;
	int r;

	n_ticks = 0;
	co_spawn(CO_SERVICE, co_ticks, &stop, "ticks");
	r = co_open_fails(arg);
	stop = true;
	while (stop)
		co_sleep_ns(10 * NS_PER_MS);
	return r;
}

static void opening_a_server_that_says_nothing_ends_and_stops_nobody(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	struct err e = { 0 };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&a, len) == 0 && listen(fd, 5) == 0);
	CHECK(getsockname(fd, (struct sockaddr *)&a, &len) == 0);
	snprintf(uri, sizeof(uri), "nbd://127.0.0.1:%u/disk", ntohs(a.sin_port));
	CU_ASSERT_EQUAL(run(co_open_hangs, &e), -ETIMEDOUT);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.text, "no answer within 5 s"));
	CU_ASSERT_PTR_NOT_NULL(strstr(e.text, uri));
	CU_ASSERT(n_ticks > 200);
	close(fd);
	CU_ASSERT_EQUAL(run(co_open_fails, &e), -ECONNREFUSED);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.text, "refused"));
}

static int co_read_only(void *arg)
{
	struct err e = { 0 };
	struct disk *d;

	CU_ASSERT_EQUAL(co_open_fails(&e), -EROFS);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.text, "read-only"));
	d = co_open(DISK_RDONLY);
	CU_ASSERT(d->bdev.read_only);
	CU_ASSERT_EQUAL(co_read_fails(d), 0);
	disk_close(d);
	return 0;
}

static void an_export_that_is_read_only_is_only_read(void)
{
	server_start("-r memory 64M");
	CU_ASSERT_EQUAL(run(co_read_only, NULL), 0);
	server_end(SIGTERM);
}

static void a_server_with_odd_sizes_is_refused(void)
{
	struct err e = { 0 };

	server_start("--filter=blocksize-policy memory 64M blocksize-minimum=8192 blocksize-preferred=8192");
	CU_ASSERT_EQUAL(run(co_open_fails, &e), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.text, "8192"));
	server_end(SIGTERM);
}

static int co_probe(void *arg)
{
	struct disk *d = co_open(0);
	char *buf = buf_alloc(8192), what[128] = "";
	struct err e = { 0 };

	CU_ASSERT_EQUAL(disk_co_probe(d, what, sizeof(what), &e), 0);
	memset(buf, 0, 8192);
	buf[1024] = 1; /* version, */
	buf[1028] = 1; /* last page */
	memcpy(buf + 4086, "SWAPSPACE2", 10);
	CU_ASSERT_EQUAL(bdev_co_write(&d->bdev, 0, buf, 8192, 0), 0);
	CU_ASSERT_EQUAL(disk_co_probe(d, what, sizeof(what), &e), 1);
	CU_ASSERT_PTR_NOT_NULL(strstr(what, "swap"));
	buf_free(buf, 8192);
	disk_close(d);
	return 0;
}

static void foreign_data_is_found(void)
{
	server_start("memory 64M");
	CU_ASSERT_EQUAL(run(co_probe, NULL), 0);
	server_end(SIGTERM);
}

static int co_idents(void *arg)
{
	struct disk *a = co_open(0), *b;

	strcat(uri, "&"); /* the same, said otherwise */
	b = co_open(0);
	CU_ASSERT_EQUAL(memcmp(a->ident, b->ident, sizeof(a->ident)), 0);
	disk_close(a);
	disk_close(b);
	return 0;
}

static void the_same_export_by_two_names_is_known(void)
{
	server_start("memory 64M");
	CU_ASSERT_EQUAL(run(co_idents, NULL), 0);
	server_end(SIGTERM);
}

/* ---- names ---- */

static void lists_of_disks_may_hold_uris(void)
{
	static const char *const want[] = { "/dev/sda", "nbd://h:10809/a", "nbd+unix:///x?socket=/s", "b c", "nbds://[::1]:7/", "d" };
	const char *list = ":/dev/sda:nbd://h:10809/a nbd+unix:///x?socket=/s\n:b c::nbds://[::1]:7/ d:", *s;
	size_t len, i;

	for (i = 0; i < ARRAY_LEN(want); i++) {
		s = disk_path_next(&list, &len);
		CU_ASSERT_PTR_NOT_NULL_FATAL(s);
		CU_ASSERT(len == strlen(want[i]) && !memcmp(s, want[i], len));
	}
	CU_ASSERT_PTR_NULL(disk_path_next(&list, &len));
}

static void a_password_is_refused_and_not_repeated(void)
{
	struct err e = { 0 };

	CU_ASSERT_EQUAL(disk_uri_check("nbds://joe@host/x", &e), 0);
	CU_ASSERT_EQUAL(disk_uri_check("nbd://host:7/x@y:z", &e), 0);
	CU_ASSERT_EQUAL(disk_uri_check("nbd://joe:secret@host/x", &e), -EINVAL);
	CU_ASSERT_PTR_NULL(strstr(e.text, "secret"));
	CU_ASSERT_PTR_NOT_NULL(strstr(e.text, "host"));
	CU_ASSERT_EQUAL(disk_uri_check("nbd+unix:///x", &e), -EINVAL);
	CU_ASSERT_EQUAL(disk_uri_check("nbd+unix:///x?socket=here", &e), -EINVAL);
	CU_ASSERT_EQUAL(disk_uri_check("nbd+unix:///x?a=b&socket=/here", &e), 0);
	CU_ASSERT_EQUAL(disk_uri_check("nbd://host/x y", &e), -EINVAL);
	CU_ASSERT(!disk_path_is_uri("/nbd://x") && !disk_path_is_uri("nbd:x") && !disk_path_is_uri("http://x"));
}

static void add_suite(const char *name, CU_InitializeFunc init)
{
	CU_pSuite s = CU_add_suite(name, init, NULL);

#define TEST(f) CU_add_test(s, #f, f)
	TEST(lists_of_disks_may_hold_uris);
	TEST(a_password_is_refused_and_not_repeated);
	if (system("command -v nbdkit >/dev/null") == 0) {
		TEST(requests_of_all_kinds_from_all_reactors);
		TEST(requests_over_tls);
		TEST(fua_is_the_servers_or_a_flush);
		TEST(only_a_server_with_multi_conn_gets_several_connections);
		TEST(a_server_that_ends_is_a_disk_that_is_gone);
		TEST(it_is_seen_without_a_request);
		TEST(after_a_break_it_is_not_written_at_once);
		TEST(opening_a_server_that_says_nothing_ends_and_stops_nobody);
		TEST(an_export_that_is_read_only_is_only_read);
		TEST(a_server_with_odd_sizes_is_refused);
		TEST(foreign_data_is_found);
		TEST(the_same_export_by_two_names_is_known);
	} else {
		puts("nbdkit is not there: most tests are left out");
	}
#undef TEST
}

int main(void)
{
	unsigned failures;

	snprintf(dir, sizeof(dir), "/tmp/ashlar-remote.XXXXXX");
	if (!mkdtemp(dir) || CU_initialize_registry() != CUE_SUCCESS)
		return 2;
	snprintf(path_log, sizeof(path_log), "%s/log", dir);
	add_suite("engine/io remote disks by io_uring", by_uring);
	add_suite("engine/io remote disks by epoll", by_epoll);
	CU_basic_run_tests();
	failures = CU_get_number_of_failures();
	CU_cleanup_registry();
	snprintf(uri, sizeof(uri), "rm -rf %s", dir);
	return system(uri) != 0 || failures ? 1 : 0;
}
