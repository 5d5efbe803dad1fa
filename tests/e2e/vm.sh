#!/bin/bash
# A virtual machine whose disk is a volume: the ext4 file system that qemu-img put in is mounted, changed and shut down, twice;
# then the daemon is killed and started again in the middle of the guest's writes. fsck is clean each time.
# Needs a harness that boots a guest (../shared/vm/guest beside the tree, or $GUEST); without it the test is skipped.
# usage: vm.sh BUILD [TREE]      TREE: what to put into the image
set -u
. "$(dirname "$0")/lib.sh"
. "$here/vm_lib.sh"
need mke2fs e2fsck qemu-img
tree=${2:-/usr/share/doc}
volume=demo/v1

drive() { echo "$(uri $volume),reconnect=60,dev=discard_granularity=4096"; }
# guest_run NAME ARG... <SCRIPT: must end with status 0
guest_run() {
	local name=$1 script
	shift
	script=$dir/script.$RANDOM
	cat >"$script"
	timeout 400 "$guest" run --drive "$(drive)" "$@" "$script" >guest.out 2>guest.err </dev/null
	guest_end $? "$name"
}
# guest_end STATUS NAME
guest_end() {
	cp guest.out out
	cp guest.err err
	[ "$1" = 0 ] && ok "$2" || not_ok "$2 (exit status $1)"
	grep 'the kernel said' err | head -n 5
}
fsck() {
	t 0 "$1: qemu-img convert back" qemu-img convert -f raw -O raw "$(uri $volume)" back.img
	t 0 "$1: e2fsck" e2fsck -fn back.img
}

mkdir tree
(cd "$tree" && find . -type f -size -200k -print0 | head -z -n 4000 | tar -cf - --null --no-recursion --ignore-failed-read -T -) |
	tar -xf - -C tree --no-same-owner 2>/dev/null
(cd tree && find . -type f -print0 | sort -z | xargs -0 md5sum) >sums
mv sums tree/sums
echo "# $(find tree -type f | wc -l) files"
truncate -s 512M fs.img
t 0 'mke2fs -d' mke2fs -q -F -t ext4 -d tree fs.img
disks 512M d1 d2 d3 d4
t 0 'pool create' "$ashlar" pool create demo --layout raid1 d1 d2 d3 d4
t 0 'volume create' "$ashlar" volume create demo/v1 --size 512M
serve || not_ok 'the daemon starts'
t 0 'qemu-img convert to the volume' qemu-img convert -n -f raw -O raw fs.img "$(uri demo/v1)"

guest_run 'first boot: mounts, verifies, changes' <<'GUEST'
set -e
mount /dev/drive0 /mnt
cd /mnt
md5sum --quiet -c sums
find . -name '*.gz' -delete
mkdir new
for i in $(seq 300); do head -c $((i * 40)) /dev/urandom >new/$i; done
cp -a new newer
head -c 60000000 /dev/urandom >big
sync
rm -r newer
fstrim -v .
find . -type f ! -name sums -print0 | sort -z | xargs -0 md5sum >/root/sums
cp /root/sums sums
cd /
umount /mnt
fsck.ext4 -fn /dev/drive0
GUEST
fsck 'after the first boot'
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
t 0 'pool check --data' "$ashlar" pool check --data demo
serve || not_ok 'the daemon starts'
guest_run 'second boot: all is as it was left' <<'GUEST'
set -e
fsck.ext4 -fn /dev/drive0
mount /dev/drive0 /mnt
cd /mnt
md5sum --quiet -c sums
fio --name=v --directory=/mnt --size=16m --rw=randwrite --bs=4k --iodepth=8 --ioengine=libaio --direct=1 --verify=crc32c --fsync=50 >/root/fio.out || { cat /root/fio.out; exit 1; }
rm v.*
cd /
umount /mnt
GUEST
fsck 'after the second boot'

# The daemon is killed while the guest writes; the guest's disk waits and goes on, and nothing that had completed is lost.
volume=demo/v2
t 0 'volume create' "$ashlar" volume create demo/v2 --size 512M
t 0 'a copy' qemu-img convert -n -f raw -O raw back.img "$(uri demo/v2)"
mkdir output
cat >script.third <<'GUEST'
set -e
turn() { touch "/output/guest-$1"; until [ -e "/output/host-$1" ]; do sleep 0.2; done; }
mount /dev/drive0 /mnt
cd /mnt
for round in 1 2; do
	head -c 5000000 /dev/urandom >before$round
	sync
	fio --name=w$round --size=24m --rw=randwrite --bs=4k --iodepth=8 --ioengine=libaio --direct=1 --verify=crc32c --fsync=50 >/root/fio.out 2>&1 &
	fio=$!
	sleep 1
	turn kill$round
	head -c 5000000 /dev/urandom >during$round
	sync
	wait $fio || { cat /root/fio.out; exit 1; }
	md5sum before$round during$round >sums$round
done
sync
cd /
umount /mnt
fsck.ext4 -fn /dev/drive0
echo 3 >/proc/sys/vm/drop_caches
mount -o ro /dev/drive0 /mnt
cd /mnt
md5sum --quiet -c sums sums1 sums2
cd /
umount /mnt
GUEST
timeout 400 "$guest" run --drive "$(drive)" --output "$dir/output" script.third >guest.out 2>guest.err </dev/null &
vm=$!
pids=("$vm")
for round in 1 2; do
	until [ -e "output/guest-kill$round" ] || ! kill -0 $vm 2>/dev/null; do sleep 0.2; done
	daemon_kill
	touch "output/host-kill$round"
	sleep 2
	serve || not_ok "the daemon starts after kill $round"
done
wait $vm
guest_end $? 'third boot: the daemon is killed and comes back, twice'
pids=()
[ -e output/guest-kill2 ] && ok 'both kills happened in the middle' || not_ok 'both kills happened in the middle'
fsck 'after the kills'
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
t 0 'pool check --data' "$ashlar" pool check --data demo
done_
