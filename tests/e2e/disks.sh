#!/bin/bash
# Disks lost under load: while clients write and verify what they read, a disk (of raid6: two) is deleted, cut short, overwritten
# with zeros, or stops answering. The clients must not notice: no error, no reconnect, no wrong block. The pool must notice
# by itself, say which disk and why, and rebuild what the disk held on the others: afterwards scrub and check find nothing, and
# another disk can be lost. Disks that come back are resynced, not copied; one that was overwritten is refused.
# Two clients: fio, which verifies each block a little after it has written it, and one that stamps sectors (stamp.py) and is
# asked afterwards whether all that it flushed is there. A third volume is written before and read at the end.
# usage: disks.sh BUILD [quick|long]
set -u
# shellcheck disable=SC2046
. "$(dirname "$0")/lib.sh"
need fio qemu-io
what=${2:-quick}
seed=${SEED:-$(date +%s)}
echo "# seed $seed, $what"
mounts=()

# A frozen disk must be let go of before it can be taken away.
thaw_all() {
	local p m
	for p in "${pids[@]}"; do kill -CONT "$p" 2>/dev/null; done
	[ -z "$daemon_pid" ] || { kill -KILL "$daemon_pid"; wait "$daemon_pid"; daemon_pid=; } 2>/dev/null
	for m in "${mounts[@]}"; do umount "$m" 2>/dev/null || umount -l "$m"; done
	mounts=()
}
trap 'thaw_all; cleanup' EXIT

json() { timeout 60 "$ashlar" "$@" --json >out 2>err </dev/null; }
# until SECONDS NAME COMMAND...: waits until the command succeeds
until_() {
	local end=$((SECONDS + $1)) name=$2
	shift 2
	while ! "$@"; do
		[ $SECONDS -lt $end ] || { not_ok "$name"; return 1; }
		sleep 0.1
	done
	ok "$name"
}
# said DISK TYPE REGEX: has there been such an event about that disk?
said() {
	timeout 20 "$ashlar" events --json >out 2>err || return 1
	"$py" - "$@" <<-'EOF'
		import json, re, sys
		disk, kind, sentence = sys.argv[1:]
		for line in open("out"):
		    e = json.loads(line)
		    if e["type"] == kind and e.get("disk", "").endswith(disk) and re.search(sentence, e["text"]):
		        sys.exit(0)
		sys.exit(1)
	EOF
}
is_redundant() {
	json pool show demo && [ "$(value 'j["redundancy"] == j["redundancy_promised"] and j["groups_degraded"] == 0')" = True ]
}
# The last job of that kind has ended well.
job_done() {
	json job list demo && [ "$(value "[x['state'] for x in j if x['kind'] == '$1'][-1:]")" = "['done']" ]
}

# ---- disks ----

# fuse_disk NAME SIZE: a disk behind a file system that is a process, which can be stopped
fuse_disk() {
	local i
	mkdir "$1.d"
	nbdkit -f -U "$dir/$1.sock" memory "$2" >/dev/null 2>&1 &
	eval "server_$1=$!"
	pids+=($!)
	for i in $(seq 100); do [ -S "$1.sock" ] && break; sleep 0.05; done
	nbdfuse "$1.d/$1" --unix "$dir/$1.sock" >/dev/null 2>&1 &
	eval "fuse_$1=$!"
	pids+=($!)
	for i in $(seq 100); do mountpoint -q "$1.d" && break; sleep 0.05; done
	mounts+=("$dir/$1.d")
	ln -s "../$1.d/$1" "disks/$1"
}
can_fuse() {
	command -v nbdkit >/dev/null && command -v nbdfuse >/dev/null && [ -w /dev/fuse ] || { echo "# skipped: FUSE cannot be used here"; return 1; }
}

# What is done to a disk, and what the pool must call it.
reason_of() {
	case $1 in
	deleted) echo 'deleted|gone' ;;
	emptied | halved) echo 'shrunk|short|small|label' ;;
	zeroed) echo 'label|overwritten' ;;
	frozen | hung) echo 'answer' ;;
	esac
}
hurt() { # FAULT DISK
	local i size v
	size=$(stat -L -c %s "disks/$2" 2>/dev/null)
	case $1 in
	deleted) rm "disks/$2" ;;
	emptied) truncate -s 0 "disks/$2" ;;
	halved) truncate -s $((size / 2)) "disks/$2" ;;
	zeroed)
		for i in $(seq 0 $((size / 2097152 - 1))); do
			dd if=/dev/zero of="disks/$2" bs=256k count=8 seek=$((i * 8)) conv=notrunc oflag=direct status=none
			sleep 0.01
		done
		;;
	frozen) v=server_$2; kill -STOP "${!v}" ;;
	hung) v=fuse_$2; kill -STOP "${!v}" ;; # not even stat() comes back
	esac
}

# ---- clients ----

# fio_args VOLUME ARG...
fio_args() {
	local volume=$1
	shift
	echo fio --name=job --ioengine=nbd "--uri=$(uri "demo/$volume")" --verify=crc32c --verify_state_save=0 "--randseed=$seed" "$@"
}
still_args() { fio_args still --rw=write --bs=64k --iodepth=8 "--size=$still" "$@"; }
clients_start() { # SECONDS
	"$py" "$here/stamp.py" write "$(uri demo/stamp)" state "$1" "$seed" >stamp.out 2>&1 &
	stamp=$!
	$(fio_args load --rw=randwrite --bs=4k --iodepth=16 --size=32m --verify_backlog=256 --time_based "--runtime=$1") >fio.out 2>&1 &
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
	sed 's/^/# /' stamp.out
}
intact() { # NAME
	t 0 "$1: all that was flushed is there" "$py" "$here/stamp.py" check "$(uri demo/stamp)" state
	t 0 "$1: what nobody writes is unchanged" $(still_args --verify_only)
}

# ---- pools ----

n_disks() {
	# Groups of parity layouts have up to 10 columns; what a rebuild needs is a disk that has none yet.
	case $1 in
	raid1) echo 4 ;;
	raid10) echo 5 ;;
	raid5) echo 11 ;;
	raid6) echo 12 ;;
	esac
}
disk_size() { case $1 in raid1*) echo 256M ;; *) echo 96M ;; esac; }
# make LAYOUT SIZE [DISK...]: a pool of files, the disks named among them behind FUSE; served
make() {
	local i names=() layout=$1 size=$2
	shift 2
	rm -rf disks away state
	mkdir disks away
	for i in $(seq "$(n_disks "$layout")"); do
		names+=("d$i")
		if [[ " $* " == *" d$i "* ]]; then fuse_disk "d$i" "$size"; else truncate -s "$size" "disks/d$i"; fi
	done
	ASHLAR_DISKS=$dir/disks
	(cd disks && "$ashlar" pool create demo --layout "$layout" "${names[@]}") >out 2>err || { not_ok "$layout: making the pool"; return 1; }
	for i in stamp load still; do "$ashlar" volume create demo/$i --size 512M >out 2>err || not_ok "$layout: making a volume"; done
	serve --reactors 2 disks || { not_ok "$layout: the daemon starts"; return 1; }
	t 0 "$layout: pool set" "$ashlar" pool set demo timeout=2s hedge=50ms rebuild-delay=0
	$(still_args --do_verify=0 --end_fsync=1) >out 2>err || not_ok "$layout: writing"
}
unmake() { # NAME
	daemon_stop && ok "$1: ends cleanly" || not_ok "$1: ends cleanly"
	for p in "${mounts[@]}"; do umount "$p" || umount -l "$p"; done
	for p in "${pids[@]}"; do kill -KILL "$p"; wait "$p"; done 2>/dev/null
	mounts=()
	pids=()
	rm -rf ./*.d ./*.sock
}

# lose SECONDS LAYOUT DISK=FAULT...: the story told above
lose() {
	local seconds=$1 layout=$2 name x slow=()
	shift 2
	name="$layout $*"
	for x; do case $x in *=frozen | *=hung) can_fuse || return; slow+=("${x%=*}") ;; esac; done
	echo "# $name"
	make "$layout" "$(disk_size "$layout")" "${slow[@]}" || return
	clients_start "$seconds"
	sleep 1
	for x; do hurt "${x#*=}" "${x%=*}"; done
	for x; do until_ 15 "$name: it notices, and says which and why: $x" said "${x%=*}" disk.out "$(reason_of "${x#*=}")"; done
	clients_end "$name"
	until_ 60 "$name: full redundancy again" is_redundant
	until_ 10 "$name: the rebuild's end is told" job_done rebuild
	t 0 "$name: pool scrub finds nothing" "$ashlar" pool scrub demo --wait
	t 0 "$name: pool check --data" "$ashlar" pool check --data demo
	t 0 "$name: another disk fails" "$ashlar" disk fail demo d4
	intact "$name"
	daemon_lives && ok "$name: the daemon lives" || not_ok "$name: the daemon lives"
	for x in "${pids[@]}"; do kill -CONT "$x" 2>/dev/null; done
	unmake "$name"
}

# A disk that did not answer for a while gets what it has missed, and no more. One that is overwritten while it is out is refused.
return_() { # LAYOUT
	local name="$1: a disk comes back" used before copied
	can_fuse || return
	echo "# $name"
	make "$1" 256M d2 || return
	t 0 "$name: pool set" "$ashlar" pool set demo rebuild-delay=forever
	json disk list demo
	used=$(value '[d["used_bytes"] for d in j if d["path"].endswith("/d2")][0]')
	before=$(value '[d["bytes_written"] for d in j if d["path"].endswith("/d2")][0]')
	kill -STOP "$server_d2"
	t 0 "$name: something is written" qemu-io -f raw -c 'write -P 7 64k 1M' -c flush "$(uri demo/load)"
	until_ 15 "$name: it is missed" said d2 disk.out answer
	t 0 "$name: more is written" qemu-io -f raw -c 'write -P 8 2M 64k' -c flush "$(uri demo/load)"
	kill -CONT "$server_d2"
	until_ 15 "$name: disk online" timeout 10 "$ashlar" disk online demo d2
	until_ 30 "$name: full redundancy again" is_redundant
	# The job also counts what it has only compared: metadata groups are looked at as a whole.
	json disk list demo
	copied=$(value '[d["bytes_written"] for d in j if d["path"].endswith("/d2")][0]')
	copied=$((copied - before))
	echo "# $copied bytes written of $used in use"
	[ "$copied" -ge 65536 ] && [ "$copied" -lt $((used / 4)) ] && ok "$name: only what it has missed" || not_ok "$name: only what it has missed"
	t 0 "$name: pool scrub finds nothing" "$ashlar" pool scrub demo --wait
	t 0 "$name: another disk fails" "$ashlar" disk fail demo d3
	dd if=/dev/zero of=disks/d3 bs=1M count=256 conv=notrunc status=none
	refused "$name: overwritten with zeros, the other is refused" 'label|overwritten' "$ashlar" disk online demo d3
	says 'd3' "$name: it is named"
	t 0 "$name: without the other, what came back is read" qemu-io -f raw -c 'read -P 7 64k 1M' -c 'read -P 8 2M 64k' "$(uri demo/load)"
	t 0 "$name: what nobody writes is unchanged" $(still_args --verify_only)
	unmake "$name"
}

still=16m
if [ "$what" = quick ]; then
	lose 3 raid1 d2=zeroed
	lose 3 raid10 d1=emptied
	lose 4 raid5 d3=frozen
	lose 3 raid6 d2=deleted d7=halved
	still=96m
	return_ raid5
else
	for layout in raid1 raid10 raid5; do
		for fault in deleted emptied halved zeroed frozen hung; do lose 12 $layout d2=$fault; done
	done
	lose 12 raid6 d2=deleted d3=emptied
	lose 12 raid6 d1=halved d6=zeroed
	lose 12 raid6 d2=zeroed d3=zeroed
	lose 12 raid6 d2=frozen d3=hung
	lose 12 raid6 d5=frozen d8=deleted
	still=192m
	for layout in raid1 raid10 raid5 raid6; do return_ $layout; done
fi
done_
