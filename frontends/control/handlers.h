/*
 * handlers.h: inside frontends/control only: the handlers behind methods.c's table and the helpers that they share.
 */
#ifndef FRONTENDS_CONTROL_HANDLERS_H
#define FRONTENDS_CONTROL_HANDLERS_H

#include "frontends/control/methods.h"
#include "frontends/control/names.h"

/* The pool that the call's "pool" names; when it is absent, the only open one. */
int call_pool(const struct rpc_call *c, struct ashlar_pool **out, struct err *e) __must_check;
/* The volume that "volume" names and its open pool. */
int call_volume(const struct rpc_call *c, struct volume_name *name, struct ashlar_pool **out, struct err *e) __must_check;
int pool_find(struct control_env *env, const char *name, struct ashlar_pool **out, struct err *e) __must_check;
/* Numbers beyond 2^63-1 do not exist in JSON here: cut. */
json_t *json_u64(uint64_t v);
/* Text from outside that may not be UTF-8 (paths). */
json_t *json_text(const char *text);
json_t *json_uuid(const struct uuid *u);

/* A row "POOL/VOL" and its export's mode are shared between the files. */
int volume_row(struct ashlar_pool *p, const struct volume_name *name, json_t **out, struct err *e) __must_check;

int pool_co_list_call(struct rpc_call *c, struct err *e);
int pool_co_show_call(struct rpc_call *c, struct err *e);
int pool_co_create_call(struct rpc_call *c, struct err *e);
int pool_co_check_call(struct rpc_call *c, struct err *e);
int pool_co_destroy_call(struct rpc_call *c, struct err *e);
int disk_co_list_call(struct rpc_call *c, struct err *e);
int volume_co_list_call(struct rpc_call *c, struct err *e);
int volume_co_show_call(struct rpc_call *c, struct err *e);
int volume_co_create_call(struct rpc_call *c, struct err *e);
int volume_co_resize_call(struct rpc_call *c, struct err *e);
int volume_co_rename_call(struct rpc_call *c, struct err *e);
int volume_co_set_call(struct rpc_call *c, struct err *e);
int volume_co_delete_call(struct rpc_call *c, struct err *e);
int export_co_list_call(struct rpc_call *c, struct err *e);
int export_co_add_call(struct rpc_call *c, struct err *e);
int export_co_remove_call(struct rpc_call *c, struct err *e);

#endif
