#!/bin/bash
# iSCSI as a Linux machine uses it: the kernel's initiator with mutual CHAP and digests, by the lines that `export show` prints, two LUNs;
# ext4 and fio --verify on them. Meanwhile the daemon is killed and started again, three times, once while a disk is evacuated, and the volume
# moves to another layout. Beside it QEMU's own initiator, as the guest's disk. The guest must not notice: no error in its kernel's log.
# Needs a harness that boots a guest (../shared/vm/guest beside the tree, or $GUEST); without it the test is skipped.
# usage: vm_iscsi.sh BUILD
set -u
. "$(dirname "$0")/lib.sh"
. "$here/vm_lib.sh"
need qemu-img
port=$(free_port)
iqn=iqn.2026-01.org.test
mkdir share output
echo alice-secret-12 >s1
echo bob-secret-3456 >s2
disks 768M d1 d2 d3 d4
t 0 'pool create' "$ashlar" pool create demo --layout raid1 d1 d2 d3 d4
for v in full thin qemu; do
	t 0 'volume create' "$ashlar" volume create demo/$v --size 160M
done
secrets=(--chap-user alice --chap-secret-file s1 --mutual-user bob --mutual-secret-file s2)
t 0 'LUN 0' "$ashlar" export add demo/full --iscsi --iqn "$iqn:linux" "${secrets[@]}"
t 0 'LUN 1' "$ashlar" export add demo/thin --iscsi --iqn "$iqn:linux" --lun 1 "${secrets[@]}"
t 0 'a target for QEMU' "$ashlar" export add demo/qemu --iscsi --iqn "$iqn:qemu" --chap-user alice --chap-secret-file s1
up() { serve --iscsi "127.0.0.1:$port" d1 d2 d3 d4; }
up || not_ok 'the daemon starts'
# There is something to move; the other LUN is thin.
truncate -s 160M zeros
t 0 'a volume that is allocated in full' qemu-img convert -n -S 0 -f raw -O raw zeros "$(uri demo/full)"
t 0 'the lines for iscsiadm' "$ashlar" export show demo/full --format iscsiadm
grep '^iscsiadm' out | sed "s/ MUTUAL_SECRET/ $(cat s2)/; s/ SECRET/ $(cat s1)/" >share/lines

cat "$here/vm_guest.sh" - >script <<'GUEST'
disk() { # LUN: sets dev
	for _ in $(seq 100); do
		set -- "$1" /sys/class/iscsi_session/session*/device/target*/*:"$1"/block/sd*
		dev=/dev/${2##*/}
		[ ! -b "$dev" ] || return 0
		sleep 0.1
	done
	echo "there is no disk"
	exit 1
}
session() { iscsiadm -m session -P 3; }
node() { iscsiadm -m node -T "$IQN:linux" -p "10.0.2.2:$PORT" "$@"; }

echo '== as it is printed'
# The portal that discovery names is the host's loopback: let it lead there.
socat "TCP-LISTEN:$PORT,bind=127.0.0.1,fork,reuseaddr" "TCP:10.0.2.2:$PORT" &
socat=$!
sleep 0.5
bash -exc "$(cat /share/lines)"
disk 0
session | grep -A20 CHAP
session | grep -q 'username_in: bob'
iscsiadm -m node -T "$IQN:linux" --logout
iscsiadm -m node -o delete
kill $socat

echo '== a wrong secret'
# Straight to the host, with digests, and time for a slow machine.
node -o new
node -o update -n node.session.auth.authmethod -v CHAP -n node.session.auth.username -v alice -n node.session.auth.password -v alice-secret-12
node -o update -n node.session.auth.username_in -v bob -n node.session.auth.password_in -v some-other-one-1
node -o update -n 'node.conn[0].iscsi.HeaderDigest' -v CRC32C -n 'node.conn[0].iscsi.DataDigest' -v CRC32C
node -o update -n 'node.conn[0].timeo.noop_out_timeout' -v 60 -n node.session.initial_login_retry_max -v 1
if node --login; then exit 1; fi
node -o update -n node.session.auth.password_in -v bob-secret-3456

echo '== data in other ways: all of it asked for, in small pieces; many commands, two sessions'
raw() {
	node --login >/dev/null
	disk 1
	job --filename="$dev" --size=2m --numjobs=4 --offset_increment=16m --iodepth=100
	job --filename="$dev" --size=8m --numjobs=2 --offset_increment=16m --bs=256k
	iscsiadm -m session -P 2 | grep -E 'Length|R2T|Immediate'
	node --logout >/dev/null
}
iscsi() { node -o update -n "$1" -v "$2"; }
iscsi node.session.iscsi.InitialR2T Yes
iscsi node.session.iscsi.ImmediateData No
iscsi node.session.iscsi.MaxBurstLength 16384
iscsi 'node.conn[0].iscsi.MaxRecvDataSegmentLength' 4096
raw
iscsi node.session.iscsi.InitialR2T No
iscsi node.session.iscsi.ImmediateData Yes
iscsi node.session.iscsi.MaxBurstLength 16776192
iscsi 'node.conn[0].iscsi.MaxRecvDataSegmentLength' 262144
iscsi node.session.iscsi.MaxOutstandingR2T 8
iscsi node.session.cmds_max 1024
iscsi node.session.queue_depth 512
iscsi node.session.nr_sessions 2
raw
iscsi node.session.nr_sessions 1

echo '== digests'
node --login
session | grep Digest
[ "$(session | grep -c 'Digest: CRC32C')" = 2 ]
disk 1
thin=$dev
lsscsi
sg_vpd -p lbpv "$thin"
grep . /sys/block/${thin##*/}/queue/{logical_block_size,discard_max_bytes,write_cache,fua,max_sectors_kb}
fs "$thin"

echo '== it grows'
turn grow
iscsiadm -m session -R >/dev/null
for _ in $(seq 50); do
	[ "$(blockdev --getsize64 "$thin")" != 201326592 ] || break
	sleep 0.1
done
[ "$(blockdev --getsize64 "$thin")" = 201326592 ]
mount "$thin" /mnt
resize2fs "$thin"
umount /mnt
fsck.ext4 -fn "$thin"
job --filename="$thin" --size=2m --numjobs=4 --offset_increment=16m

echo '== QEMU, iSCSI'
for d in /sys/block/vd*; do [ "$(cat $d/serial)" != overiscsi ] || qemu=/dev/${d##*/}; done
fs "$qemu"
dd if=/dev/zero of="$qemu" bs=1M count=32 oflag=direct conv=fsync

echo '== kill -9'
disk 0
full=$dev
mkfs.ext4 -q -E nodiscard "$full"
mount "$full" /mnt
for round in 1 2 3; do
	head -c 5000000 /dev/urandom >/mnt/before$round
	sync
	# slow enough to be there when the daemon ends, however fast the machine
	job --directory=/mnt --size=6m --numjobs=2 --rate_iops=150 &
	fio=$!
	job --filename="$qemu" --size=6m --numjobs=2 --offset_increment=16m --rate_iops=150 &
	fio2=$!
	sleep 1
	turn kill$round
	kill -0 $fio
	kill -0 $fio2
	head -c 5000000 /dev/urandom >/mnt/during$round
	sync
	wait $fio
	wait $fio2
done

echo '== moves'
touch /output/guest-moves
for _ in $(seq 100); do
	job --directory=/mnt --size=4m --numjobs=2
	head -c 1000000 /dev/urandom >/mnt/moving
	cp /mnt/moving /mnt/moved
	sync
	[ ! -e /output/host-moves ] || break
done
(cd /mnt && md5sum before? during? moving moved) >sums
umount /mnt
fsck.ext4 -fn "$full"
echo 3 >/proc/sys/vm/drop_caches
mount -o ro "$full" /mnt
(cd /mnt && md5sum -c) <sums
umount /mnt
iscsiadm -m node -T "$IQN:linux" --logout
dmesg | grep -i 'session recovery\|connection.* error\|ping timeout' || true
if dmesg | grep -i 'I/O error\|sense key\|FAILED Result\|EXT4-fs error\|lost\|aborting journal'; then exit 1; fi
GUEST
timeout 900 "$guest" run --timeout 880 --share "$dir/share" --output "$dir/output" --env PORT="$port" --env IQN="$iqn" \
	--qemu-arg=-object --qemu-arg=secret,id=key0,data=alice-secret-12 \
	--qemu-arg=-blockdev --qemu-arg="driver=iscsi,node-name=overiscsi,transport=tcp,portal=127.0.0.1:$port,target=$iqn:qemu,lun=0,user=alice,password-secret=key0,header-digest=crc32c,discard=unmap" \
	--qemu-arg=-device --qemu-arg=virtio-blk-pci,drive=overiscsi,serial=overiscsi script >guest.out 2>guest.err </dev/null &
vm=$!
pids=("$vm")
# turn NAME: the guest waits for it
turn() {
	until [ -e "output/guest-$1" ]; do
		kill -0 $vm 2>/dev/null || return 1
		sleep 0.2
	done
}
if turn grow; then
	t 0 'a volume grows' "$ashlar" volume resize demo/thin 192M
	touch output/host-grow
fi
for round in 1 2 3; do
	turn "kill$round" || break
	if [ $round = 3 ]; then
		t 0 'a slow pace' "$ashlar" pool set demo pace-floor=4M pace-ceiling=4M
		t 0 'a disk is evacuated' "$ashlar" disk evacuate demo d1
		sleep 2
	fi
	daemon_kill
	touch "output/host-kill$round"
	sleep 2
	up || not_ok "the daemon starts after kill $round"
done
if turn moves; then
	t 0 'any pace' "$ashlar" pool set demo pace-floor=10M pace-ceiling=0
	t 0 'it is evacuated after the kill' "$ashlar" disk evacuate demo d1 --wait
	t 0 'the volume moves to another layout' "$ashlar" volume set demo/full --layout raid1-3 --wait
	t 0 'all volumes move to another layout' "$ashlar" pool set demo --layout raid5
	for _ in $(seq 300); do
		"$ashlar" volume list demo -H -o layout >out 2>err
		[ "$(sort -u out)" != raid5 ] || break
		sleep 0.2
	done
	[ "$(sort out | uniq -c | tr -s ' ')" = ' 3 raid5' ] && ok 'they have' || not_ok 'they have'
	touch output/host-moves
fi
wait $vm
status=$?
pids=()
cp guest.out out
cp guest.err err
[ $status = 0 ] && ok 'the guest' || not_ok "the guest (exit status $status)"
grep 'the kernel said' err | head -n 5
[ -n "${VERBOSE:-}" ] && sed 's/^/# /' guest.out
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
t 0 'pool check --data' "$ashlar" pool check --data demo
done_
