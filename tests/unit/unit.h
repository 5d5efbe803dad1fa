/*
 * unit.h: the main() of a unit test: its tests, in order, by CUnit. In the environment: MUTANT: in that broken variant of the engine;
 * TEST: only the test of that name.
 */
#ifndef TESTS_UNIT_UNIT_H
#define TESTS_UNIT_UNIT_H

#include <stdlib.h>
#include <CUnit/Basic.h>

#include "engine/base/mutant.h"

/* An entry of the table, which ends with CU_TEST_INFO_NULL. */
#define TEST(f) { #f, f }

/* The exit status. init and fini: before and after all of them, 0 if all is well. */
static inline int tests_run_in(const char *name, CU_InitializeFunc init, CU_CleanupFunc fini, CU_TestInfo *tests)
{
	CU_SuiteInfo suites[] = { { name, init, fini, NULL, NULL, tests }, CU_SUITE_INFO_NULL };
	const char *mutant = getenv("MUTANT"), *one = getenv("TEST");
	CU_pSuite suite;
	unsigned failed;

	if (mutant && !mutant_set(mutant))
		return 2;
	if (CU_initialize_registry() != CUE_SUCCESS || CU_register_suites(suites) != CUE_SUCCESS)
		return 2;
	CU_basic_set_mode(CU_BRM_VERBOSE);
	suite = CU_get_suite(name);
	failed = one && CU_basic_run_test(suite, CU_get_test(suite, one)) != CUE_SUCCESS;
	if (!one)
		CU_basic_run_tests();
	failed += CU_get_number_of_failures() + CU_get_number_of_suites_failed();
	CU_cleanup_registry();
	return failed != 0;
}

static inline int tests_run(const char *name, CU_TestInfo *tests)
{
	return tests_run_in(name, NULL, NULL, tests);
}

#endif
