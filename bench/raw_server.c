/*
 * Serves one raw disk, a file or block device, by the NBD server and nothing else: the same server without pool, RAID and
 * thin layers, to compare with.
 *
 * raw_server ADDR DISK      Export "disk" (also the default). Prints "ready"; ends on SIGTERM. The disk is overwritten by
 *			      whoever writes: no label, no questions.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "engine/io/disk.h"
#include "engine/io/real.h"
#include "nbd/nbd.h"

static struct {
	const char *addr, *path;
	struct world *w;
	struct disk *disk;
	struct nbd_server *server;
	struct err e;
} me;

static int attach(void *arg, const char *name, const struct nbd_client *c, struct nbd_attach *out, struct err *e)
{
	if (*name && strcmp(name, "disk"))
		return -ENOENT;
	out->bdev = &me.disk->bdev;
	out->home = me.w->reactors[0];
	out->name = "disk";
	return 0;
}

static void detach(void *arg, struct nbd_attach *at) {}

static int list(void *arg, const struct nbd_client *c, void (*each)(void *each_arg, const char *name, const char *description),
		void *each_arg)
{
	each(each_arg, "disk", "a raw disk");
	return 0;
}

static int start(void *arg)
{
	const struct nbd_provider p = { .co_attach = attach, .co_detach = detach, .co_list = list };
	int r = disk_co_open(me.w, me.path, 0, &me.disk, &me.e);

	if (r < 0)
		return err_default(&me.e, r, me.path);
	me.server = nbd_server_create(me.w, &p, NULL);
	r = nbd_server_listen(me.server, me.addr, &me.e);
	return r < 0 ? err_default(&me.e, r, me.addr) : 0;
}

static int stop(void *arg)
{
	nbd_server_co_destroy(me.server);
	disk_close(me.disk);
	return 0;
}

int main(int argc, char **argv)
{
	struct real_options o = { .n_reactors = 1 };
	sigset_t set;
	int sig, r;

	if (argc != 3) {
		fprintf(stderr, "usage: raw_server ADDR DISK\n");
		return 2;
	}
	me.addr = argv[1];
	me.path = argv[2];
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = real_world_create(&o, &me.w, &me.e);
	if (r == 0)
		r = real_world_run(me.w, start, NULL);
	if (r < 0) {
		fprintf(stderr, "raw_server: %s\n", me.e.text);
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	sigwait(&set, &sig);
	r = real_world_run(me.w, stop, NULL);
	real_world_destroy(me.w);
	return r < 0;
}
