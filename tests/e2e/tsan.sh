#!/bin/bash
# Two reactors at work for a few seconds: volumes on both, clients on all, commands in between. Meant for a build with
# ThreadSanitizer, whose reports fail it; with any other build it is a smoke test.
# usage: tsan.sh BUILD
set -u
. "$(dirname "$0")/lib.sh"
need fio qemu-img
export TSAN_OPTIONS="halt_on_error=0 exitcode=66 ${TSAN_OPTIONS:-}"

disks 512M d1 d2 d3
t 0 'pool create' "$ashlar" pool create demo --layout raid1 d1 d2 d3
serve --reactors 2 --metadata-cache 4M || not_ok 'the daemon starts'
fios=()
for i in 1 2 3 4; do
	t 0 'volume create' "$ashlar" volume create demo/v$i --size 256M
	fio --name=w --ioengine=nbd --uri="$(uri demo/v$i)" --rw=randwrite --bs=4k --iodepth=16 --size=64m --time_based --runtime=6 \
		--fsync=16 --verify=crc32c --verify_backlog=64 --verify_state_save=0 >fio$i.out 2>&1 &
	fios+=($!)
done
pids=("${fios[@]}")
for i in 1 2 3; do
	t 0 "status $i" "$ashlar" daemon status
	t 0 "connections $i" "$ashlar" connection list
	t 0 "pool show $i" "$ashlar" pool show demo
	t 0 "create $i" "$ashlar" volume create demo/x$i --size 64M
	t 0 "write $i" qemu-io -f raw -c 'write -P 3 0 8M' -c 'flush' -c 'discard 1M 2M' -c 'write -z 4M 1M' "$(uri demo/x$i)"
	t 0 "resize $i" "$ashlar" volume resize demo/x$i 128M
	t 0 "check $i" "$ashlar" pool check demo
	t 0 "delete $i" "$ashlar" volume delete demo/x$i
done
t 0 'delete by force while attached' "$ashlar" volume delete demo/v4 --force
for i in 0 1 2; do wait "${fios[$i]}" && ok "client $i" || { cp fio$((i + 1)).out out; not_ok "client $i"; }; done
wait "${fios[3]}"
pids=()
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
cp daemon.err err
! grep -q 'ThreadSanitizer' err && ok 'no reports' || { grep -A 30 -m 1 ThreadSanitizer err; not_ok 'no reports'; }
serve --reactors 2 && daemon_kill
t 0 'pool check --data' "$ashlar" pool check --data demo
done_
