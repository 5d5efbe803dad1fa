#!/bin/bash
# Runs the fuzz targets: first the corpora that are checked in, then new inputs for SECONDS each.
# usage: tests/fuzz/run.sh smoke|long BUILD SECONDS [TARGET]
set -u

mode=$1 build=$2 seconds=$3 only=${4:-}
passed=0 failed=0
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0:handle_abort=1}
mkdir -p "$build/corpus" "$build/artifacts" "$build/log"

for src in tests/fuzz/fuzz_*.c; do
	t=$(basename "$src" .c)
	[ -z "$only" ] || [ "$only" = "$t" ] || continue
	bin=$build/tests/fuzz/$t seeds=tests/fuzz/corpus/${t#fuzz_} log=$build/log/$t
	new=$build/corpus/$t
	[ "$mode" = long ] || { new=$build/corpus/smoke-$t; rm -rf "$new"; }
	mkdir -p "$new"
	args=(-artifact_prefix="$build/artifacts/$t-" -timeout=20 -rss_limit_mb=2048 -max_len=34000 -print_final_stats=1)
	[ -d "$seeds" ] || { mkdir -p "$new/none"; seeds=$new/none; }
	if "$bin" "${args[@]}" -runs=0 "$seeds" >"$log" 2>&1 &&
	   "$bin" "${args[@]}" -max_total_time="$seconds" "$new" "$seeds" >>"$log" 2>&1; then
		passed=$((passed + 1))
		echo "  $t: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1) inputs"
	else
		failed=$((failed + 1))
		echo "  $t: FAILED, see $log:"
		grep -m 5 -E 'internal error|ERROR|SUMMARY|runtime error|Test unit written' "$log" | sed 's/^/    /'
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
