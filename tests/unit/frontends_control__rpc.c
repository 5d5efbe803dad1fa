/* Messages of the control socket: limits, wrong JSON, wrong calls, parameters; names and sizes as users give them. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/units.h"
#include "frontends/control/names.h"
#include "frontends/control/rpc.h"
#include "tests/unit/unit.h"

/* ---- a table of methods that need no pool ---- */

static unsigned n_echo;

static int co_echo(struct rpc_call *c, struct err *e)
{
	n_echo++;
	c->result = json_deep_copy(c->params);
	return 0;
}

static int co_fail(struct rpc_call *c, struct err *e)
{
	return err_set(e, -ERR_LOCKED, "disk %s is in use by process %d", rpc_string(c, "disk"), 7);
}

static int co_fail_silently(struct rpc_call *c, struct err *e) { return -ENOSPC; }

static int co_size(struct rpc_call *c, struct err *e)
{
	c->result = json_integer((json_int_t)rpc_size(c, "size", 1));
	return 0;
}

static int co_nothing(struct rpc_call *c, struct err *e) { return 0; }

static const struct rpc_param echo_params[] = { { "s", RPC_STRING, false, "a string" },
						{ "list", RPC_STRINGS, false, "strings" },
						{ "b", RPC_BOOL, false, "a boolean" },
						{ "wait", RPC_DURATION, false, "a duration" },
						{ .name = NULL } };
static const struct rpc_param fail_params[] = { { "disk", RPC_STRING, true, "a disk" }, { .name = NULL } };
static const struct rpc_param size_params[] = { { "size", RPC_SIZE, true, "a size" }, { .name = NULL } };
static const struct rpc_method methods[] = {
	{ "echo", "gives back what it gets", echo_params, co_echo },
	{ "fail", "fails", fail_params, co_fail },
	{ "fail.silently", "fails without a sentence", NULL, co_fail_silently },
	{ "size", "reads a size", size_params, co_size },
	{ "nothing", "does nothing", NULL, co_nothing },
	{ .name = NULL },
};

static json_t *handle_len(const char *text, size_t len)
{
	struct rpc_call c = { 0 };

	return rpc_co_handle(methods, &c, text, len);
}

static json_t *handle(const char *text) { return handle_len(text, strlen(text)); }

/* The error code of the answer, 0 if it is a result; checks the answer's form. */
static json_int_t code_of(json_t *answer)
{
	const json_t *error = json_object_get(answer, "error");
	json_int_t code = 0;

	CU_ASSERT_PTR_NOT_NULL_FATAL(answer);
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(answer, "jsonrpc")), "2.0");
	CU_ASSERT_PTR_NOT_NULL(json_object_get(answer, "id"));
	CU_ASSERT_EQUAL(json_object_get(answer, "result") != NULL, error == NULL);
	if (error) {
		code = json_integer_value(json_object_get(error, "code"));
		CU_ASSERT_NOT_EQUAL(code, 0);
		CU_ASSERT(json_string_length(json_object_get(error, "message")) > 5);
		CU_ASSERT(json_is_string(json_object_get(json_object_get(error, "data"), "errno")));
	}
	json_decref(answer);
	return code;
}

#define CODE(text) code_of(handle(text))
#define CALL(method, params) "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"" method "\",\"params\":" params "}"

static void what_is_not_json_is_a_parse_error(void)
{
	static const char *const bad[] = { "x", "{", "}", "[", "{\"a\":}", "{\"a\":1,}", "\"open", "{\"jsonrpc\":\"2.0\"", "nul", "1 2",
					   "{\"a\":1,\"a\":2}", "{\"a\":\"\xff\"}", "{\"a\":99999999999999999999}", " " };
	size_t i;

	for (i = 0; i < ARRAY_LEN(bad); i++)
		CU_ASSERT_EQUAL(CODE(bad[i]), RPC_ERR_PARSE);
	CU_ASSERT_EQUAL(code_of(handle_len("{\"jsonrpc\":\"2.0\"}\0x", 19)), RPC_ERR_PARSE);
}

static void what_is_not_a_request_is_an_invalid_request(void)
{
	static const char *const bad[] = {
		"{}", "[]", "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"echo\"}", "{\"id\":1,\"method\":\"echo\"}",
		"{\"jsonrpc\":2.0,\"id\":1,\"method\":\"echo\"}", "{\"jsonrpc\":\"2.0\",\"id\":1}",
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":7}", "{\"jsonrpc\":\"2.0\",\"id\":[1],\"method\":\"echo\"}",
		"{\"jsonrpc\":\"2.0\",\"id\":true,\"method\":\"echo\"}",
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ec\\u0000ho\"}",
	};
	size_t i;

	for (i = 0; i < ARRAY_LEN(bad); i++)
		CU_ASSERT_EQUAL(CODE(bad[i]), RPC_ERR_REQUEST);
}

static void unknown_methods_are_named(void)
{
	json_t *a = handle(CALL("no.such", "{}"));
	const json_t *error = json_object_get(a, "error");

	CU_ASSERT_PTR_NOT_NULL(strstr(json_string_value(json_object_get(error, "message")), "no.such"));
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(json_object_get(error, "data"), "errno")), "ENOSYS");
	CU_ASSERT_EQUAL(code_of(a), RPC_ERR_METHOD);
	CU_ASSERT_EQUAL(CODE(CALL("", "{}")), RPC_ERR_METHOD);
}

static void wrong_parameters_are_refused_before_the_handler_runs(void)
{
	static const char *const bad[] = {
		CALL("echo", "[]"), CALL("echo", "7"), CALL("echo", "null"), CALL("echo", "{\"unknown\":1}"), CALL("echo", "{\"s\":1}"),
		CALL("echo", "{\"s\":null}"), CALL("echo", "{\"list\":\"x\"}"), CALL("echo", "{\"list\":[1]}"),
		CALL("echo", "{\"list\":[\"a\\u0000\"]}"), CALL("echo", "{\"b\":1}"), CALL("echo", "{\"b\":\"true\"}"),
		CALL("echo", "{\"s\":\"a\\u0000b\"}"), CALL("echo", "{\"wait\":-1}"), CALL("echo", "{\"wait\":\"soon\"}"),
		CALL("echo", "{\"wait\":9223372036854775807}"), CALL("fail", "{}"), CALL("size", "{\"size\":-1}"),
		CALL("size", "{\"size\":1.5}"), CALL("size", "{\"size\":\"-1G\"}"), CALL("size", "{\"size\":\"10X\"}"),
		CALL("size", "{\"size\":\"\"}"), CALL("size", "{\"size\":\"999999999999T\"}"), CALL("nothing", "{\"x\":1}"),
		"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"fail\"}",
	};
	size_t i;

	n_echo = 0;
	for (i = 0; i < ARRAY_LEN(bad); i++)
		CU_ASSERT_EQUAL(CODE(bad[i]), RPC_ERR_PARAMS);
	CU_ASSERT_EQUAL(n_echo, 0);
}

static void right_calls_are_answered(void)
{
	json_t *a = handle("{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"echo\",\"params\":{\"s\":\"ä\",\"list\":[],\"b\":false,\"wait\":\"5m\"}}");

	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(a, "id")), "x");
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(json_object_get(a, "result"), "s")), "ä");
	CU_ASSERT_EQUAL(code_of(a), 0);
	a = handle(CALL("size", "{\"size\":\"1.5K\"}"));
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(a, "result")), 1536);
	CU_ASSERT_EQUAL(code_of(a), 0);
	a = handle(CALL("size", "{\"size\":9223372036854775807}"));
	CU_ASSERT_EQUAL(json_integer_value(json_object_get(a, "result")), INT64_MAX);
	CU_ASSERT_EQUAL(code_of(a), 0);
	a = handle("{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"nothing\"}");
	CU_ASSERT(json_is_true(json_object_get(a, "result")));
	CU_ASSERT_EQUAL(code_of(a), 0);
}

static void errors_carry_sentence_code_and_name(void)
{
	json_t *a = handle(CALL("fail", "{\"disk\":\"d1\"}"));
	const json_t *error = json_object_get(a, "error"), *data = json_object_get(error, "data");
	struct err e;

	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(error, "message")), "disk d1 is in use by process 7");
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(data, "errno")), "EBUSY");
	CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(data, "name")), "ERR_LOCKED");
	CU_ASSERT_EQUAL(rpc_error_load(error, &e), -ERR_LOCKED);
	CU_ASSERT_STRING_EQUAL(e.text, "disk d1 is in use by process 7");
	CU_ASSERT_EQUAL(code_of(a), ERR_LOCKED);
	CU_ASSERT_EQUAL(CODE(CALL("fail.silently", "{}")), ENOSPC);
	CU_ASSERT_EQUAL(rpc_error_load(NULL, &e), -EIO);
}

static void notifications_are_not_answered(void)
{
	n_echo = 0;
	CU_ASSERT_PTR_NULL(handle("{\"jsonrpc\":\"2.0\",\"method\":\"echo\"}"));
	CU_ASSERT_EQUAL(n_echo, 1);
	CU_ASSERT_PTR_NULL(handle("{\"jsonrpc\":\"2.0\",\"method\":\"no.such\"}"));
	CU_ASSERT_PTR_NULL(handle("[{\"jsonrpc\":\"2.0\",\"method\":\"echo\"}]"));
}

static void batches_are_answered_one_by_one_up_to_their_limit(void)
{
	json_t *a = handle("[" CALL("nothing", "{}") ",7," CALL("no", "{}") ",{\"jsonrpc\":\"2.0\",\"method\":\"nothing\"}]");
	char *many = xcalloc(1, 64 * (RPC_BATCH_MAX + 2));
	unsigned i;

	CU_ASSERT_EQUAL_FATAL(json_array_size(a), 3);
	CU_ASSERT_EQUAL(code_of(json_incref(json_array_get(a, 0))), 0);
	CU_ASSERT_EQUAL(code_of(json_incref(json_array_get(a, 1))), RPC_ERR_REQUEST);
	CU_ASSERT_EQUAL(code_of(json_incref(json_array_get(a, 2))), RPC_ERR_METHOD);
	json_decref(a);
	strcpy(many, "[");
	for (i = 0; i <= RPC_BATCH_MAX; i++)
		strcat(many, i ? ",{}" : "{}");
	strcat(many, "]");
	CU_ASSERT_EQUAL(CODE(many), RPC_ERR_REQUEST);
	xfree(many);
}

static void depth_is_bounded_before_the_parser_recurses(void)
{
	size_t n = 500000;
	char *deep = xmalloc(n + 1);
	char ok[200] = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{\"s\":\"[[[[[[[[[[[[[[[[[[[[\\\"[[[[[\"}}";

	memset(deep, '[', n);
	deep[n] = '\0';
	CU_ASSERT_EQUAL(CODE(deep), RPC_ERR_PARSE);
	deep[RPC_DEPTH_MAX + 1] = '\0';
	CU_ASSERT_EQUAL(CODE(deep), RPC_ERR_PARSE);
	xfree(deep);
	CU_ASSERT_EQUAL(CODE(ok), 0); /* brackets in a string are no depth */
}

static void length_is_bounded(void)
{
	char *text = xmalloc(RPC_MESSAGE_MAX + 2);

	memset(text, ' ', RPC_MESSAGE_MAX + 2);
	memcpy(text, CALL("nothing", "{}"), strlen(CALL("nothing", "{}")));
	CU_ASSERT_EQUAL(code_of(handle_len(text, RPC_MESSAGE_MAX)), 0);
	CU_ASSERT_EQUAL(code_of(handle_len(text, RPC_MESSAGE_MAX + 1)), RPC_ERR_REQUEST);
	xfree(text);
}

/* ---- framer ---- */

/* Feeds text in pieces; appends the messages to out, separated by '|'. Returns 0 or the error. */
static int frame(struct rpc_framer *f, const char *text, size_t piece, char *out)
{
	size_t left = strlen(text), room, len;
	const char *msg;
	int r = 0;

	while (left) {
		char *space = rpc_framer_space(f, &room);
		size_t n = MIN(MIN(left, piece), room);

		memcpy(space, text, n);
		rpc_framer_received(f, n);
		text += n;
		left -= n;
		while ((r = rpc_framer_next(f, &msg, &len)) == 1) {
			strncat(out, msg, len);
			strcat(out, "|");
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static void lines_are_cut_however_they_arrive(void)
{
	struct rpc_framer f;
	char out[256];
	size_t piece;

	for (piece = 1; piece < 30; piece++) {
		rpc_framer_init(&f, 16);
		*out = '\0';
		CU_ASSERT_EQUAL(frame(&f, "one\n\n\r\ntwo\r\nsixteen bytes 16\nrest", piece, out), 0);
		CU_ASSERT_STRING_EQUAL(out, "one|two|sixteen bytes 16|");
		CU_ASSERT(rpc_framer_is_partial(&f));
		CU_ASSERT_EQUAL(frame(&f, "\n", 1, out), 0);
		CU_ASSERT_STRING_EQUAL(out, "one|two|sixteen bytes 16|rest|");
		CU_ASSERT(!rpc_framer_is_partial(&f));
		rpc_framer_fini(&f);
	}
}

static void long_lines_are_refused_however_they_arrive(void)
{
	struct rpc_framer f;
	char out[256];
	size_t piece;

	for (piece = 1; piece < 40; piece++) {
		rpc_framer_init(&f, 16);
		*out = '\0';
		CU_ASSERT_EQUAL(frame(&f, "ok\nseventeen bytes 17\nok\n", piece, out), -EMSGSIZE);
		CU_ASSERT_STRING_EQUAL(out, "ok|");
		rpc_framer_fini(&f);
	}
}

/* ---- names, sizes ---- */

static void bad_names_are_refused_with_a_reason(void)
{
	static const struct {
		const char *name, *word;
	} bad[] = { { "", "empty" },	 { ".", "start" },	{ "..", "start" },   { "-x", "start" }, { "a/b", "'/'" },
		    { "a\nb", "newline" }, { "a b", "not allowed" }, { "ä", "not allowed" }, { "a\x7f", "not allowed" } };
	char longest[ASHLAR_POOL_NAME_MAX + 2], huge[4098];
	struct err e;
	size_t i;

	for (i = 0; i < ARRAY_LEN(bad); i++) {
		e.text[0] = '\0';
		CU_ASSERT_EQUAL(control_check_pool(bad[i].name, &e), -EINVAL);
		CU_ASSERT_PTR_NOT_NULL(strstr(e.text, bad[i].word));
		CU_ASSERT_PTR_NULL(strchr(e.text, '\n'));
	}
	memset(longest, 'x', sizeof(longest));
	longest[ASHLAR_POOL_NAME_MAX + 1] = '\0';
	CU_ASSERT_EQUAL(control_check_pool(longest, &e), -ENAMETOOLONG);
	longest[ASHLAR_POOL_NAME_MAX] = '\0';
	CU_ASSERT_EQUAL(control_check_pool(longest, &e), 0);
	memset(huge, 'x', sizeof(huge));
	huge[4097] = '\0';
	CU_ASSERT_EQUAL(control_check_volume(huge, &e), -ENAMETOOLONG);
	CU_ASSERT_PTR_NOT_NULL(strstr(e.text, "4097"));
	CU_ASSERT_EQUAL(control_check_export(huge, &e), -ENAMETOOLONG);
	CU_ASSERT_EQUAL(control_check_export("a\nb", &e), -EINVAL);
	CU_ASSERT_EQUAL(control_check_export("a\xffz", &e), -EINVAL);
	CU_ASSERT_EQUAL(control_check_export("ö/vm 1", &e), 0);
}

static void volume_names_are_split(void)
{
	static const char *const bad[] = { "", "p", "/v", "p/", "p/v/w", "p/../v", "../v", "p/v@s", "p/a\nb", "p//v" };
	struct volume_name n, to;
	struct err e;
	size_t i;

	for (i = 0; i < ARRAY_LEN(bad); i++)
		CU_ASSERT(control_name_split(bad[i], &n, &e) < 0);
	CU_ASSERT_EQUAL_FATAL(control_name_split("p/v.1", &n, &e), 0);
	CU_ASSERT_STRING_EQUAL(n.pool, "p");
	CU_ASSERT_STRING_EQUAL(n.volume, "v.1");
	CU_ASSERT_EQUAL(control_name_split_new("w", &n, &to, &e), 0);
	CU_ASSERT_STRING_EQUAL(to.volume, "w");
	CU_ASSERT_EQUAL(control_name_split_new("p/w", &n, &to, &e), 0);
	CU_ASSERT_EQUAL(control_name_split_new("q/w", &n, &to, &e), -EXDEV);
	CU_ASSERT_EQUAL(control_name_split_new("..", &n, &to, &e), -EINVAL);
}

static void sizes_have_limits(void)
{
	struct err e;

	CU_ASSERT_EQUAL(control_check_size(0, &e), -EINVAL);
	CU_ASSERT_EQUAL(control_check_size(ASHLAR_VOLUME_SIZE_MAX, &e), 0);
	CU_ASSERT_EQUAL(control_check_size(ASHLAR_VOLUME_SIZE_MAX + 1, &e), -EFBIG);
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(what_is_not_json_is_a_parse_error),
		TEST(what_is_not_a_request_is_an_invalid_request),
		TEST(unknown_methods_are_named),
		TEST(wrong_parameters_are_refused_before_the_handler_runs),
		TEST(right_calls_are_answered),
		TEST(errors_carry_sentence_code_and_name),
		TEST(notifications_are_not_answered),
		TEST(batches_are_answered_one_by_one_up_to_their_limit),
		TEST(depth_is_bounded_before_the_parser_recurses),
		TEST(length_is_bounded),
		TEST(lines_are_cut_however_they_arrive),
		TEST(long_lines_are_refused_however_they_arrive),
		TEST(bad_names_are_refused_with_a_reason),
		TEST(volume_names_are_split),
		TEST(sizes_have_limits),
		CU_TEST_INFO_NULL,
	};

	return tests_run("rpc", tests);
}
