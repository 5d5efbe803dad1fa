#!/usr/bin/env bash
# Runs every test step, says how each ended and how long it took, and ends with "N passed, N failed".
# Usage: tests/check.sh [STEP]...     BUILD and MAKE come from the environment (make check sets them).
set -u
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
MAKE=${MAKE:-make}
JOBS=${JOBS:-$(nproc)}
logs=$BUILD/check
mkdir -p "$logs/keep"
export ASHLAR_KEEP_DIR=$(readlink -f "$logs")/keep # what daemons that are killed leave
rm -f "$ASHLAR_KEEP_DIR"/*
passed=0
failed=0
failed_names=()

is_asked() { # STEP
	[ "${#only[@]}" -eq 0 ] || [[ " ${only[*]} " == *" $1 "* ]]
}

# step NAME COMMAND...: its output goes to a log; the end of it is shown when it fails.
step() {
	local name=$1 start=$SECONDS
	shift
	if is_asked "$name"; then
		"$@" >"$logs/$name.log" 2>&1 </dev/null
		ended "$name" $? "$start"
	fi
}

# The same, but beside the steps that follow, which had better be `nice`, until `joined NAME`.
declare -A beside_pid beside_start
beside() {
	local name=$1
	shift
	if is_asked "$name"; then
		beside_start[$name]=$SECONDS
		"$@" >"$logs/$name.log" 2>&1 </dev/null &
		beside_pid[$name]=$!
	fi
}
joined() {
	if [ -n "${beside_pid[$1]:-}" ]; then
		wait "${beside_pid[$1]}"
		ended "$1" $? "${beside_start[$1]}"
	fi
}

ended() { # NAME STATUS START
	local name=$1 start=$3
	if [ "$2" -eq 0 ]; then
		passed=$((passed + 1))
		printf 'ok      %-12s %4ds  %s\n' "$name" $((SECONDS - start)) "$(summary "$logs/$name.log")"
	else
		failed=$((failed + 1))
		failed_names+=("$name")
		printf 'FAILED  %-12s %4ds  log: %s\n' "$name" $((SECONDS - start)) "$logs/$name.log"
		why "$logs/$name.log" | cut -c 1-300 | sed 's/^/    | /'
	fi
}

# What failed in a log, with what was said about it there; the end of the log, and other lines that may tell, after that.
why() {
	grep -aE -A 12 '^ *not ok|FAILED|ERROR: |runtime error|WARNING: Thread|\*\*\*' "$1" | grep -avE '^ok ' | head -n 40
	echo "-- the end:"
	tail -n 15 "$1"
	echo "-- besides:"
	grep -aE 'seed|FAIL|error' "$1" | grep -avE '^ok ' | head -n 10
}

# The last line that counts something.
summary() {
	grep -aE '[0-9]+ (passed|seeds|states|tests)' "$1" | tail -n 1 | cut -c 1-110
}

quiet_make() {
	$MAKE --no-print-directory -s -j"$JOBS" "$@"
}

# Gives way to what runs beside it.
gentle_make() {
	nice -n 19 $MAKE --no-print-directory -s -j"$JOBS" "$@"
}

# run_unit BIN: one unit test program; its output and, if it failed, a line that says so.
run_unit() {
	local out start=$SECONDS
	out=$(timeout 400 "$1" 2>&1) || out+=$'\n'"FAILED: $1"
	printf '== %s (%d s)\n%s\n' "$1" $((SECONDS - start)) "$out"
}
export -f run_unit

# run_units DIR [SKIP...]: every unit test built there but those, $JOBS at a time; each prints CUnit's summary.
run_units() {
	local dir=$1 bin bins=() bad
	shift
	for bin in "$dir"/tests/unit/*; do
		[ -x "$bin" ] && [ ! -d "$bin" ] || continue
		case $bin in *.o | *.d) continue ;; esac
		[[ " $* " == *" ${bin##*/} "* ]] || bins+=("$bin")
	done
	printf '%s\0' "${bins[@]}" | xargs -0 -P "$JOBS" -I{} bash -c 'run_unit {}' >"$logs/units.out"
	cat "$logs/units.out"
	bad=$(grep -ac '^FAILED: ' "$logs/units.out")
	echo "$((${#bins[@]} - bad)) passed, $bad failed (unit test programs in $dir)"
	[ "$bad" -eq 0 ] && [ "${#bins[@]}" -gt 0 ]
}

build_gcc() { quiet_make BUILD="$BUILD" CC=gcc all unit-bins; }
build_clang() { quiet_make BUILD="$BUILD-clang" CC=clang all; }
build_asan() { quiet_make BUILD="$BUILD-asan" CC=clang SAN=asan OPT=-O1 all unit-bins; }

# Without the long walks over the whole pool: the simulation under the sanitizers does what they do.
unit_asan() {
	ASAN_OPTIONS=detect_stack_use_after_return=0 UBSAN_OPTIONS=print_stacktrace=1 \
		run_units "$BUILD-asan" engine_pool__losses engine_pool__leaving engine_pool__reshape engine_pool__historic engine_pool__parity engine_pool__send raid__parity_crash \
			raid__parity_io raid__faults raid__raid thin__random engine_pool__life \
			engine_pool__disks engine_pool__relocate engine_pool__move_pools engine_pool__snapshots thin__snapshot raid__slow engine_pool__adopt engine_pool__moved engine_pool__pace
}

# The tests with more than one reactor thread.
tsan() {
	local names=(engine_io__reactor engine_io__real engine_io__worker engine_io__remote engine_io__net engine_io__co) n bad=0
	quiet_make BUILD="$BUILD-tsan" CC=clang SAN=tsan OPT=-O1 all \
		$(printf "$BUILD-tsan/tests/unit/%s " "${names[@]}") "$BUILD-tsan/tests/proto/nbd_mem_server" || return 1
	for n in "${names[@]}"; do
		echo "== $n"
		timeout 300 "$BUILD-tsan/tests/unit/$n" || bad=$((bad + 1))
	done
	/usr/bin/python3 tests/proto/nbd_libnbd.py "$BUILD-tsan/tests/proto/nbd_mem_server" || bad=$((bad + 1))
	/usr/bin/python3 tests/proto/nbd_tls.py "$BUILD-tsan/tests/proto/nbd_mem_server" || bad=$((bad + 1))
	BUILD=$BUILD-tsan bash tests/e2e/tsan.sh || bad=$((bad + 1))
	[ "$bad" -eq 0 ]
}

proto() {
	quiet_make BUILD="$BUILD" "$BUILD/tests/proto/nbd_mem_server" &&
		/usr/bin/python3 tests/proto/nbd_libnbd.py "$BUILD/tests/proto/nbd_mem_server" &&
		/usr/bin/python3 tests/proto/nbd_hostile.py "$BUILD/tests/proto/nbd_mem_server" &&
		/usr/bin/python3 tests/proto/nbd_tls.py "$BUILD/tests/proto/nbd_mem_server"
}

# One range, so that a change is measured by the same runs. Fresh seeds: `make sim`, `make nightly`.
seed=$((16#19617d8c))

sim() {
	quiet_make BUILD="$BUILD" "$BUILD/tests/sim/sim" &&
		nice -n 19 "$BUILD/tests/sim/sim" --file tests/sim/seeds.txt --seed "$seed" --count 200 --jobs "$JOBS"
}

# The proof again, shorter, under the sanitizers.
proof_asan() {
	quiet_make BUILD="$BUILD-asan" CC=clang SAN=asan OPT=-O1 "$BUILD-asan/tests/sim/sim" "$BUILD-asan/tests/crash/crash" &&
		nice -n 19 "$BUILD-asan/tests/sim/sim" --seed "$seed" --count 16 --jobs "$JOBS" &&
		ASAN_OPTIONS=detect_leaks=0 nice -n 19 "$BUILD-asan/tests/crash/crash" --states 300 --jobs "$JOBS" &&
		ASAN_OPTIONS=detect_leaks=0 nice -n 19 "$BUILD-asan/tests/crash/crash" --parity --states 500 --jobs "$JOBS"
}

cli() { BUILD="$BUILD" bash tests/proto/cli.sh && bash tests/proto/cli_diff.sh "$BUILD"; }
cli_asan() { BUILD="$BUILD-asan" bash tests/proto/cli.sh; }

# Both halves at once: most of the time they wait for something.
e2e() {
	local half pids=() bad=0
	for half in 1 2; do
		quiet_make BUILD="$BUILD" e2e E2E_CYCLES=6 E2E="\$(E2E_$half)" >"$logs/e2e-$half.log" 2>&1 &
		pids+=($!)
	done
	for half in 1 2; do
		wait "${pids[$((half - 1))]}" || bad=1
		cat "$logs/e2e-$half.log"
	done
	[ "$bad" -eq 0 ]
}

# Some that are found soon; all of them: make mutants (make nightly).
mutants="STRIPE_LOG_SKIPPED LOG_NOT_REPLAYED JOURNAL_BEFORE_DATA REUSE_AT_ONCE STALE_IS_CURRENT TARGET_SKIPS_WRITES SNAPSHOT_NOT_MARKED"

only=("$@")
step gcc build_gcc
step clang build_clang
step asan build_asan
step lint quiet_make BUILD="$BUILD" lint
step unit run_units "$BUILD"
step unit-asan unit_asan
if [[ " ${only[*]} " == *" unit-asan-all "* ]]; then # make nightly
	step unit-asan-all run_units "$BUILD-asan"
fi
# What end-to-end tests do is mostly to wait; what computes gives way to them.
quiet_make BUILD="$BUILD" "$BUILD/tests/sim/sim" "$BUILD/tests/crash/crash" "$BUILD/tests/e2e/no_uring" >/dev/null 2>&1
beside e2e e2e
step sim sim
step crash gentle_make BUILD="$BUILD" crash STATES=5000
step crash-parity gentle_make BUILD="$BUILD" crash PARITY=1 STATES=8000
step proof-asan proof_asan
joined e2e
step proto proto
beside cli cli
beside golden quiet_make BUILD="$BUILD" golden
step mutants gentle_make BUILD="$BUILD" mutants MUTANTS="$mutants"
step fuzz gentle_make BUILD="$BUILD" fuzz-smoke SMOKE_SECONDS=1
joined cli
joined golden
if [[ " ${only[*]} " == *" cli-asan "* ]]; then # make nightly
	step cli-asan cli_asan
fi
step tsan tsan
step bench-smoke quiet_make BUILD="$BUILD" bench-smoke
step demo bash tests/e2e/demo.sh "$BUILD"
step run $MAKE --no-print-directory BUILD="$BUILD" run RUN_ONCE=1
if [ "$failed" -gt 0 ]; then
	echo "failed: ${failed_names[*]}"
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
