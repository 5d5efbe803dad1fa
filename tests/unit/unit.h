/*
 * unit.h: the main() of a unit test: its tests, in order, by CUnit. MUTANT in the environment: in that broken variant of the engine.
 */
#ifndef TESTS_UNIT_UNIT_H
#define TESTS_UNIT_UNIT_H

#include <stdlib.h>
#include <CUnit/Basic.h>

#include "engine/base/mutant.h"

/* An entry of the table, which ends with CU_TEST_INFO_NULL. */
#define TEST(f) { #f, f }

/* The exit status. */
static inline int tests_run(const char *name, CU_TestInfo *tests)
{
	CU_SuiteInfo suites[] = { { name, NULL, NULL, NULL, NULL, tests }, CU_SUITE_INFO_NULL };
	const char *mutant = getenv("MUTANT");
	unsigned failed;

	if (mutant && !mutant_set(mutant))
		return 2;
	if (CU_initialize_registry() != CUE_SUCCESS || CU_register_suites(suites) != CUE_SUCCESS)
		return 2;
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	failed = CU_get_number_of_failures() + CU_get_number_of_suites_failed();
	CU_cleanup_registry();
	return failed != 0;
}

#endif
