#!/bin/bash
# A real file system goes in by qemu-img over NBD and comes out unchanged; trimmed space goes back to the pool.
# usage: fs_image.sh BUILD [TREE]      TREE: what to put into the image
set -u
. "$(dirname "$0")/lib.sh"
need mke2fs e2fsck qemu-img nbdcopy qemu-io
tree=${2:-/usr/share/doc}
[ "$(find "$tree" -type f | head -n 2000 | wc -l)" -ge 2000 ] || tree=/usr/share

# used VOLUME: bytes of the pool that it takes
used() { "$ashlar" volume show "$1" --json >out 2>err && value 'j["used_bytes"]'; }
# until_used VOLUME LIMIT: space comes back in the background
until_used() {
	local i
	for i in $(seq 50); do
		[ "$(used "$1")" -le "$2" ] && return
		sleep 0.1
	done
	return 1
}

# Only the first thousands of files, so that it takes seconds.
mkdir tree
(cd "$tree" && find . -type f -size -200k -print0 | head -z -n 6000 | tar -cf - --null --no-recursion --ignore-failed-read -T -) |
	tar -xf - -C tree --no-same-owner 2>/dev/null
n_files=$(find tree -type f | wc -l)
echo "# $n_files files of $tree"
[ "$n_files" -ge 1000 ] && ok 'thousands of files' || not_ok 'thousands of files'
truncate -s 256M fs.img
t 0 'mke2fs -d' mke2fs -q -F -t ext4 -d tree fs.img
disks 512M d1 d2 d3 d4
t 0 'pool create' "$ashlar" pool create demo --layout raid10 d1 d2 d3 d4
t 0 'volume create' "$ashlar" volume create demo/fs --size 256M
t 0 'volume create' "$ashlar" volume create demo/copy --size 256M
serve || not_ok 'the daemon starts'
t 0 'qemu-img convert to the volume' qemu-img convert -n -f raw -O raw -W -m 8 fs.img "$(uri demo/fs)"
t 0 'qemu-img compare' qemu-img compare -f raw -F raw fs.img "$(uri demo/fs)"
t 0 'from volume to volume by nbdcopy' nbdcopy "$(uri demo/fs)" "$(uri demo/copy)"
t 0 'nbdcopy back' nbdcopy --synchronous "$(uri demo/copy)" back.img
t 0 'the same bytes' cmp fs.img back.img
t 0 'e2fsck of what came back' e2fsck -fn back.img
data=$(du -B1 fs.img | cut -f1)
now=$(used demo/fs)
echo "# the image holds $data bytes, the volume takes $now"
[ "$now" -le $((data + data / 2 + 4194304)) ] && ok 'the volume is thin' || not_ok 'the volume is thin'

# qemu-img reads holes as holes: a map of the volume and of the file agree on where zeros are.
t 0 'nbdinfo --map' nbdinfo --map "$(uri demo/fs)"
says 'hole' 'holes are reported'

daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
t 0 'pool check --data' "$ashlar" pool check --data demo
serve || not_ok 'the daemon starts again'
t 0 'qemu-img compare after a restart' qemu-img compare -f raw -F raw fs.img "$(uri demo/fs)"

# Trim.
before=$(used demo/copy)
cat >trim.py <<'PY'
import nbd, sys
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(sys.argv[1])
half = h.get_size() // 2
h.trim(half, half, nbd.CMD_FLAG_FUA)
assert h.pread(1 << 20, half) == bytes(1 << 20)
assert h.pread(1 << 20, h.get_size() - (1 << 20)) == bytes(1 << 20)
got = []
h.block_status(half, half, lambda c, o, e, err: got.extend(e))
assert got[1] == 3 and got[0] == half, got
h.trim(half, 0, 0)
h.flush()
for off in range(0, h.get_size(), 4 << 20):
    assert h.pread(4 << 20, off) == bytes(4 << 20), off
PY
t 0 'trim; reads zeros' "$py" trim.py "$(uri demo/copy)"
echo "# used before the trim: $before"
until_used demo/copy 0 && ok 'trimmed space is given back' || not_ok "trimmed space is given back ($(used demo/copy))"
t 0 'the other volume is untouched' qemu-img compare -f raw -F raw fs.img "$(uri demo/fs)"
t 0 'what was freed is used again' nbdcopy "$(uri demo/fs)" "$(uri demo/copy)"
t 0 'and is right' qemu-img compare -f raw -F raw fs.img "$(uri demo/copy)"
t 0 'write zeroes by qemu-io' qemu-io -f raw -c 'write -z -u 0 256M' -c 'read -P 0 0 64M' "$(uri demo/copy)"
! grep -q 'verification failed' out && until_used demo/copy 0 && ok 'write zeroes may punch holes' || not_ok 'write zeroes may punch holes'
t 0 'volume delete' "$ashlar" volume delete demo/copy
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
t 0 'pool check --data' "$ashlar" pool check --data demo
done_
