#include "frontends/control/methods.h"

#include <string.h>
#include <time.h>

#include "engine/base/units.h"
#include "frontends/control/handlers.h"

/* ---- the gate ---- */

void control_gate_co_enter(struct control_env *env)
{
	while (env->is_alone)
		co_queue_wait(&env->gate);
	env->n_shared++;
}

void control_gate_leave(struct control_env *env)
{
	CHECK(env->n_shared > 0);
	env->n_shared--;
	co_queue_wake_all(&env->gate);
}

void control_gate_co_alone(struct control_env *env)
{
	while (env->is_alone)
		co_queue_wait(&env->gate);
	env->is_alone = true;
	while (env->n_shared)
		co_queue_wait(&env->gate);
}

void control_gate_leave_alone(struct control_env *env)
{
	env->is_alone = false;
	co_queue_wake_all(&env->gate);
}

void control_env_init(struct control_env *env, struct ashlar *a)
{
	memset(env, 0, sizeof(*env));
	env->a = a;
	co_queue_init(&env->gate);
	list_init(&env->streams);
	co_queue_init(&env->streams_changed);
}

static int co_shared(struct rpc_call *c, struct err *e, int (*fn)(struct rpc_call *, struct err *))
{
	struct control_env *env = c->env;
	int r;

	control_gate_co_enter(env);
	r = fn(c, e);
	control_gate_leave(env);
	return r;
}

static int co_alone(struct rpc_call *c, struct err *e, int (*fn)(struct rpc_call *, struct err *))
{
	struct control_env *env = c->env;
	int r;

	if (env->n_checks)
		return err_set(e, -EBUSY, "a check of a pool is running; try again when it is done");
	control_gate_co_alone(env);
	r = fn(c, e);
	control_gate_leave_alone(env);
	return r;
}

/* ---- helpers of the handlers ---- */

int control_pool_find(struct control_env *env, const char *name, struct ashlar_pool **out, struct err *e)
{
	int r = control_check_pool(name, e);

	if (r < 0)
		return r;
	*out = ashlar_pool_find(env->a, name);
	return *out ? 0 : err_set(e, -ENOENT, "no pool named %s is open here; `ashlar pool list` shows which are", name);
}

int control_call_pool(const struct rpc_call *c, struct ashlar_pool **out, struct err *e)
{
	struct control_env *env = c->env;
	const char *name = rpc_string(c, "pool");

	if (name)
		return control_pool_find(env, name, out, e);
	*out = ashlar_pool_at(env->a, 0);
	if (!*out)
		return err_set(e, -ENOENT, "no pool is open here");
	if (ashlar_pool_at(env->a, 1))
		return err_set(e, -EINVAL, "more than one pool is open; say which one is meant");
	return 0;
}

#define ROWS_AGAIN_MAX 10

int control_co_rows(struct rpc_call *c, int (*rows)(struct ashlar_pool *p, json_t *out, struct err *e), struct err *e)
{
	struct control_env *env = c->env;
	struct ashlar_pool *p;
	unsigned again = 0;
	uint64_t arrivals;
	size_t i;
	int r = 0;

	c->result = json_array();
	if (rpc_is_given(c, "pool")) {
		r = control_call_pool(c, &p, e);
		return r < 0 ? r : rows(p, c->result, e);
	}
	do { /* what goes from one pool to another meanwhile is listed once */
		arrivals = ashlar_co_arrivals(env->a);
		json_array_clear(c->result);
		for (i = 0; r == 0 && (p = ashlar_pool_at(env->a, i)); i++)
			r = rows(p, c->result, e);
	} while (r == 0 && arrivals != ashlar_co_arrivals(env->a) && ++again < ROWS_AGAIN_MAX);
	return r;
}

int control_call_volume(const struct rpc_call *c, struct volume_name *name, struct ashlar_pool **out, struct err *e)
{
	int r = control_name_split(rpc_string(c, "volume"), name, e);

	return r < 0 ? r : control_pool_find(c->env, name->pool, out, e);
}

json_t *control_json_u64(uint64_t v) { return json_integer((json_int_t)MIN(v, (uint64_t)INT64_MAX)); }

json_t *control_json_text(const char *text)
{
	json_t *j = json_string(text);
	char q[512];

	return j ? j : json_string(control_name_quote(text, q, sizeof(q)));
}

json_t *control_json_uuid(const struct uuid *u)
{
	char buf[UUID_TEXT_LEN];

	return json_string(uuid_format(u, buf));
}

json_t *control_json_duration(uint64_t ns)
{
	if (ns == UINT64_MAX)
		return json_string("forever");
	if (ns % NS_PER_SEC == 0)
		return json_sprintf("%llus", (unsigned long long)(ns / NS_PER_SEC));
	return json_sprintf("%llums", (unsigned long long)(ns / NS_PER_MS));
}

json_t *control_json_time(uint64_t wall_ns)
{
	time_t t = (time_t)(wall_ns / NS_PER_SEC);
	struct tm tm;
	char buf[32];

	if (!gmtime_r(&t, &tm) || !strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%SZ", &tm))
		return json_null();
	return json_string(buf);
}

/* ---- methods of the daemon itself ---- */

static int connection_co_list_call(struct rpc_call *c, struct err *e)
{
	struct control_env *env = c->env;

	c->result = env->co_connections ? env->co_connections(env->arg) : json_array();
	return 0;
}

static int daemon_co_status_call(struct rpc_call *c, struct err *e)
{
	struct control_env *env = c->env;

	if (!env->status)
		return err_set(e, -ENOTCONN, "no daemon runs here");
	c->result = env->status(env->arg);
	return 0;
}

static int daemon_co_shutdown_call(struct rpc_call *c, struct err *e)
{
	struct control_env *env = c->env;

	if (!env->shutdown)
		return err_set(e, -ENOTCONN, "no daemon runs here");
	env->shutdown(env->arg);
	return 0;
}

static int daemon_co_methods_call(struct rpc_call *c, struct err *e)
{
	c->result = rpc_describe(control_methods);
	return 0;
}

/* ---- the table ---- */

#define SHARED(fn)                                                                                       \
	static int fn##_shared(struct rpc_call *c, struct err *e) { return co_shared(c, e, fn); }
#define ALONE(fn)                                                                                       \
	static int fn##_alone(struct rpc_call *c, struct err *e) { return co_alone(c, e, fn); }

SHARED(control_co_pool_list)
SHARED(control_co_pool_show)
SHARED(control_co_pool_check)
ALONE(control_co_pool_create)
ALONE(control_co_pool_destroy)
SHARED(control_co_pool_set)
SHARED(control_co_pool_layout)
SHARED(control_co_disk_list)
SHARED(control_co_disk_fail)
SHARED(control_co_job_list)
SHARED(control_co_job_pause)
SHARED(control_co_job_stop)
SHARED(control_co_disk_add)
SHARED(control_co_volume_list)
SHARED(control_co_volume_show)
SHARED(control_co_volume_create)
SHARED(control_co_volume_resize)
SHARED(control_co_volume_rename)
SHARED(control_co_volume_set)
SHARED(control_co_volume_delete)
SHARED(control_co_volume_take_back)
SHARED(control_co_volume_move_out)
SHARED(control_co_volume_clone)
SHARED(control_co_snapshot_create)
SHARED(control_co_snapshot_list)
SHARED(control_co_snapshot_show)
SHARED(control_co_snapshot_delete)
SHARED(control_co_snapshot_rollback)
SHARED(control_co_snapshot_rename)
SHARED(control_co_snapshot_policy)
SHARED(control_co_snapshot_diff)
SHARED(control_co_receive_list)
SHARED(control_co_receive_abort)
SHARED(control_co_export_list)
SHARED(control_co_export_add)
SHARED(control_co_export_set)
SHARED(control_co_export_show)
SHARED(control_co_export_remove)
SHARED(control_co_export_add_iscsi)
SHARED(control_co_export_remove_iscsi)
SHARED(control_co_export_list_iscsi)

#define P_POOL { "pool", RPC_STRING, true, "name of the pool" }
#define P_POOL_OPTIONAL { "pool", RPC_STRING, false, "name of the pool; absent: all" }
#define P_VOLUME { "volume", RPC_STRING, true, "name of the volume, POOL/VOLUME" }
#define P_POINT { "volume", RPC_STRING, true, "POOL/VOLUME, or the snapshot POOL/VOLUME@SNAPSHOT" }
#define P_SNAPSHOT { "snapshot", RPC_STRING, true, "name of the snapshot, POOL/VOLUME@SNAPSHOT" }
#define P_SNAPSHOTS { "snapshots", RPC_STRINGS, true, "names of snapshots of one pool, POOL/VOLUME@SNAPSHOT" }
#define P_ALLOW { "allow", RPC_STRINGS, false, "rules, one of which a client must meet; [\"any\"]: none" }
#define P_MAX_CONNECTIONS { "max_connections", RPC_SIZE, false, "clients at a time; 0: no limit" }
#define P_FORCE(text) { "force", RPC_BOOL, false, text }
#define P_DRY_RUN { "dry_run", RPC_BOOL, false, "check and tell, change nothing" }
#define P_LIMITS \
	{ "iops", RPC_SIZE, false, "reads and writes per second; 0: no limit" }, \
	{ "bps", RPC_SIZE, false, "bytes per second; 0: no limit" }, \
	{ "burst_iops", RPC_SIZE, false, "the same after a rest, for burst_seconds; 0: no more than iops" }, \
	{ "burst_bps", RPC_SIZE, false, "likewise" }, \
	{ "burst_seconds", RPC_SIZE, false, "how long a burst lasts" }
#define P_FULL_WAIT { "full_wait", RPC_DURATION, false, "how long writes are held while the pool is full" }
#define P_DISK { "disk", RPC_STRING, true, "path, last part of it, uuid or index" }
#define P_WAIT { "wait", RPC_BOOL, false, "answer when it has ended" }
#define P_JOB { "job", RPC_SIZE, true, "number of the job" }
#define P_STREAM { "stream", RPC_SIZE, true, "number of the stream that carries the data" }
#define P_END { .name = NULL }
#define PARAMS(...) ((const struct rpc_param[]){ __VA_ARGS__, P_END })

const struct rpc_method control_methods[] = {
	{ "pool.list", "the open pools", NULL, control_co_pool_list_shared },
	{ "pool.show", "one pool", PARAMS(P_POOL), control_co_pool_show_shared },
	{ "pool.create", "makes a pool of disks",
	  PARAMS(P_POOL, { "disks", RPC_STRINGS, true, "paths of block devices and files" },
		 { "layout", RPC_STRING, false, "default layout of volumes" }, P_FORCE("overwrite what is on the disks"), P_DRY_RUN,
		 { "cluster", RPC_SIZE, false, "unit of thin allocation" }, { "group", RPC_SIZE, false, "logical size of a group" },
		 { "serve", RPC_BOOL, false, "open it in this process afterwards" }),
	  control_co_pool_create_alone },
	{ "pool.check", "verifies all metadata and its copies; changes nothing",
	  PARAMS({ "pool", RPC_STRING, false, "name of the pool; absent: the only one" }, { "data", RPC_BOOL, false, "compare the copies of all allocated data too" }), control_co_pool_check_shared },
	{ "pool.destroy", "wipes the labels of a pool's disks",
	  PARAMS(P_POOL, P_FORCE("although there are volumes"), P_DRY_RUN), control_co_pool_destroy_alone },
	{ "pool.set", "changes settings of a pool",
	  PARAMS(P_POOL, { "rebuild_delay", RPC_DURATION, false, "how long a disk may be away before its data is rebuilt elsewhere" },
		 { "pace_floor", RPC_SIZE, false, "bytes/s that background work always gets" },
		 { "pace_ceiling", RPC_SIZE, false, "bytes/s that it never exceeds; 0: no limit" },
		 { "hedge", RPC_DURATION, false, "reads slower than this are answered from other disks" },
		 { "timeout", RPC_DURATION, false, "a disk that does not answer for so long is out" }),
	  control_co_pool_set_shared },
	{ "pool.layout", "changes the layout of new volumes, and of all that are there: they move to it in the background",
	  PARAMS(P_POOL, { "layout", RPC_STRING, true, "the new one" }, P_DRY_RUN), control_co_pool_layout_shared },
	{ "pool.scrub", "reads and compares all that is allocated; answers with the job",
	  PARAMS(P_POOL, { "repair", RPC_BOOL, false, "rewrite what differs" }, { "wait", RPC_BOOL, false, "answer when it has ended" }),
	  control_co_scrub },
	{ "disk.list", "the disks of a pool", PARAMS(P_POOL_OPTIONAL), control_co_disk_list_shared },
	{ "disk.fail", "takes a disk out of service",
	  PARAMS(P_POOL, P_DISK, P_FORCE("although data is lost with it"), P_DRY_RUN), control_co_disk_fail_shared },
	{ "disk.online", "takes a disk into service again",
	  PARAMS(P_POOL, P_DISK, { "path", RPC_STRING, false, "where it is now" },
		 { "wait", RPC_BOOL, false, "answer when what it has missed is copied" }),
	  control_co_disk_online },
	{ "disk.add", "adds disks to a pool",
	  PARAMS(P_POOL, { "disks", RPC_STRINGS, true, "paths of block devices and files" }, P_FORCE("overwrite what is on them"), P_DRY_RUN),
	  control_co_disk_add_shared },
	{ "disk.evacuate", "moves all that a disk holds to others; answers with the job",
	  PARAMS(P_POOL, P_DISK, P_DRY_RUN, P_WAIT), control_co_disk_evacuate },
	{ "disk.remove", "the same, and takes the disk out of the pool", PARAMS(P_POOL, P_DISK, P_DRY_RUN, P_WAIT), control_co_disk_remove },
	{ "disk.replace", "adds a disk, moves to it what another holds, and takes that out",
	  PARAMS(P_POOL, P_DISK, { "path", RPC_STRING, true, "the new one" }, P_FORCE("overwrite what is on it"), P_DRY_RUN, P_WAIT),
	  control_co_disk_replace },
	{ "pool.rebalance", "moves data until all disks are about equally full; answers with the job", PARAMS(P_POOL, P_DRY_RUN, P_WAIT),
	  control_co_rebalance },
	{ "job.list", "background work of a pool", PARAMS(P_POOL_OPTIONAL), control_co_job_list_shared },
	{ "job.wait", "answers when a job has ended, or after 10 s with how far it is", PARAMS(P_POOL, P_JOB), control_co_job_wait },
	{ "job.stop", "stops a scrub, a relocation or a move", PARAMS(P_POOL, P_JOB), control_co_job_stop_shared },
	{ "job.pause", "pauses a relocation or a move, or goes on with it",
	  PARAMS(P_POOL, P_JOB, { "resume", RPC_BOOL, false, "go on" }), control_co_job_pause_shared },
	{ "event.list", "what has happened, after a number; may wait for the next",
	  PARAMS({ "since", RPC_SIZE, false, "number of the last event known; absent: all that are kept" },
		 { "wait", RPC_DURATION, false, "how long to wait for the first one, at most 10 s" }),
	  control_co_events },
	{ "volume.list", "the volumes of a pool", PARAMS(P_POOL_OPTIONAL), control_co_volume_list_shared },
	{ "volume.show", "one volume", PARAMS(P_VOLUME), control_co_volume_show_shared },
	{ "volume.create", "makes a thin volume",
	  PARAMS(P_VOLUME, { "size", RPC_SIZE, false, "its size; absent: the source's" },
		 { "layout", RPC_STRING, false, "absent: the pool's" }, P_FULL_WAIT, P_LIMITS,
		 { "from", RPC_STRING, false, "source that it begins with the contents of: an absolute path or an NBD URI" }),
	  control_co_volume_create_shared },
	{ "volume.resize", "changes a volume's size",
	  PARAMS(P_VOLUME, { "size", RPC_SIZE, true, "its new size" }, P_FORCE("cut off data beyond a smaller size"), P_DRY_RUN),
	  control_co_volume_resize_shared },
	{ "volume.rename", "gives a volume another name",
	  PARAMS(P_VOLUME, { "new_name", RPC_STRING, true, "NEW or POOL/NEW" }), control_co_volume_rename_shared },
	{ "volume.set", "changes settings of a volume", PARAMS(P_VOLUME, P_FULL_WAIT, P_LIMITS), control_co_volume_set_shared },
	{ "volume.move", "moves a volume, its snapshots and clones to another pool or layout; answers with the job",
	  PARAMS(P_POOL, { "volume", RPC_STRING, true, "name of the volume, without the pool" },
		 { "to", RPC_STRING, false, "name of the other pool; absent: the same" },
		 { "layout", RPC_STRING, false, "absent: the one it has" }, P_DRY_RUN,
		 { "wait", RPC_BOOL, false, "answer when it has ended" }),
	  control_co_volume_move },
	{ "volume.take_back", "serves a volume from here again that was moved to a pool which is gone",
	  PARAMS(P_VOLUME, P_FORCE("although what was written since the move is lost"), P_DRY_RUN), control_co_volume_take_back_shared },
	{ "volume.delete", "deletes a volume and all its data",
	  PARAMS(P_VOLUME, P_FORCE("although clients are attached"), { "snapshots", RPC_BOOL, false, "with all its snapshots" }, P_DRY_RUN),
	  control_co_volume_delete_shared },
	{ "volume.move_out", "copies a volume to another disk and serves its clients from there; answers with the job",
	  PARAMS(P_VOLUME, { "target", RPC_STRING, true, "an absolute path or an NBD URI" }, P_FORCE("although there is something on it"),
		 P_DRY_RUN),
	  control_co_volume_move_out_shared },
	{ "volume.clone", "makes a writable volume of a snapshot",
	  PARAMS(P_SNAPSHOT, { "volume", RPC_STRING, true, "NEW or POOL/NEW" }), control_co_volume_clone_shared },
	{ "snapshot.create", "takes snapshots of volumes, all at one instant", PARAMS(P_SNAPSHOTS), control_co_snapshot_create_shared },
	{ "snapshot.list", "the snapshots of a pool or of a volume",
	  PARAMS(P_POOL_OPTIONAL, { "volume", RPC_STRING, false, "POOL/VOLUME; absent: of all volumes" }), control_co_snapshot_list_shared },
	{ "snapshot.show", "one snapshot", PARAMS(P_SNAPSHOT), control_co_snapshot_show_shared },
	{ "snapshot.delete", "deletes snapshots", PARAMS(P_SNAPSHOTS, P_FORCE("although clients are attached"), P_DRY_RUN),
	  control_co_snapshot_delete_shared },
	{ "snapshot.rollback", "gives a volume the contents and size of one of its snapshots",
	  PARAMS(P_SNAPSHOT, P_FORCE("although clients are attached"), P_DRY_RUN), control_co_snapshot_rollback_shared },
	{ "snapshot.rename", "gives a snapshot another name", PARAMS(P_SNAPSHOT, { "new_name", RPC_STRING, true, "without the volume" }),
	  control_co_snapshot_rename_shared },
	{ "snapshot.policy", "changes the schedule of a volume's snapshots, or tells it",
	  PARAMS(P_VOLUME, { "every", RPC_DURATION, false, "how often one is taken" },
		 { "keep", RPC_SIZE, false, "how many of those are kept" }, { "off", RPC_BOOL, false, "no more are taken" }),
	  control_co_snapshot_policy_shared },
	{ "snapshot.diff", "ranges that differ between two snapshots, or a snapshot and a volume, from an offset on; `next`: where to go on",
	  PARAMS({ "from", RPC_STRING, true, "POOL/VOLUME@SNAP" }, { "to", RPC_STRING, true, "POOL/VOLUME@SNAP, or POOL/VOLUME: as it is now" },
		 { "offset", RPC_SIZE, false, "where to start; absent: 0" }),
	  control_co_snapshot_diff_shared },
	{ "stream.open", "this connection carries the data of a send or receive from now on; answers with its number", NULL,
	  control_co_stream_open },
	{ "snapshot.send", "writes a snapshot, or what differs from another, to a stream",
	  PARAMS(P_SNAPSHOT, P_STREAM, { "from", RPC_STRING, false, "SNAP, or VOLUME@SNAP: only what differs from it" },
		 { "resume", RPC_STRING, false, "token of a stream that was cut" }),
	  control_co_snapshot_send },
	{ "snapshot.receive", "makes a snapshot, and the volume if it is whole, of a stream",
	  PARAMS(P_VOLUME, P_STREAM, { "layout", RPC_STRING, false, "of a new volume; absent: the pool's" },
		 P_FORCE("although the volume is in use or has changed"),
		 { "no_resume", RPC_BOOL, false, "keep nothing of a stream that is cut" }),
	  control_co_snapshot_receive },
	{ "receive.list", "streams that have not come to their end", PARAMS(P_POOL_OPTIONAL), control_co_receive_list_shared },
	{ "receive.abort", "drops what is kept of one", PARAMS(P_VOLUME), control_co_receive_abort_shared },
	{ "export.list", "what clients can reach", PARAMS(P_POOL_OPTIONAL), control_co_export_list_shared },
	{ "export.add", "gives the export of a volume or snapshot a name and mode",
	  PARAMS(P_POINT, { "name", RPC_STRING, false, "absent: POOL/VOLUME" }, { "read_only", RPC_BOOL, false, "refuse writes" }, P_ALLOW, P_MAX_CONNECTIONS),
	  control_co_export_add_shared },
	{ "export.set", "changes what is given of an export",
	  PARAMS(P_POINT, { "name", RPC_STRING, false, "\"\": POOL/VOLUME" }, { "read_only", RPC_BOOL, false, "refuse writes, or not" }, P_ALLOW,
		 P_MAX_CONNECTIONS),
	  control_co_export_set_shared },
	{ "export.show", "one export", PARAMS(P_POINT), control_co_export_show_shared },
	{ "export.remove", "hides a volume or snapshot from clients", PARAMS(P_POINT), control_co_export_remove_shared },
	{ "export.list_iscsi", "what iSCSI initiators can reach", PARAMS(P_POOL_OPTIONAL), control_co_export_list_iscsi_shared },
	{ "export.add_iscsi", "makes a volume or snapshot a LUN of an iSCSI target",
	  PARAMS(P_POINT, { "iqn", RPC_STRING, false, "name of the target; absent: made of pool and volume" },
		 { "lun", RPC_SIZE, false, "absent: the lowest that is free" }, { "read_only", RPC_BOOL, false, "refuse writes" },
		 { "initiators", RPC_STRINGS, false, "names of those that see it; absent: all" },
		 { "chap_user", RPC_STRING, false, "name by which an initiator proves who it is" },
		 { "chap_secret", RPC_STRING, false, "12 to 100 bytes" },
		 { "mutual_user", RPC_STRING, false, "name by which the target does" },
		 { "mutual_secret", RPC_STRING, false, "12 to 100 bytes, others" }),
	  control_co_export_add_iscsi_shared },
	{ "export.remove_iscsi", "takes a volume or snapshot away from iSCSI initiators",
	  PARAMS(P_POINT, { "iqn", RPC_STRING, false, "only as a LUN of this target" }, { "lun", RPC_SIZE, false, "only this LUN" }),
	  control_co_export_remove_iscsi_shared },
	{ "connection.list", "the clients attached now", NULL, connection_co_list_call },
	{ "daemon.status", "version, uptime, addresses", NULL, daemon_co_status_call },
	{ "daemon.shutdown", "closes all pools and ends the daemon", NULL, daemon_co_shutdown_call },
	{ "daemon.methods", "this table", NULL, daemon_co_methods_call },
	{ .name = NULL },
};
