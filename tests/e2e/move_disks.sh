#!/bin/bash
# Disks join a served pool and leave it while clients write and verify what they read: a disk is added, data is evened out, a
# disk is evacuated, replaced, removed, and the daemon is killed in the middle of it. The clients must not notice the moves: no
# error, no reconnect, no wrong block. Afterwards check and scrub find nothing, and the disks that left are anybody's.
# usage: move_disks.sh BUILD [SECONDS per layout]
set -u
# shellcheck disable=SC2046
. "$(dirname "$0")/lib.sh"
need fio
seconds=${2:-8}
seed=${SEED:-$(date +%s)}
echo "# seed $seed"

json() { timeout 60 "$ashlar" "$@" --json >out 2>err </dev/null; }
disk_field() { # DISK FIELD
	json disk list demo && value "[d['$2'] for d in j if d['path'].endswith('/$1')][0]"
}
has_disk() { json disk list demo && [ "$(value "any(d['path'].endswith('/$1') for d in j)")" = True ]; }

clients_start() { # SECONDS
	"$py" "$here/stamp.py" write "$(uri demo/stamp)" state "$1" "$seed" >stamp.out 2>&1 &
	stamp=$!
	fio --name=load --ioengine=nbd "--uri=$(uri demo/load)" --verify=crc32c --verify_state_save=0 "--randseed=$seed" --rw=randwrite --bs=4k \
		--iodepth=16 --size=32m --verify_backlog=256 --time_based "--runtime=$1" >fio.out 2>&1 &
	load=$!
	pids+=("$stamp" "$load")
}
clients_end() { # NAME
	local r
	wait "$load"
	r=$?
	grep -aE '^fio: |^verify: |error=' fio.out | head -n 8 >out
	[ $r = 0 ] && ok "$1: fio: no error, no wrong block" || not_ok "$1: fio: no error, no wrong block (exit status $r)"
	wait "$stamp"
	cp stamp.out out
	says 'the time was over' "$1: the other client: no error"
}
look() { # NAME
	t 0 "$1: all that was flushed is there" "$py" "$here/stamp.py" check "$(uri demo/stamp)" state
	t 0 "$1: pool check --data" "$ashlar" pool check --data demo
	t 0 "$1: pool scrub finds nothing" "$ashlar" pool scrub demo --wait
}

# story LAYOUT DISKS: of the pool at first
story() {
	local layout=$1 n=$2 i names=() leave
	echo "# $layout"
	rm -rf disks state
	mkdir disks
	for i in $(seq $((n + 3))); do truncate -s 256M disks/d$i; done
	for i in $(seq "$n"); do names+=("d$i"); done
	ASHLAR_DISKS=$dir/disks
	(cd disks && "$ashlar" pool create demo --layout "$layout" "${names[@]}") >out 2>err || { not_ok "$layout: making the pool"; return; }
	for i in stamp load; do "$ashlar" volume create demo/$i --size 256M >out 2>err || not_ok "$layout: making a volume"; done
	serve --reactors 2 disks || { not_ok "$layout: the daemon starts"; return; }
	clients_start "$seconds"
	sleep 1
	t 0 "$layout: disk add, dry run" "$ashlar" disk add demo --dry-run "$dir/disks/d$((n + 1))"
	has_disk d$((n + 1)) && not_ok "$layout: it changes nothing" || ok "$layout: it changes nothing"
	t 0 "$layout: disk add" "$ashlar" disk add demo "$dir/disks/d$((n + 1))"
	refused "$layout: once is enough" already "$ashlar" disk add demo "$dir/disks/d$((n + 1))"
	t 0 "$layout: rebalance, dry run" "$ashlar" pool rebalance demo --dry-run
	t 0 "$layout: rebalance" "$ashlar" pool rebalance demo --wait
	# Of raid5, what has been written since the other disk came has a column on each of them, perhaps, and does with less then.
	t 0 "$layout: evacuate, dry run" "$ashlar" disk evacuate demo d1 --dry-run
	says 'would copy [0-9.]+[KMG]' "$layout: it says how much"
	t 0 "$layout: evacuate" "$ashlar" disk evacuate demo d1 --wait
	[ "$(disk_field d1 used_bytes)" = 0 ] && [ "$(disk_field d1 state)" = empty ] && ok "$layout: it is empty" || not_ok "$layout: it is empty"
	t 0 "$layout: it is put to use again" "$ashlar" disk online demo d1
	t 0 "$layout: replace" "$ashlar" disk replace demo d1 "$dir/disks/d$((n + 2))" --wait
	t 0 "$layout: remove another" "$ashlar" disk remove demo d2 --wait
	has_disk d2 && not_ok "$layout: it is gone" || ok "$layout: it is gone"
	clients_end "$layout"
	look "$layout"
	t 0 "$layout: what was removed is anybody's" "$ashlar" pool create other disks/d1 --layout single --dry-run

	# The daemon dies while a disk leaves: that goes on by itself.
	t 0 "$layout: a slow pace" "$ashlar" pool set demo pace-floor=1M pace-ceiling=1M
	t 0 "$layout: another is added" "$ashlar" disk add demo "$dir/disks/d$((n + 3))"
	json disk remove demo d3
	kill -KILL "$daemon_pid"
	wait "$daemon_pid" 2>/dev/null
	daemon_pid=
	serve --reactors 2 disks || { not_ok "$layout: the daemon starts again"; return; }
	json job list demo
	[ "$(value "any(x['kind'] in ('remove', 'replace') and x['state'] in ('running', 'waiting') for x in j)")" = True ] && ok "$layout: it goes on" ||
		not_ok "$layout: it goes on"
	i=$(value "[x['job'] for x in j if x['kind'] in ('remove', 'replace')][0]")
	t 0 "$layout: job pause" "$ashlar" job pause demo "$i"
	t 0 "$layout: job resume" "$ashlar" job resume demo "$i"
	t 0 "$layout: pool set" "$ashlar" pool set demo pace-floor=10M pace-ceiling=0
	t 0 "$layout: job wait" "$ashlar" job wait demo "$i"
	has_disk d3 && not_ok "$layout: it is gone, too" || ok "$layout: it is gone, too"
	look "$layout, killed"
	daemon_stop && ok "$layout: ends cleanly" || not_ok "$layout: ends cleanly"
	pids=()
}

story raid1 3
story raid5 3
done_
