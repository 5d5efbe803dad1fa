#!/bin/bash
# Disks that are foreign, copied, missing, stale, shortened, overwritten, or in use: each ends in a sentence or in right data,
# never in a loss.
# usage: damage.sh BUILD
set -u
. "$(dirname "$0")/lib.sh"
need mke2fs qemu-img nbdcopy qemu-io

sums() { sha256sum "$@" | cut -d' ' -f1; }
# unchanged NAME BEFORE FILE...
unchanged() {
	local name=$1 before=$2
	shift 2
	[ "$(sums "$@")" = "$before" ] && ok "$name: bytes unchanged" || not_ok "$name: bytes unchanged"
}
# intact NAME: the volume holds what was written last (data.img)
intact() { t 0 "$1: data intact" qemu-img compare -f raw -F raw data.img "$(uri "$pool/v1")"; }
# write_new: other contents for the whole volume, and a flush
write_new() {
	head -c 16M /dev/urandom >data.img
	nbdcopy --flush data.img "$(uri "$pool/v1")" >out 2>err || not_ok 'writing the volume'
}
stop() { daemon_stop && ok "$1: ends cleanly" || not_ok "$1: ends cleanly"; }
check() { t 0 "$1: pool check --data" "$ashlar" pool check --data "$pool"; }
health() { "$ashlar" pool show $pool --json >out 2>err; value 'j["health"]'; }
# until_health WANT NAME
until_health() {
	local i
	for i in $(seq 150); do
		[ "$(health)" = "$1" ] && { ok "$2"; return; }
		sleep 0.1
	done
	not_ok "$2 (health: $(health))"
}
# make NAME LAYOUT DISK...: a pool with a volume full of data, closed again; its disks are all there is
make() {
	pool=$1
	rm -rf disks away
	mkdir disks away
	disks 128M "${@:3}"
	ASHLAR_DISKS=$dir/disks
	mv "${@:3}" disks
	(cd disks && "$ashlar" pool create "$pool" --layout "$2" "${@:3}" && "$ashlar" volume create "$pool/v1" --size 16M) >out 2>err ||
		not_ok "making pool $pool"
	serve disks || not_ok "serving pool $pool"
	write_new
	daemon_stop
}

echo '# pool create'
mkdir fs.d
echo 'a file' >fs.d/file
truncate -s 64M fs.img
mke2fs -q -F -t ext4 -d fs.d fs.img
disks 64M blank
before=$(sums fs.img blank)
refused 'an ext4 file system' 'ext4.*--force|--force.*ext4' "$ashlar" pool create x fs.img
refused 'an ext4 file system after a blank disk' 'ext4' "$ashlar" pool create x blank fs.img
unchanged 'both' "$before" fs.img blank
qemu-img convert -f raw -O qcow2 fs.img fs.qcow2
truncate -s 64M fs.qcow2
before=$(sums fs.qcow2)
refused 'the same disk twice' 'twice|same' "$ashlar" pool create x blank ./blank
ln -s blank link
refused 'the same disk by a symbolic link' 'twice|same' "$ashlar" pool create x blank link

echo '# two owners'
make demo raid1 d1 d2
before=$(sums disks/d1 disks/d2)
refused 'a disk of another pool' 'demo' "$ashlar" pool create x disks/d1
unchanged 'it' "$before" disks/d1 disks/d2
serve disks || not_ok 'the daemon starts'
refused 'a second daemon' 'in use|another process' "$ashlar" serve --control "$dir/c2" --nbd "unix:$dir/n2" disks
intact 'the first goes on'
kill -STOP "$daemon_pid"
refused 'a second daemon beside a stopped one' 'in use|another process' "$ashlar" serve --control "$dir/c2" --nbd "unix:$dir/n2" disks
t 1 'pool create --force on its disks' "$ashlar" pool create x --force --control "$dir/c2" disks/d1
kill -CONT "$daemon_pid"
intact 'it goes on after SIGCONT'
stop 'the first'
check 'two owners'

echo '# a copy'
cp --sparse=always disks/d1 disks/copy
refused 'serving with a byte-for-byte copy' 'copy|same|identity|duplicate|twice' "$ashlar" serve --control "$dir/c2" --nbd "unix:$dir/n2" disks
says 'disks/copy' 'the copy is named'
says 'disks/d1' 'the original is named'
mv disks/copy away
serve disks || not_ok 'without it: the daemon starts'
write_new
stop 'without it'
mv away/copy disks # now an old one
before=$(sums disks/d1 disks/d2 disks/copy)
refused 'serving with an old copy' 'copy|same|identity|duplicate|twice' "$ashlar" serve --control "$dir/c2" --nbd "unix:$dir/n2" disks
unchanged 'all three' "$before" disks/d1 disks/d2 disks/copy
rm disks/copy
serve disks || not_ok 'without it: the daemon starts'
intact 'without the copy'
stop 'without the copy'

echo '# missing disks'
make demo raid1 d1 d2 d3 d4
before=$(sums disks/*)
lost= # a pair of disks without which something cannot be read: which one, the placement decides (a check changes nothing)
for pair in 'd1 d2' 'd1 d3' 'd1 d4' 'd2 d3' 'd2 d4' 'd3 d4'; do
	for d in $pair; do mv "disks/$d" away; done
	"$ashlar" pool check demo >out 2>err </dev/null || lost=$pair
	[ -z "$lost" ] || break
	for d in $pair; do mv "away/$d" disks; done
done
refused 'two of four missing' 'missing|not enough|absent' "$ashlar" serve disks
says "${lost/ /|}" 'they are named'
mv away/d* disks
mv disks/d1 away
if serve disks; then
	[ "$(health)" = degraded ] && ok 'one of four missing: degraded' || not_ok 'one of four missing: degraded'
	"$ashlar" disk list demo >out 2>err
	says 'absent|missing' 'it is shown'
	intact 'degraded'
	write_new
	intact 'degraded, written'
	stop 'degraded'
	mv away/d1 disks
	if serve disks; then
		intact 'with the stale disk back'
		until_health online 'the returning disk is brought up to date'
		intact 'and afterwards'
		stop 'afterwards'
		check 'afterwards'
		# Now it must be as good as the others.
		mv disks/d2 away
		serve disks || not_ok 'another disk missing: the daemon starts'
		intact 'another disk missing'
		stop 'another disk missing'
		mv away/d2 disks
	else
		not_ok 'with the stale disk back'
	fi
else
	not_ok 'one of four missing: the daemon starts'
fi

echo '# a stale disk, killed in between'
make demo raid1 d1 d2
mv disks/d1 away
serve disks || not_ok 'one of two missing: the daemon starts'
write_new
daemon_kill
mv away/d1 disks
mv disks/d2 away
before=$(sums disks/d1)
if serve disks; then
	# The stale half alone looks whole: nobody can know. It runs apart from here on.
	write_new
	stop 'the other half alone'
	mv away/d2 disks
	before=$(sums disks/d1 disks/d2)
	refused 'two halves that ran apart' 'apart|diverge' "$ashlar" serve disks
	unchanged 'two halves that ran apart' "$before" disks/d1 disks/d2
	mv disks/d2 away
	serve disks || not_ok 'one half alone: the daemon starts'
	intact 'one half alone'
	stop 'one half alone'
else
	cp err why
	says 'stale|missed|missing' 'a stale half alone is refused'
	unchanged 'it' "$before" disks/d1
fi

echo '# damaged labels'
make demo raid1 d1 d2 d3
dd if=/dev/urandom of=disks/d1 bs=64k count=4 conv=notrunc status=none
serve disks || not_ok 'label at the start of a disk overwritten: the daemon starts'
intact 'label at the start overwritten'
stop 'label at the start overwritten'
check 'label at the start overwritten'
make demo raid1 d1 d2 d3
dd if=/dev/zero of=disks/d2 bs=64k count=4 seek=$((128 * 16 - 4)) conv=notrunc status=none
serve disks || not_ok 'label at the end of a disk overwritten: the daemon starts'
intact 'label at the end overwritten'
stop 'label at the end overwritten'
check 'label at the end overwritten'
make demo raid1 d1 d2 d3
dd if=/dev/urandom of=disks/d1 bs=64k count=4 conv=notrunc status=none
dd if=/dev/urandom of=disks/d1 bs=64k count=4 seek=$((128 * 16 - 4)) conv=notrunc status=none
if serve disks; then
	intact 'both labels of a disk overwritten'
	[ "$(health)" = degraded ] && ok 'it is missing now' || not_ok 'it is missing now'
	stop 'both labels overwritten'
	check 'both labels overwritten'
else
	not_ok 'both labels of a disk overwritten: the daemon starts'
fi

echo '# a disk that is smaller than its label says'
make demo raid1 d1 d2 d3
truncate -s 100M disks/d1
if serve disks; then
	intact 'a shortened disk, redundancy left'
	grep -q 'd1 of pool demo has 104857600 bytes' daemon.err && ok 'an event says so' || not_ok 'an event says so'
	t 0 'disk list' "$ashlar" disk list demo
	says 'd1 .*absent.*its label says 134217728' 'and the list of disks'
	stop 'a shortened disk'
	check 'a shortened disk'
	truncate -s 128M disks/d1
	serve disks || not_ok 'long enough again: the daemon starts'
	t 0 'it is brought up to date' "$ashlar" disk online demo d1 --wait
	t 0 'nothing that was cut off is believed' "$ashlar" pool check --data demo
	stop 'long enough again'
else
	not_ok 'a shortened disk: the daemon starts'
fi
make demo single d1
truncate -s 100M disks/d1
before=$(sums disks/d1)
refused 'a shortened disk, no redundancy' 'd1.*(small|short|truncat|less)|(small|short|truncat|less).*d1' "$ashlar" serve disks
unchanged 'it' "$before" disks/d1
truncate -s 128M disks/d1
serve disks || not_ok 'long enough again: the daemon starts'
stop 'long enough again'
truncate -s 0 disks/d1
t 1 'an emptied disk' "$ashlar" serve disks

echo '# something that is no disk'
mkfifo disks/fifo
t 1 'a fifo' "$ashlar" serve disks/fifo
t 1 'a directory in pool create' "$ashlar" pool create x disks
t 1 '/dev/null' "$ashlar" pool create x /dev/null
done_
