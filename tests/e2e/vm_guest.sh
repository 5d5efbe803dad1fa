# What scripts in a guest have in common; see vm_lib.sh.
set -e
turn() { touch "/output/guest-$1"; until [ -e "/output/host-$1" ]; do sleep 0.2; done; }
job() {
	local out
	out=$(mktemp)
	fio --name=job --rw=randwrite --bs=4k --iodepth=16 --ioengine=libaio --direct=1 --verify=crc32c --fsync=64 "$@" >"$out" 2>&1 ||
		{ grep -v "=\|^ *|" "$out"; exit 1; }
}
# fs DEVICE: a file system on it, verified, trimmed, and looked at again
fs() {
	mkfs.ext4 -q "$1"
	mount "$1" /mnt
	job --directory=/mnt --size=3m --numjobs=2
	job --directory=/mnt --size=8m --bs=512k --iodepth=4
	head -c 10000000 /dev/urandom >/mnt/f
	sum=$(md5sum </mnt/f)
	rm /mnt/job.*
	fstrim -v /mnt
	umount /mnt
	fsck.ext4 -fn "$1"
	echo 3 >/proc/sys/vm/drop_caches
	mount -o ro "$1" /mnt
	[ "$(md5sum </mnt/f)" = "$sum" ]
	umount /mnt
}
