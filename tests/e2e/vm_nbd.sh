#!/bin/bash
# Another machine's ways to a volume: the kernel's NBD driver with four connections, in the clear and by nbd-client's TLS, as `export show`
# prints it; QEMU's disk over TCP, in the clear and with TLS. Then the daemon is killed while the kernel's driver writes, twice: its requests
# wait, and go on.
# Needs a harness that boots a guest (../shared/vm/guest beside the tree, or $GUEST); without it the test is skipped.
# usage: vm_nbd.sh BUILD
set -u
. "$(dirname "$0")/lib.sh"
. "$here/vm_lib.sh"
need qemu-img openssl
port=$(free_port)
mkdir share output
"$py" -c 'import sys; sys.path.insert(0, sys.argv[1]); import nbd_rig; nbd_rig.make_certificates("share/tls")' "$here/../proto" ||
	not_ok 'certificates'
cp "$here/kernel_nbd.py" share
disks 768M d1 d2 d3
t 0 'pool create' "$ashlar" pool create demo --layout raid5 d1 d2 d3
for v in plain tls qemu qemu_tls kill; do
	t 0 'volume create' "$ashlar" volume create demo/$v --size 128M
done
up() { serve --nbd "127.0.0.1:$port" --tls-certificates share/tls/server --tls-verify-peer d1 d2 d3; }
up || not_ok 'the daemon starts'
# The lines as they are printed; in the guest, localhost is this machine.
t 0 'the line for nbd-client' "$ashlar" export show demo/plain --format nbd-client --nbd "localhost:$port"
grep '^nbd-client' out >share/plain
t 0 'the line with TLS' "$ashlar" export show demo/tls --format nbd-client --nbd "localhost:$port" --tls-certificates /share/tls/alice
grep '^nbd-client' out >share/tls.line
cat share/plain share/tls.line | sed 's/^/# /'

cat "$here/vm_guest.sh" - >script <<'GUEST'
modprobe nbd nbds_max=3
echo '10.0.2.2 localhost' >/etc/hosts
nbd-client -l localhost "$PORT" | grep demo/plain
for way in plain tls.line; do
	echo "== $way"
	line=$(sed "s,/dev/nbd[0-9]*,/dev/nbd0,; s,^nbd-client,& -C 4," /share/$way)
	bash -xc "$line"
	turn "count-$way"
	grep . /sys/block/nbd0/queue/{logical_block_size,discard_max_bytes,write_cache,fua}
	fs /dev/nbd0
	job --filename=/dev/nbd0 --size=2m --numjobs=4 --offset_increment=16m
	nbd-client -d /dev/nbd0
	while [ -e /sys/block/nbd0/pid ]; do sleep 0.2; done
done
echo '== QEMU, TCP'
fs /dev/drive0
echo '== QEMU, TCP, TLS'
for d in /sys/block/vd*; do [ "$(cat $d/serial)" != overtls ] || disk=/dev/${d##*/}; done
fs "$disk"

echo '== kill -9'
reach=(localhost "$PORT" demo/kill)
python3 /share/kernel_nbd.py connect 1 4 "${reach[@]}"
mkfs.ext4 -q -E nodiscard /dev/nbd1
mount /dev/nbd1 /mnt
for round in 1 2; do
	head -c 5000000 /dev/urandom >/mnt/before$round
	sync
	job --directory=/mnt --size=6m --numjobs=2 &
	fio=$!
	sleep 1
	turn kill$round
	kill -0 $fio
	python3 /share/kernel_nbd.py reconnect 1 4 "${reach[@]}"
	head -c 5000000 /dev/urandom >/mnt/during$round
	sync
	wait $fio
done
(cd /mnt && md5sum before? during?) >sums
turn count-kill
umount /mnt
fsck.ext4 -fn /dev/nbd1
echo 3 >/proc/sys/vm/drop_caches
mount -o ro /dev/nbd1 /mnt
(cd /mnt && md5sum -c) <sums
umount /mnt
nbd-client -d /dev/nbd1
GUEST
timeout 900 "$guest" run --timeout 880 --share "$dir/share" --output "$dir/output" --env PORT="$port" --drive "nbd://127.0.0.1:$port/demo/qemu" \
	--qemu-arg=-object --qemu-arg="tls-creds-x509,id=tls0,endpoint=client,dir=$dir/share/tls/alice" \
	--qemu-arg=-blockdev --qemu-arg="driver=nbd,node-name=overtls,server.type=inet,server.host=localhost,server.port=$port,export=demo/qemu_tls,tls-creds=tls0,tls-hostname=localhost,discard=unmap" \
	--qemu-arg=-device --qemu-arg=virtio-blk-pci,drive=overtls,serial=overtls script >guest.out 2>guest.err </dev/null &
vm=$!
pids=("$vm")
# turn NAME: the guest waits for it
turn() {
	until [ -e "output/guest-$1" ]; do
		kill -0 $vm 2>/dev/null || return 1
		sleep 0.2
	done
}
clients_of() { "$ashlar" connection list -H | grep -c "^$1"; }
for way in plain tls.line; do
	turn "count-$way" || break
	[ "$(clients_of "demo/${way%.line}")" = 4 ] && ok "$way: four connections" || not_ok "$way: four connections"
	touch "output/host-count-$way"
done
for round in 1 2; do
	turn "kill$round" || break
	daemon_kill
	touch "output/host-kill$round"
	sleep 2
	up || not_ok "the daemon starts after kill $round"
done
if turn count-kill; then
	[ "$(clients_of demo/kill)" = 4 ] && ok 'four connections again' || not_ok 'four connections again'
	touch output/host-count-kill
fi
wait $vm
status=$?
pids=()
cp guest.out out
cp guest.err err
[ $status = 0 ] && ok 'the guest' || not_ok "the guest (exit status $status)"
grep 'the kernel said' err | head -n 5
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
t 0 'pool check --data' "$ashlar" pool check --data demo
done_
