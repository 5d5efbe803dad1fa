#!/bin/bash
# kill -9 of the daemon in the middle of writes, and a restart: everything that was completed is there, flushed or not, nothing else than
# old or new is ever read, and the pool checks clean. Each cycle with two clients: one of our own that stamps sectors and
# remembers what was completed (stamp.py), and fio.
# usage: kill9.sh BUILD [CYCLES]       SEED=N: the same requests again (not the same moments)
set -u
# shellcheck disable=SC2046
. "$(dirname "$0")/lib.sh"
need fio
cycles=${2:-10}
seed=${SEED:-$(date +%s)}
RANDOM=$((seed % 32768))
echo "# seed $seed, $cycles cycles"

# job CYCLE AREA: fio's arguments for the CYCLE-th 8 MiB of the second volume's half AREA
job() {
	echo fio --name=job --ioengine=nbd "--uri=$(uri demo/fio)" --bs=4k --iodepth=16 --offset=$((($1 % 8) * 8 + $2 * 64))m --size=8m \
		--rw=randwrite --verify=crc32c --verify_state_save=0 --randseed="$seed"
}

t 0 'the client knows what was completed' "$py" "$here/stamp.py" self
disks 512M d1 d2 d3 d4
t 0 'pool create' "$ashlar" pool create demo --layout raid1 d1 d2 d3 d4
t 0 'volume create' "$ashlar" volume create demo/stamp --size 1G
t 0 'volume create' "$ashlar" volume create demo/fio --size 1G
for i in $(seq "$cycles"); do
	serve --reactors 2 || { not_ok "cycle $i: the daemon starts"; break; }
	if [ "$i" -gt 1 ]; then
		t 0 "cycle $i: all that was completed is there" "$py" "$here/stamp.py" check "$(uri demo/stamp)" state
		sed 's/^/# /' out
		t 0 "cycle $i: fio finds what it wrote and flushed" $(job $((i - 1)) 0) --verify_only
	fi
	$(job "$i" 0) --end_fsync=1 --do_verify=0 >out 2>err || not_ok "cycle $i: fio writes"
	"$py" "$here/stamp.py" write "$(uri demo/stamp)" state 20 $((seed + i)) >stamp.out 2>&1 &
	stamp=$!
	$(job "$i" 1) --fsync=20 --do_verify=0 --time_based --runtime=20 >/dev/null 2>&1 &
	fio=$!
	pids=("$stamp" "$fio")
	sleep "$((RANDOM % 2)).$((RANDOM % 5 + 5))"
	daemon_kill
	wait "$stamp" || { cp stamp.out out; not_ok "cycle $i: the client"; }
	wait "$fio"
	pids=()
	sed "s/^/# cycle $i: /" stamp.out
	[ -n "$(find "$ASHLAR_KEEP_DIR" -name 'ashlar-*')" ] || not_ok "cycle $i: the journal's tail is kept"
	t 0 "cycle $i: pool check" "$ashlar" pool check demo
done
if serve; then
	t 0 'the end: all that was completed is there' "$py" "$here/stamp.py" check "$(uri demo/stamp)" state
	t 0 'the end: fio finds what it wrote and flushed' $(job "$cycles" 0) --verify_only
	daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
	[ -z "$(find "$ASHLAR_KEEP_DIR" -name 'ashlar-*')" ] && ok 'nothing is kept then' || not_ok 'nothing is kept then'
else
	not_ok 'the daemon starts'
fi
t 0 'pool check --data' "$ashlar" pool check --data demo
done_
