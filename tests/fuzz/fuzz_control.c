/*
 * The control socket's bytes: the framer in pieces of a size taken from the input, then every message through parser,
 * parameter checks and dispatch. The handlers need no pool: they read their parameters in every way that handlers do.
 */
#include <string.h>

#include "frontends/control/names.h"
#include "frontends/control/rpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int co_names(struct rpc_call *c, struct err *e)
{
	struct volume_name v, to;
	const char *name = rpc_string(c, "volume"), *new_name = rpc_string(c, "new_name");
	int r = control_name_split(name, &v, e);

	if (r < 0)
		return r;
	CHECK(strlen(v.pool) + 1 + strlen(v.volume) == strlen(name));
	if (new_name && control_name_split_new(new_name, &v, &to, e) < 0)
		return e->code;
	r = control_check_export(name, e);
	CHECK(r == 0); /* volume names are fit for exports */
	c->result = json_pack("{s:s, s:s}", "pool", v.pool, "volume", v.volume);
	CHECK(c->result);
	return 0;
}

static int co_values(struct rpc_call *c, struct err *e)
{
	const json_t *list = rpc_strings(c, "list");
	size_t i;

	for (i = 0; i < json_array_size(list); i++)
		CHECK(strlen(json_string_value(json_array_get(list, i))) == json_string_length(json_array_get(list, i)));
	if (c->notify)
		c->notify(c->notify_arg, "progress", json_pack("{s:b}", "flag", rpc_bool(c, "flag")));
	if (control_check_size(rpc_size(c, "size", 1), e) < 0)
		return e->code;
	c->result = json_integer((json_int_t)(rpc_duration(c, "wait", 0) >> 1));
	return 0;
}

static const struct rpc_param name_params[] = { { "volume", RPC_STRING, true, "POOL/VOLUME" },
						{ "new_name", RPC_STRING, false, "NEW" },
						{ .name = NULL } };
static const struct rpc_param value_params[] = { { "list", RPC_STRINGS, false, "strings" }, { "flag", RPC_BOOL, false, "a flag" },
						 { "size", RPC_SIZE, true, "a size" },	   { "wait", RPC_DURATION, false, "a time" },
						 { .name = NULL } };
static const struct rpc_method methods[] = {
	{ "names", "looks at names", name_params, co_names },
	{ "values", "looks at values", value_params, co_values },
	{ .name = NULL },
};

static void notify(void *arg, const char *method, json_t *params) { json_decref(rpc_notification(method, params)); }

static void message(const char *text, size_t len)
{
	struct rpc_call c = { .notify = notify };
	json_t *answer = rpc_co_handle(methods, &c, text, len);
	struct err e;
	char *line;

	if (!answer)
		return;
	line = rpc_dump_line(answer, &len);
	CHECK(len > 2 && line[len - 1] == '\n' && !memchr(line, '\n', len - 1));
	if (json_object_get(answer, "error"))
		CHECK(rpc_error_load(json_object_get(answer, "error"), &e) < 0);
	xfree(line);
	json_decref(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rpc_framer f;
	size_t piece, room, n, len;
	const char *text;
	char *space;
	int r = 0;

	if (!size)
		return 0;
	piece = 1 + data[0] * 4U;
	data++;
	size--;
	rpc_framer_init(&f, 4096);
	while (size && r == 0) {
		space = rpc_framer_space(&f, &room);
		n = MIN(MIN(piece, size), room);
		memcpy(space, data, n);
		rpc_framer_received(&f, n);
		data += n;
		size -= n;
		while ((r = rpc_framer_next(&f, &text, &len)) == 1)
			message(text, len);
	}
	CHECK(r == 0 || r == -EMSGSIZE);
	rpc_framer_fini(&f);
	return 0;
}
