#!/bin/bash
# A volume goes through layouts, to another pool and back while fio writes to it and verifies what it wrote: no error, no new
# connection. Then the daemon is killed in the middle of moves. Then a family of a volume, 50 snapshots and 10 clones moves under load,
# and takes no more space than before.
# usage: move.sh BUILD [KILLS]
set -u
. "$(dirname "$0")/lib.sh"
need fio nbdcopy
kills=${2:-6}

used() { "$ashlar" pool show "$1" --json >out 2>err && value 'j["used_bytes"]'; }
# move NAME ARG...: with --wait, and it must end well
move() {
	local name=$1
	shift
	t 0 "$name" "$ashlar" "$@" --wait
	says 'done' "$name is done"
}

disks 512M a1 a2 a3 a4 b1 b2 b3
t 0 'a pool' "$ashlar" pool create a --layout raid1 a1 a2 a3 a4
t 0 'another pool' "$ashlar" pool create b --layout raid1 b1 b2 b3
serve && ok 'the daemon' || { not_ok 'the daemon'; done_; }
t 0 'a volume' "$ashlar" volume create a/v --size 128M

# ---- in use ----
fio --name=job --ioengine=nbd "--uri=$(uri a/v)" --rw=randwrite --bsrange=4k-128k --iodepth=16 --size=128m --time_based --runtime=600 \
	--verify=crc32c --verify_backlog=64 --verify_state_save=0 --rate=24m --output=fio.out >fio.log 2>&1 &
fio_pid=$!
pids+=("$fio_pid")
sleep 1
for layout in raid5 raid6 raid1; do
	move "to $layout while it is in use" volume set a/v --layout $layout
	"$ashlar" volume show a/v --json >out 2>err
	[ "$(value 'j["layout"]')" = $layout ] && ok "it has layout $layout" || not_ok "it has layout $layout"
done
t 0 'a dry run' "$ashlar" volume move a/v b --dry-run
says 'nothing was changed' 'a dry run changes nothing'
move 'to the other pool' volume move a/v b
t 0 'it is there' "$ashlar" volume show b/v
t 1 'and not here' "$ashlar" volume show a/v
move 'and back' volume move b/v a --layout raid5
kill -0 $fio_pid 2>/dev/null && ok 'fio is still writing' || not_ok 'fio is still writing'
"$ashlar" volume show a/v --json >out 2>err
[ "$(value 'j["attached"]')" = 1 ] && ok 'its connection is the one it had' || not_ok 'its connection is the one it had'
kill -INT $fio_pid
wait $fio_pid
r=$?
cp fio.log err
cp fio.out out
[ $r = 0 ] || [ $r = 128 ] || [ $r = 130 ]
[ $? = 0 ] && ! grep -Eqi 'verify:|error|bad' fio.log && grep -Eq 'err= 0' fio.out && ok 'every block that fio wrote was right' ||
	not_ok "every block that fio wrote was right ($r)"
t 0 'pool check' "$ashlar" pool check a --data

# ---- killed in the middle ----
dd if=/dev/urandom of=v.img bs=1M count=96 status=none
truncate -s 128M v.img
t 0 'data' nbdcopy v.img "$(uri a/v)"
t 0 'slow moves' "$ashlar" pool set a pace-floor=16M pace-ceiling=48M
"$ashlar" volume move a/v b --layout raid1 --json >out 2>err
job=$(value 'j["job"]')
t 1 'a pool that something is on its way to is not destroyed' "$ashlar" pool destroy b
says 'being moved to pool b from pool a' 'and it says so'
t 0 'stop' "$ashlar" job stop a "$job"
t 1 'who waits is told that it was stopped' "$ashlar" job wait a "$job"
from=a to=b
for i in $(seq "$kills"); do
	if [ $((i % 2)) = 1 ]; then
		"$ashlar" volume move $from/v $to --layout raid1 >out 2>err || not_ok "move $i begins"
		from_now=$to to_now=$from
	else
		"$ashlar" volume set $from/v --layout "$([ $((i % 4)) = 0 ] && echo raid1 || echo raid5)" >out 2>err || not_ok "move $i begins"
		from_now=$from to_now=$to
	fi
	sleep "0.$((RANDOM % 9))"
	sleep $((RANDOM % 3))
	daemon_kill a1
	serve || not_ok "the daemon again, $i"
	for j in $(seq 300); do
		"$ashlar" volume list --json >out 2>err
		[ "$(value '[v["name"] for v in j] == ["'$from_now'/v"] and not j[0]["moving"]')" = True ] && break
		sleep 0.1
	done
	[ "$j" -lt 300 ] && ok "move $i has gone on to its end" || not_ok "move $i has gone on to its end"
	from=$from_now to=$to_now
	"$ashlar" export list --json >out 2>err
	nbdcopy "$(uri "$(value 'j[0]["name"]')")" back.img 2>err && cmp v.img back.img >out 2>&1 && ok "every byte is right after kill $i" ||
		not_ok "every byte is right after kill $i"
	rm -f back.img
done
t 0 'by the volume its export is found' "$ashlar" export show $from/v
says '^name +a/v' 'whatever its name'
t 0 'and by its name' "$ashlar" export show a/v
says "^volume +$from/v" 'wherever the volume is'

# ---- cancelled by somebody else: who waits is told that it is not done ----
t 0 'slow moves again' "$ashlar" pool set $from pace-floor=2M pace-ceiling=2M
"$ashlar" volume set $from/v --layout raid0 --wait >wait.out 2>&1 &
wait_pid=$!
pids+=("$wait_pid")
for j in $(seq 100); do
	"$ashlar" job list $from --json >out 2>err
	[ "$(value 'any(x["kind"] == "move" and x["state"] == "running" and 0 < x["done_bytes"] < x["total_bytes"] for x in j)')" = True ] && break
	sleep 0.1
done
[ "$j" -lt 100 ] && ok 'the job says how much there is to be copied' || not_ok 'the job says how much there is to be copied'
t 0 'it is cancelled' "$ashlar" job stop $from "$(value '[x["job"] for x in j if x["kind"] == "move" and x["state"] == "running"][0]')"
wait $wait_pid
[ $? = 1 ] && grep -q 'stopped: it was cancelled' wait.out && ok 'who waits for it is told so' || { cp wait.out out; not_ok 'who waits for it is told so'; }
t 0 'pool check a' "$ashlar" pool check a --data
t 0 'pool check b' "$ashlar" pool check b --data
t 0 'the volume goes' "$ashlar" volume delete $from/v

# ---- a large family ----
t 0 'fast moves' "$ashlar" pool set a pace-floor=200M pace-ceiling=0
t 0 'the volume' "$ashlar" volume create a/f --size 64M
dd if=/dev/urandom of=f.img bs=1M count=32 status=none
truncate -s 64M f.img
t 0 'its data' nbdcopy f.img "$(uri a/f)"
bad=0
for i in $(seq 50); do
	"$ashlar" snapshot create a/f@s$i >out 2>err || bad=1
	fio --name=w --ioengine=nbd "--uri=$(uri a/f)" --rw=randwrite --bs=4k --iodepth=8 --size=64m --io_size=64k --randseed=$i >fio.log 2>&1 || bad=1
	[ $((i % 5)) = 0 ] && { "$ashlar" clone a/f@s$i c$i >out 2>err || bad=1; }
done
[ $bad = 0 ] && ok '50 snapshots, 10 clones' || not_ok '50 snapshots, 10 clones'
"$ashlar" snapshot diff a/f@s10 a/f@s40 >diff.before 2>err || not_ok 'a difference'
# what is written meanwhile: one place, which nobody shares
fio --name=once --ioengine=nbd "--uri=$(uri a/c50)" --rw=write --bs=64k --size=1m >fio.log 2>&1
fio --name=load --ioengine=nbd "--uri=$(uri a/c50)" --rw=randwrite --bs=4k --iodepth=4 --size=1m --time_based --runtime=600 --verify=crc32c \
	--verify_backlog=16 --verify_state_save=0 --output=load.out >load.log 2>&1 &
load_pid=$!
pids+=("$load_pid")
sleep 1
before=$(used a)
for where in "volume set a/f --layout raid5" "volume move a/f b --layout raid1" "volume move b/f a --layout raid1"; do
	# shellcheck disable=SC2086
	move "$where" $where
	pool=a
	[[ $where = *"f b"* ]] && pool=b
	for j in $(seq 100); do
		after=$(used $pool)
		[ "$after" -le $((before + before / 50)) ] && break
		sleep 0.2
	done
	echo "# $before bytes before, $after after"
	[ "$after" -le $((before + before / 50)) ] && [ "$after" -ge $((before - before / 20)) ] && ok 'it takes what it took' || not_ok 'it takes what it took'
	"$ashlar" snapshot diff $pool/f@s10 $pool/f@s40 >diff.after 2>err
	cmp diff.before diff.after >out 2>&1 && ok 'the same has changed between two snapshots' || not_ok 'the same has changed between two snapshots'
done
kill -INT $load_pid
wait $load_pid
! grep -Eqi 'verify:|error|bad' load.log && grep -Eq 'err= 0' load.out && ok 'the client of a clone noticed nothing' || not_ok 'the client of a clone noticed nothing'
t 0 'pool check' "$ashlar" pool check a --data
daemon_stop && ok 'the daemon ends in order' || not_ok 'the daemon ends in order'
done_
