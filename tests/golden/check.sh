#!/bin/bash
# Opens every golden image with today's program: the metadata must check, the volumes must hold what they held, it must go on
# working, and check again after that. usage: tests/golden/check.sh ASHLAR [PART OF AN IMAGE'S NAME]
. "$(dirname "$0")/lib.sh"
n_ok=0
n_bad=0

ok() { n_ok=$((n_ok + 1)); echo "ok - $1"; }
bad() { n_bad=$((n_bad + 1)); echo "not ok - $1"; sed 's/^/#   /' out serve.out 2>/dev/null | tail -n 20; }
try() { # NAME COMMAND...
	local name=$1
	shift
	if "$@" >out 2>&1; then ok "$name"; else bad "$name"; fi
}
same_sums() {
	local sum v
	while read -r sum v; do
		[ "$(volume "$v" sum)" = "$sum" ] || { echo "$v has changed"; return 1; }
	done <sums
}

# Streams that had been cut, as the lines of `resume` say: SNAPSHOT TOKEN VOLUME.
streams_go_on() {
	local snap token to
	[ "$("$ashlar" receive --list -H -o token | wc -l)" = "$(wc -l <resume)" ] || { echo "not all is kept"; return 1; }
	while read -r snap token to; do
		"$ashlar" send "$snap" --resume "$token" </dev/null | "$ashlar" receive "$to" || return 1
		[ "$(volume "$to" sum)" = "$(volume "$snap" sum)" ] || { echo "$to is not as $snap"; return 1; }
		sed -i "\\| $to\$|d" sums
	done <resume
	[ -z "$("$ashlar" receive --list -H -o token)" ] || { echo "something is kept still"; return 1; }
}

# Names, modes, limits and rules of exports, but for what has been made since.
same_exports() { diff exports <("$ashlar" export list -H -o name,volume,readonly,limit,allow | grep -v '^gold/today'); }

# What clients of each volume may do, but for those that have been made since.
same_limits() { diff limits <("$ashlar" volume list -Hp -o name,iops,bps,burstiops,burstbps,burstseconds | grep -v '^gold/today'); }

# Of the kinds in `jobs`, one a line: each goes on by itself.
jobs_end() {
	local kind i job
	"$ashlar" pool set gold pace-floor=100M pace-ceiling=0
	while read -r kind; do
		for job in $("$ashlar" job list gold -H -o kind,state,job | sed -n "s/^$kind.paused.//p"); do "$ashlar" job resume gold "$job"; done
		for i in $(seq 300); do
			"$ashlar" job list gold -H -o kind,state | grep -q "^$kind.done" && continue 2
			sleep 0.1
		done
		"$ashlar" job list gold
		return 1
	done <jobs
}

# What is exported by iSCSI.
same_luns() { diff luns <("$ashlar" export list --iscsi --json); }

for image in "$here"/*.tar.xz; do
	name=$(basename "$image" .tar.xz)
	[[ -z ${2:-} || $name = *"$2"* ]] || continue
	rm -f d? sums resume exports limits luns jobs source target
	tar --sparse -xJf "$image" || exit 1
	export ASHLAR_DISKS=$dir
	try "$name: checks before it is opened for writing" "$ashlar" pool check gold
	if ! start d?; then
		bad "$name: opens"
		continue
	fi
	ok "$name: opens"
	try "$name: volumes hold what they held" same_sums
	try "$name: a volume can be made" "$ashlar" volume create gold/today --size 8M
	try "$name: and written" volume gold/today fill 9 0 200 3
	[ ! -e jobs ] || try "$name: jobs go on, to their end" jobs_end
	[ ! -e resume ] || try "$name: streams that were cut go on" streams_go_on
	[ ! -e exports ] || try "$name: exports are as they were" same_exports
	[ ! -e limits ] || try "$name: limits are as they were" same_limits
	[ ! -e luns ] || try "$name: iSCSI exports are as they were" same_luns
	try "$name: others have not changed" same_sums
	try "$name: checks while it is served" "$ashlar" pool check gold
	try "$name: closes" stop TERM
	try "$name: checks again" "$ashlar" pool check gold
done
echo "$n_ok passed, $n_bad failed"
[ "$n_bad" = 0 ] && [ "$n_ok" -gt 0 ]
