/*
 * Rules of access.
 */
#include <arpa/inet.h>
#include <string.h>

#include "engine/io/access.h"
#include "tests/unit/unit.h"

static struct stream tcp4(const char *addr)
{
	struct stream s = {.has_addr = true};

	s.addr[10] = s.addr[11] = 0xff;
	CU_ASSERT_EQUAL_FATAL(inet_pton(AF_INET, addr, s.addr + 12), 1);
	return s;
}

static struct stream tcp6(const char *addr)
{
	struct stream s = {.has_addr = true};

	CU_ASSERT_EQUAL_FATAL(inet_pton(AF_INET6, addr, s.addr), 1);
	return s;
}

static bool allowed(const char *rules, struct stream s) { return access_is_allowed(rules, &s); }

static void rules_are_checked(void)
{
	static const char *const good[] = {"tls:alice", "tls:a b", "uid:0", "gid:4294967294", "addr:10.0.0.0/8", "addr:0.0.0.0/0", "addr:::1",
					   "addr:fd00::/8", "addr:192.168.1.7", "addr:::/0"};
	static const char *const bad[] = {"", "alice", "tls:", "tls:a\nb", "tls:\x1b[2J", "uid:", "uid:-1", "uid:x", "uid:4294967295", "gid:1 ",
					  "addr:", "addr:10.0.0.1/8", "addr:10.0.0.0/33", "addr:fd00::1/8", "addr:::/129", "addr:host", "addr:10.0.0.0/",
					  "addr:10.0.0.0/8/8", "addr:1.2.3", "uid:99999999999999999999", "TLS:alice"};
	struct err e = {0};
	size_t i;

	for (i = 0; i < ARRAY_LEN(good); i++)
		CU_ASSERT_EQUAL(access_rule_check(good[i], &e), 0);
	for (i = 0; i < ARRAY_LEN(bad); i++) {
		e = (struct err){0};
		CU_ASSERT_EQUAL(access_rule_check(bad[i], &e), -EINVAL);
		CU_ASSERT(*e.text && !strpbrk(e.text, "\n\x1b"));
	}
}

static void without_rules_everybody_may(void)
{
	CU_ASSERT(allowed("", (struct stream){0}));
	CU_ASSERT(!allowed("nonsense", (struct stream){0}));
	CU_ASSERT(!allowed("\n", (struct stream){0}));
	CU_ASSERT(!allowed("uid:0", (struct stream){0}));
	CU_ASSERT(!allowed("addr:0.0.0.0/0", (struct stream){0}));
	CU_ASSERT(!allowed("addr:::/0", (struct stream){0}));
}

static void users_and_groups(void)
{
	struct stream s = {.is_unix = true, .has_cred = true, .uid = 1000, .gid = 100};

	CU_ASSERT(allowed("uid:1000", s) && allowed("gid:100", s) && allowed("uid:1\ngid:100", s));
	CU_ASSERT(!allowed("uid:100", s) && !allowed("gid:1000", s) && !allowed("uid:10000", s) && !allowed("tls:1000", s));
}

static void prefixes(void)
{
	CU_ASSERT(allowed("addr:10.0.0.0/8", tcp4("10.255.0.1")));
	CU_ASSERT(!allowed("addr:10.0.0.0/8", tcp4("11.0.0.1")));
	CU_ASSERT(allowed("addr:10.16.0.0/12", tcp4("10.31.255.255")) && !allowed("addr:10.16.0.0/12", tcp4("10.32.0.0")));
	CU_ASSERT(allowed("addr:192.168.1.7", tcp4("192.168.1.7")) && !allowed("addr:192.168.1.7", tcp4("192.168.1.6")));
	CU_ASSERT(allowed("addr:0.0.0.0/0", tcp4("1.2.3.4")) && !allowed("addr:0.0.0.0/0", tcp6("fd00::1")));
	CU_ASSERT(allowed("addr:::ffff:0:0/96", tcp4("1.2.3.4")));
	CU_ASSERT(allowed("addr:fd00::/9", tcp6("fd7f::1")) && !allowed("addr:fd00::/9", tcp6("fd80::1")));
	CU_ASSERT(allowed("addr:::1", tcp6("::1")) && !allowed("addr:::1", tcp6("::2")));
	CU_ASSERT(allowed("uid:0\naddr:::/0", tcp6("::2")));
}

static void names_are_whole(void)
{
	struct stream s = {.is_tls = true, .tls_names = (char *)(uintptr_t)"alice\nal.example\nAlice Smith\n"};

	CU_ASSERT(allowed("tls:alice", s) && allowed("tls:Alice Smith", s) && allowed("tls:x\ntls:al.example", s));
	CU_ASSERT(!allowed("tls:al", s) && !allowed("tls:lice", s) && !allowed("tls:alice2", s) && !allowed("tls:ALICE", s));
	CU_ASSERT(!allowed("tls:alice\x01", s) && !allowed("uid:0", s));
	s.tls_names = NULL;
	CU_ASSERT(!allowed("tls:alice", s));
}

int main(void)
{
	CU_TestInfo tests[] = {
		TEST(rules_are_checked),
		TEST(without_rules_everybody_may),
		TEST(users_and_groups),
		TEST(prefixes),
		TEST(names_are_whole),
		CU_TEST_INFO_NULL,
	};

	return tests_run("access", tests);
}
