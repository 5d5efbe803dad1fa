#!/bin/bash
# A volume goes to another NBD server while a client writes: no error, no new connection; it is served from there, also after
# kill -9, until it is deleted; with the server away clients get errors, and go on when it is back.
# usage: move_out.sh BUILD
set -u
# shellcheck disable=SC2046
. "$(dirname "$0")/lib.sh"
need fio nbdcopy qemu-nbd

remote() {
	qemu-nbd -f raw -k "$dir/far.sock" -x far --persistent -e 8 far >/dev/null 2>&1 &
	far=$!
	pids=("$far")
	for _ in $(seq 100); do [ -S far.sock ] && return; sleep 0.05; done
}
remote_end() {
	kill -KILL "$far"
	wait "$far" 2>/dev/null
	pids=()
	rm -f far.sock
}
job() { # OFFSET-MIB: fio's arguments
	echo fio --name=job --ioengine=nbd "--uri=$(uri demo/v)" --bs=4k --iodepth=16 --offset="$1m" --size=8m --rw=randwrite \
		--verify=crc32c --verify_state_save=0 --randseed="$1"
}
target="nbd+unix:///far?socket=$dir/far.sock"

disks 512M d1 d2 d3 d4
truncate -s 64M far
t 0 'pool create' "$ashlar" pool create demo --layout raid1 d1 d2 d3
serve --reactors 2 || { not_ok 'the daemon starts'; done_; }
t 0 'volume create' "$ashlar" volume create demo/v --size 64M
t 0 'the volume has something' $(job 0) --end_fsync=1
t 0 'pace' "$ashlar" pool set demo pace-floor=2M pace-ceiling=2M
remote
refused 'not to itself' 'is the volume demo/v itself' "$ashlar" volume move demo/v "nbd+unix:///demo/v?socket=$nbd"
refused 'nor in thought' 'is the volume demo/v itself' "$ashlar" volume move demo/v "nbd+unix:///demo/v?socket=$nbd" --dry-run
t 0 'another volume' "$ashlar" volume create demo/w --size 64M
refused 'nor to another export of the same daemon' 'export of this same daemon' "$ashlar" volume move demo/v "nbd+unix:///demo/w?socket=$nbd"
refused 'nor does one come from there' 'export of this same daemon' "$ashlar" volume create demo/x --from "nbd+unix:///demo/w?socket=$nbd"
refused 'which is no disk of its pools either' 'export of this same daemon' "$ashlar" disk add demo "nbd+unix:///demo/w?socket=$nbd"
t 0 'another pool' "$ashlar" pool create spare --layout single "$PWD/d4"
refused 'nor over a disk of a pool' 'belongs to pool spare' "$ashlar" volume move demo/w "$PWD/d4"
t 0 'dry run' "$ashlar" volume move demo/v "$target" --dry-run
says 'would be moved' 'it says so'
$(job 16) --do_verify=0 --end_fsync=1 --time_based --runtime=8 --rate=4m >fio.out 2>&1 &
fio=$!
pids+=("$fio")
sleep 1
t 0 'volume move' "$ashlar" volume move demo/v "$target"
refused 'no other goes to the same target' 'takes no other' "$ashlar" volume move demo/w "$target" --force
refused 'nor is it a disk' 'takes no other' "$ashlar" disk add demo "$target" --force
refused 'it cannot go to another layout meanwhile' 'being moved already' "$ashlar" volume set demo/v --layout raid1-3
t 0 'it arrives' "$ashlar" job wait demo 1
"$ashlar" job list demo >out
says 'served from there' 'the job is done'
refused 'no other goes there afterwards' 'takes no other' "$ashlar" volume move demo/w "$target" --force
t 0 'volume delete' "$ashlar" volume delete demo/w
wait "$fio" && ok 'the client has seen no error' || { cp fio.out out; not_ok 'the client has seen no error'; }
t 0 'what it wrote before, meanwhile and after is there' $(job 16) --verify_only
t 0 'and what was there before' $(job 0) --verify_only
nbdcopy "$(uri demo/v)" now && cmp -s now far && ok 'the far image is the volume' || not_ok 'the far image is the volume'
refused 'no snapshots of it' 'has been moved' "$ashlar" snapshot create demo/v@a
daemon_kill
serve --reactors 2 || { not_ok 'the daemon starts'; done_; }
t 0 'after kill -9 it is served from there' $(job 16) --verify_only
t 0 'and written there' $(job 32) --end_fsync=1
nbdcopy "$(uri demo/v)" now && cmp -s now far && ok 'the far image is the volume' || not_ok 'the far image is the volume'
remote_end
t ! 'without the server there are errors' $(job 32) --verify_only
t 0 'events' "$ashlar" events
says 'does not answer' 'an event says so'
remote
sleep 4
t 0 'with it everything is there' $(job 32) --verify_only
t 0 'where it is' "$ashlar" volume show demo/v
says '^moving +is at nbd' 'volume show says where it is'
t 0 'volume delete' "$ashlar" volume delete demo/v
cmp -s now far && ok 'the far image stays' || not_ok 'the far image stays'
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
t 0 'pool check --data' "$ashlar" pool check --data demo
done_
