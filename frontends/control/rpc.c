#include "frontends/control/rpc.h"

#include <stdio.h>
#include <string.h>

#include "engine/base/units.h"

/* ---- parameters ---- */

static const char *type_text(enum rpc_type t)
{
	switch (t) {
	case RPC_STRING:
		return "a string";
	case RPC_STRINGS:
		return "an array of strings";
	case RPC_BOOL:
		return "true or false";
	case RPC_SIZE:
		return "a size (a number of bytes, or text like \"10G\")";
	case RPC_DURATION:
		return "a duration (seconds, or text like \"30s\" or \"forever\")";
	}
	return "?";
}

static bool is_plain_string(const json_t *v)
{
	return json_is_string(v) && strlen(json_string_value(v)) == json_string_length(v);
}

static bool is_of_type(const json_t *v, enum rpc_type t)
{
	uint64_t n;
	size_t i;

	switch (t) {
	case RPC_STRING:
		return is_plain_string(v);
	case RPC_STRINGS:
		if (!json_is_array(v))
			return false;
		for (i = 0; i < json_array_size(v); i++)
			if (!is_plain_string(json_array_get(v, i)))
				return false;
		return true;
	case RPC_BOOL:
		return json_is_boolean(v);
	case RPC_SIZE:
		return (json_is_integer(v) && json_integer_value(v) >= 0) ||
		       (is_plain_string(v) && size_parse(json_string_value(v), &n) == 0);
	case RPC_DURATION:
		return (json_is_integer(v) && json_integer_value(v) >= 0 &&
			json_integer_value(v) < (json_int_t)(INT64_MAX / NS_PER_SEC)) ||
		       (is_plain_string(v) && duration_parse(json_string_value(v), &n) == 0);
	}
	return false;
}

static const struct rpc_param *param_find(const struct rpc_method *m, const char *name)
{
	const struct rpc_param *p;

	for (p = m->params; p && p->name; p++)
		if (!strcmp(p->name, name))
			return p;
	return NULL;
}

static int params_check(const struct rpc_method *m, const json_t *params, struct err *e)
{
	const struct rpc_param *p;
	const char *key;
	json_t *v;

	if (!json_is_object(params))
		return err_set(e, RPC_ERR_PARAMS, "%s: params must be an object with named members", m->name);
	json_object_foreach((json_t *)params, key, v) {
		p = param_find(m, key);
		if (!p)
			return err_set(e, RPC_ERR_PARAMS, "%s has no parameter \"%.64s\"", m->name, key);
		if (json_is_string(v) && !is_plain_string(v))
			return err_set(e, RPC_ERR_PARAMS, "%s: \"%s\" must not contain a NUL byte", m->name, key);
		if (!is_of_type(v, p->type))
			return err_set(e, RPC_ERR_PARAMS, "%s: \"%s\" must be %s", m->name, key, type_text(p->type));
	}
	for (p = m->params; p && p->name; p++)
		if (p->required && !json_object_get(params, p->name))
			return err_set(e, RPC_ERR_PARAMS, "%s needs the parameter \"%s\" (%s)", m->name, p->name, p->help);
	return 0;
}

bool rpc_is_given(const struct rpc_call *c, const char *name) { return json_object_get(c->params, name) != NULL; }

const char *rpc_string(const struct rpc_call *c, const char *name)
{
	return json_string_value(json_object_get(c->params, name));
}

const json_t *rpc_strings(const struct rpc_call *c, const char *name) { return json_object_get(c->params, name); }

bool rpc_bool(const struct rpc_call *c, const char *name) { return json_is_true(json_object_get(c->params, name)); }

uint64_t rpc_size(const struct rpc_call *c, const char *name, uint64_t absent)
{
	const json_t *v = json_object_get(c->params, name);
	uint64_t n = absent;

	if (json_is_integer(v))
		return (uint64_t)json_integer_value(v);
	if (json_is_string(v) && size_parse(json_string_value(v), &n) < 0)
		n = absent; /* cannot be: params_check() has parsed it */
	return n;
}

uint64_t rpc_duration(const struct rpc_call *c, const char *name, uint64_t absent)
{
	const json_t *v = json_object_get(c->params, name);
	uint64_t n = absent;

	if (json_is_integer(v))
		return (uint64_t)json_integer_value(v) * NS_PER_SEC;
	if (json_is_string(v) && duration_parse(json_string_value(v), &n) < 0)
		n = absent;
	return n;
}

/* ---- calls ---- */

int rpc_co_call(const struct rpc_method *table, const char *method, struct rpc_call *c, struct err *e)
{
	const struct rpc_method *m;
	json_t *none = NULL;
	int r;

	for (m = table; m->name; m++)
		if (!strcmp(m->name, method))
			break;
	if (!m->name)
		return err_set(e, RPC_ERR_METHOD, "there is no method \"%.64s\"", method);
	if (!c->params)
		c->params = none = json_object();
	c->result = NULL;
	r = params_check(m, c->params, e);
	if (r == 0)
		r = m->co_run(c, e);
	if (r < 0) {
		err_default(e, r, method);
		json_decref(c->result);
		c->result = NULL;
	} else if (!c->result) {
		c->result = json_true();
	}
	if (none) {
		json_decref(none);
		c->params = NULL;
	}
	return r < 0 ? r : 0;
}

static bool is_id(const json_t *id) { return json_is_string(id) || json_is_number(id) || json_is_null(id); }

/* One call of a message. NULL: it was a notification, nothing is answered. */
static json_t *request_co_run(const struct rpc_method *table, const struct rpc_call *proto, const json_t *req)
{
	const json_t *id = json_object_get(req, "id"), *method = json_object_get(req, "method");
	const char *version = json_string_value(json_object_get(req, "jsonrpc"));
	struct rpc_call c = *proto;
	struct err e = { 0 };

	if (!json_is_object(req))
		err_set(&e, RPC_ERR_REQUEST, "a request must be a JSON object");
	else if (!version || strcmp(version, "2.0"))
		err_set(&e, RPC_ERR_REQUEST, "a request must have \"jsonrpc\": \"2.0\"");
	else if (id && !is_id(id))
		err_set(&e, RPC_ERR_REQUEST, "\"id\" must be a string, a number or null");
	else if (!is_plain_string(method))
		err_set(&e, RPC_ERR_REQUEST, "\"method\" must be a string");
	if (e.code)
		return rpc_error_answer(id && is_id(id) ? id : NULL, &e);
	c.params = json_object_get(req, "params");
	if (rpc_co_call(table, json_string_value(method), &c, &e) < 0)
		return id ? rpc_error_answer(id, &e) : NULL;
	if (!id) {
		json_decref(c.result);
		return NULL;
	}
	return json_pack("{s:s, s:o, s:O}", "jsonrpc", "2.0", "result", c.result, "id", id);
}

/* The parser recurses once per level: what is too deep must not reach it. */
static bool is_too_deep(const char *text, size_t len)
{
	unsigned depth = 0;
	bool in_string = false;
	size_t i;

	for (i = 0; i < len; i++) {
		char ch = text[i];

		if (in_string) {
			if (ch == '\\')
				i++;
			else if (ch == '"')
				in_string = false;
		} else if (ch == '"') {
			in_string = true;
		} else if (ch == '{' || ch == '[') {
			if (++depth > RPC_DEPTH_MAX)
				return true;
		} else if ((ch == '}' || ch == ']') && depth) {
			depth--;
		}
	}
	return false;
}

static json_t *batch_co_run(const struct rpc_method *table, const struct rpc_call *c, const json_t *batch)
{
	json_t *answers, *one;
	struct err e = { 0 };
	size_t i, n = json_array_size(batch);

	if (n == 0 || n > RPC_BATCH_MAX) {
		err_set(&e, RPC_ERR_REQUEST, "a batch holds 1 to %d requests, not %zu", RPC_BATCH_MAX, n);
		return rpc_error_answer(NULL, &e);
	}
	answers = json_array();
	for (i = 0; i < n; i++) {
		one = request_co_run(table, c, json_array_get(batch, i));
		if (one)
			json_array_append_new(answers, one);
	}
	if (json_array_size(answers))
		return answers;
	json_decref(answers);
	return NULL;
}

json_t *rpc_co_handle(const struct rpc_method *table, const struct rpc_call *c, const char *text, size_t len)
{
	struct err e = { 0 };
	json_error_t je;
	json_t *msg, *answer;

	if (len > RPC_MESSAGE_MAX)
		err_set(&e, RPC_ERR_REQUEST, "a message has at most %u bytes", RPC_MESSAGE_MAX);
	else if (is_too_deep(text, len))
		err_set(&e, RPC_ERR_PARSE, "a message has at most %d levels of nesting", RPC_DEPTH_MAX);
	if (e.code)
		return rpc_error_answer(NULL, &e);
	msg = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
	if (!msg) {
		err_set(&e, RPC_ERR_PARSE, "not JSON: %s (column %d)", je.text, je.column);
		return rpc_error_answer(NULL, &e);
	}
	if (json_is_array(msg))
		answer = batch_co_run(table, c, msg);
	else
		answer = request_co_run(table, c, msg);
	json_decref(msg);
	return answer;
}

json_t *rpc_describe(const struct rpc_method *table)
{
	static const char *const types[] = { "string", "strings", "boolean", "size", "duration" };
	const struct rpc_method *m;
	const struct rpc_param *p;
	json_t *out = json_array();

	for (m = table; m->name; m++) {
		json_t *params = json_array();

		for (p = m->params; p && p->name; p++)
			json_array_append_new(params, json_pack("{s:s, s:s, s:b, s:s}", "name", p->name, "type", types[p->type],
								"required", p->required, "help", p->help));
		json_array_append_new(out, json_pack("{s:s, s:s, s:o}", "name", m->name, "summary", m->summary, "params", params));
	}
	return out;
}

/* ---- answers ---- */

static const char *private_name(int code)
{
	switch (-code) {
#define X(name, num, parent, text) \
	case name:                 \
		return #name;
		ERR_TABLE(X)
#undef X
	default:
		return NULL;
	}
}

const char *rpc_errno_name(int code)
{
	const char *name;

	if (code <= RPC_ERR_REQUEST)
		return code == RPC_ERR_METHOD ? "ENOSYS" : "EINVAL";
	name = strerrorname_np(-err_to_errno(code));
	return name ? name : "";
}

/* Sentences may quote names of the outside: what is not UTF-8 must not keep the answer from being sent. */
static json_t *text_json(const char *text)
{
	json_t *j = json_string(text);
	char clean[sizeof(((struct err *)0)->text)];
	size_t i;

	if (j)
		return j;
	for (i = 0; text[i] && i < sizeof(clean) - 1; i++)
		clean[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
	clean[i] = '\0';
	return json_string(clean);
}

json_t *rpc_error_answer(const json_t *id, const struct err *e)
{
	const char *name = private_name(e->code);
	json_t *data = json_pack("{s:s}", "errno", rpc_errno_name(e->code)), *error;

	if (name)
		json_object_set_new(data, "name", json_string(name));
	error = json_pack("{s:i, s:o, s:o}", "code", e->code <= RPC_ERR_REQUEST ? e->code : -e->code, "message",
			  text_json(e->text), "data", data);
	return json_pack("{s:s, s:o, s:o}", "jsonrpc", "2.0", "error", error, "id",
			 id ? json_incref((json_t *)id) : json_null());
}

json_t *rpc_request(const char *method, const json_t *params, json_int_t id)
{
	json_t *j = json_pack("{s:s, s:s, s:I}", "jsonrpc", "2.0", "method", method, "id", id);

	if (params)
		json_object_set(j, "params", (json_t *)params);
	return j;
}

json_t *rpc_notification(const char *method, json_t *params)
{
	return json_pack("{s:s, s:s, s:o}", "jsonrpc", "2.0", "method", method, "params", params);
}

int rpc_error_load(const json_t *error, struct err *e)
{
	json_int_t code = json_integer_value(json_object_get(error, "code"));
	const char *text = json_string_value(json_object_get(error, "message"));
	int c = -EIO;

	if (code <= RPC_ERR_REQUEST && code >= RPC_ERR_PARSE)
		c = (int)code;
	else if (code > 0 && code < 10000)
		c = (int)-code;
	return err_set(e, c, "%s", text ? text : "the daemon gave an error without a message");
}

struct dump_buf {
	char *text;
	size_t len, cap;
};

static int dump_append(const char *text, size_t len, void *arg)
{
	struct dump_buf *b = arg;

	if (b->len + len + 2 > b->cap) {
		b->cap = MAX(b->cap * 2, b->len + len + 256);
		b->text = xrealloc(b->text, b->cap);
	}
	memcpy(b->text + b->len, text, len);
	b->len += len;
	return 0;
}

char *rpc_dump_line(const json_t *j, size_t *len)
{
	struct dump_buf b = { 0 };
	int r = json_dump_callback(j, dump_append, &b, JSON_COMPACT | JSON_ENCODE_ANY);

	CHECK(r == 0);
	dump_append("\n", 1, &b);
	b.text[b.len] = '\0';
	*len = b.len;
	return b.text;
}

/* ---- framer ---- */

void rpc_framer_init(struct rpc_framer *f, size_t max_message)
{
	memset(f, 0, sizeof(*f));
	f->max = max_message;
}

void rpc_framer_fini(struct rpc_framer *f)
{
	xfree(f->buf);
	f->buf = NULL;
}

char *rpc_framer_space(struct rpc_framer *f, size_t *room)
{
	if (f->start) {
		memmove(f->buf, f->buf + f->start, f->len - f->start);
		f->len -= f->start;
		f->scanned -= f->start;
		f->start = 0;
	}
	if (f->len == f->cap) {
		/* One byte beyond the longest message, for its newline; next() has refused what is longer. */
		f->cap = MIN(MAX(f->cap * 2, (size_t)4096), f->max + 1);
		f->buf = xrealloc(f->buf, f->cap);
	}
	CHECK(f->cap > f->len);
	*room = f->cap - f->len;
	return f->buf + f->len;
}

void rpc_framer_received(struct rpc_framer *f, size_t n)
{
	CHECK(n <= f->cap - f->len);
	f->len += n;
}

int rpc_framer_next(struct rpc_framer *f, const char **text, size_t *len)
{
	char *line, *nl;

	if (!f->buf)
		return 0;
	for (;;) {
		line = f->buf + f->start;
		nl = f->len > f->scanned ? memchr(f->buf + f->scanned, '\n', f->len - f->scanned) : NULL;
		if (!nl) {
			f->scanned = f->len;
			return f->len - f->start > f->max ? -EMSGSIZE : 0;
		}
		*text = line;
		*len = (size_t)(nl - line);
		f->start = f->scanned = (size_t)(nl - f->buf) + 1;
		if (*len && line[*len - 1] == '\r')
			--*len;
		if (*len > f->max)
			return -EMSGSIZE;
		if (*len)
			return 1;
	}
}

bool rpc_framer_is_partial(const struct rpc_framer *f) { return f->len > f->start; }
