/*
 * handlers.h: inside frontends/control only: the handlers behind methods.c's table and the helpers that they share.
 */
#ifndef FRONTENDS_CONTROL_HANDLERS_H
#define FRONTENDS_CONTROL_HANDLERS_H

#include "frontends/control/methods.h"
#include "frontends/control/names.h"

/* The pool that the call's "pool" names; when it is absent, the only open one. */
int control_call_pool(const struct rpc_call *c, struct ashlar_pool **out, struct err *e) __must_check;
/* Coroutine. The result is what rows() appends for the pool that the call names, or for every open one. */
int control_co_rows(struct rpc_call *c, int (*rows)(struct ashlar_pool *p, json_t *out, struct err *e), struct err *e) __must_check;
/* The volume that "volume" names and its open pool. */
int control_call_volume(const struct rpc_call *c, struct volume_name *name, struct ashlar_pool **out, struct err *e) __must_check;
int control_pool_find(struct control_env *env, const char *name, struct ashlar_pool **out, struct err *e) __must_check;
/* Numbers beyond 2^63-1 do not exist in JSON here: cut. */
json_t *control_json_u64(uint64_t v);
/* Text from outside that may not be UTF-8 (paths). */
json_t *control_json_text(const char *text);
json_t *control_json_uuid(const struct uuid *u);
json_t *control_json_duration(uint64_t ns); /* as duration_parse() takes it */
json_t *control_json_time(uint64_t wall_ns); /* UTC, ISO 8601 */
/* The gate (methods.h), for handlers that wait long and hold it only while they use a pool. */
void control_gate_co_enter(struct control_env *env);
void control_gate_leave(struct control_env *env);
/* Appends the disks of a pool to the array. */
int control_disk_rows(struct ashlar_pool *p, const char *pool, json_t *out, struct err *e) __must_check;

/* A row "POOL/VOL" and its export's mode are shared between the files. */
int control_volume_row(struct ashlar_pool *p, const struct volume_name *name, json_t **out, struct err *e) __must_check;

/* Coroutine. Waits for the job's end, at most max_ns, telling how far it is; its row is the result. */
int control_job_co_wait(struct rpc_call *c, uint64_t id, uint64_t max_ns, struct err *e);
/* Asked to; or there is no daemon that would go on with it. */
bool control_must_wait(const struct rpc_call *c);

int control_co_pool_list(struct rpc_call *c, struct err *e);
int control_co_pool_show(struct rpc_call *c, struct err *e);
int control_co_pool_create(struct rpc_call *c, struct err *e);
int control_co_pool_check(struct rpc_call *c, struct err *e);
int control_co_pool_destroy(struct rpc_call *c, struct err *e);
int control_co_pool_set(struct rpc_call *c, struct err *e);
int control_co_disk_list(struct rpc_call *c, struct err *e);
int control_co_disk_fail(struct rpc_call *c, struct err *e);
int control_co_disk_online(struct rpc_call *c, struct err *e);
int control_co_scrub(struct rpc_call *c, struct err *e);
int control_co_job_list(struct rpc_call *c, struct err *e);
int control_co_job_wait(struct rpc_call *c, struct err *e);
int control_co_job_pause(struct rpc_call *c, struct err *e);
int control_co_disk_add(struct rpc_call *c, struct err *e);
int control_co_disk_evacuate(struct rpc_call *c, struct err *e);
int control_co_disk_remove(struct rpc_call *c, struct err *e);
int control_co_disk_replace(struct rpc_call *c, struct err *e);
int control_co_rebalance(struct rpc_call *c, struct err *e);
int control_co_job_stop(struct rpc_call *c, struct err *e);
int control_co_events(struct rpc_call *c, struct err *e);
int control_co_volume_list(struct rpc_call *c, struct err *e);
int control_co_volume_show(struct rpc_call *c, struct err *e);
int control_co_volume_create(struct rpc_call *c, struct err *e);
int control_co_volume_resize(struct rpc_call *c, struct err *e);
int control_co_volume_rename(struct rpc_call *c, struct err *e);
int control_co_volume_set(struct rpc_call *c, struct err *e);
int control_co_volume_move(struct rpc_call *c, struct err *e);
int control_co_volume_take_back(struct rpc_call *c, struct err *e);
int control_co_pool_layout(struct rpc_call *c, struct err *e);
int control_co_volume_delete(struct rpc_call *c, struct err *e);
int control_co_volume_move_out(struct rpc_call *c, struct err *e);
int control_co_snapshot_create(struct rpc_call *c, struct err *e);
int control_co_snapshot_list(struct rpc_call *c, struct err *e);
int control_co_snapshot_show(struct rpc_call *c, struct err *e);
int control_co_snapshot_delete(struct rpc_call *c, struct err *e);
int control_co_snapshot_rollback(struct rpc_call *c, struct err *e);
int control_co_snapshot_rename(struct rpc_call *c, struct err *e);
int control_co_snapshot_policy(struct rpc_call *c, struct err *e);
int control_co_volume_clone(struct rpc_call *c, struct err *e);
int control_co_snapshot_diff(struct rpc_call *c, struct err *e);
int control_co_stream_open(struct rpc_call *c, struct err *e);
int control_co_snapshot_send(struct rpc_call *c, struct err *e);
int control_co_snapshot_receive(struct rpc_call *c, struct err *e);
int control_co_receive_list(struct rpc_call *c, struct err *e);
int control_co_receive_abort(struct rpc_call *c, struct err *e);
int control_co_export_list(struct rpc_call *c, struct err *e);
int control_co_export_add(struct rpc_call *c, struct err *e);
int control_co_export_set(struct rpc_call *c, struct err *e);
int control_co_export_show(struct rpc_call *c, struct err *e);
int control_co_export_remove(struct rpc_call *c, struct err *e);
int control_co_export_add_iscsi(struct rpc_call *c, struct err *e);
int control_co_export_remove_iscsi(struct rpc_call *c, struct err *e);
int control_co_export_list_iscsi(struct rpc_call *c, struct err *e);
/* Coroutine. Adds "iscsi" to rows of exports: what each volume is as a LUN, without secrets. */
int control_co_iscsi_fill(struct control_env *env, json_t *rows, struct err *e) __must_check;
/* After a change that iSCSI sessions may have to hear of. */
void control_co_iscsi_changed(struct control_env *env);

/* Coroutine. Waits for the job's end, at most max_ns, telling how far it is; its row is the result. */
int control_job_co_wait(struct rpc_call *c, uint64_t id, uint64_t max_ns, struct err *e);
/* Asked to; or there is no daemon that would go on with it. */
bool control_must_wait(const struct rpc_call *c);

#endif
