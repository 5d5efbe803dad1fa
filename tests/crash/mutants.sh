#!/bin/bash
# Is every deliberately broken variant of the engine found? mutants.sh BUILD [JOBS] [NAME...]
# BUILD holds sim, crash and some unit tests built with -DASHLAR_MUTANTS. Runs are from fixed seeds, so the answer is always the same.
set -u
build=$1
jobs=${2:-1}
shift; shift
names=${*:-$(sed -n 's/^\tX(\([A-Z_]*\),.*/\1/p' "$(dirname "$0")/../../engine/base/mutant.h")}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
missed=0

found() { # name, tool, log
	printf '%-28s found by %-6s %s\n' "$1" "$2" "$(grep -m1 -h '^FAILED' "$3" | cut -c 9-90)"
}

units() { # NAME
	local t
	for t in engine_pool__move_pools engine_pool__leaving engine_pool__reshape raid__parity_crash; do
		MUTANT=$1 timeout 300 "$build/tests/unit/$t" >"$log" 2>&1 || { sed -i "1i FAILED: $t" "$log"; return 1; }
	done
}

for m in $names; do
	if ! "$build/tests/sim/sim" --seed 1 --count 150 --jobs "$jobs" --mutant "$m" >"$log" 2>&1; then
		found "$m" sim "$log"
	elif ! units "$m"; then
		found "$m" unit "$log"
	elif ! "$build/tests/crash/crash" --parity --points 8 --states 5000 --jobs "$jobs" --mutant "$m" >"$log" 2>&1; then
		found "$m" crash "$log"
	elif ! "$build/tests/crash/crash" --states 10000 --jobs "$jobs" --mutant "$m" >"$log" 2>&1; then
		found "$m" crash "$log"
	else
		printf '%-28s NOT FOUND\n' "$m"
		missed=$((missed + 1))
	fi
done
echo "mutants: $(wc -w <<<"$names") broken variants, $missed not found"
exit $((missed != 0))
