#!/usr/bin/env bash
# Several reactors under the thread sanitizer: two volumes on two reactors, clients on each, management meanwhile.
# BUILD: a tree built with SAN=tsan.
set -u
cd "$(dirname "$0")/../.." || exit 1
ashlar=${BUILD:-build-tsan}/ashlar
tmp=$(mktemp -d)
pid=
trap '[ -n "$pid" ] && kill -9 "$pid" 2>/dev/null; rm -rf "$tmp"' EXIT
export TSAN_OPTIONS="exitcode=66 report_thread_leaks=0 log_path=$tmp/tsan"
ctl=$tmp/control.sock
failed=0
passed=0
check() {
	local what=$1
	shift
	if "$@" >>"$tmp/log" 2>&1; then
		passed=$((passed + 1))
		echo "ok - $what"
	else
		failed=$((failed + 1))
		echo "not ok - $what"
	fi
}
load() {
	fio --name=l --ioengine=nbd --uri="nbd+unix:///t/$1?socket=$tmp/nbd.sock" --rw=randrw --bsrange=512-64k --iodepth=16 \
		--size=64M --runtime=4 --time_based --verify=crc32c --verify_backlog=64 --fsync=50 --verify_fatal=1 \
		--aux-path="$tmp"
}
both() {
	load v1 >"$tmp/f1" 2>&1 &
	local a=$!
	load v2 >"$tmp/f2" 2>&1 &
	local b=$! i
	for i in 1 2 3 4; do
		"$ashlar" volume list --control "$ctl" >/dev/null || return 1
		"$ashlar" volume create "t/x$i" --size 8M --control "$ctl" >/dev/null || return 1
		"$ashlar" volume delete "t/x$i" --control "$ctl" >/dev/null || return 1
		"$ashlar" pool check t --control "$ctl" >/dev/null || return 1
		sleep 0.5
	done
	wait "$a" && wait "$b"
}
truncate -s 256M "$tmp/d1" "$tmp/d2" "$tmp/d3"
check "pool create" "$ashlar" pool create t --layout raid1 "$tmp/d1" "$tmp/d2" "$tmp/d3"
"$ashlar" serve --reactors 2 --control "$ctl" --nbd "unix:$tmp/nbd.sock" "$tmp/d1" "$tmp/d2" "$tmp/d3" >"$tmp/serve" 2>&1 &
pid=$!
for _ in $(seq 100); do grep -q '^ready' "$tmp/serve" && break; sleep 0.1; done
check "volume 1" "$ashlar" volume create t/v1 --size 64M --control "$ctl"
check "volume 2" "$ashlar" volume create t/v2 --size 64M --control "$ctl"
check "load on two reactors with management beside it" both
check "check while it is served" "$ashlar" pool check t --control "$ctl"
kill -TERM "$pid"
wait "$pid"
check "clean end" test $? -eq 0
pid=
check "pool check after it" env ASHLAR_DISKS="$tmp" "$ashlar" pool check t --data
if ls "$tmp"/tsan.* >/dev/null 2>&1; then
	failed=$((failed + 1))
	echo "not ok - data races"
	head -n 60 "$tmp"/tsan.*
else
	passed=$((passed + 1))
	echo "ok - no data race"
fi
[ "$failed" -eq 0 ] || tail -n 20 "$tmp/log" "$tmp/serve"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
