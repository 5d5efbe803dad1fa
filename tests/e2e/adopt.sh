#!/bin/bash
# A raw image becomes a volume that can be used at once: read and written while the rest comes over, through kill -9 and restarts,
# with the image away for a while; at the end the image is not needed any more.
# The same with an NBD server that goes away and comes back.
# usage: adopt.sh BUILD
set -u
# shellcheck disable=SC2046
. "$(dirname "$0")/lib.sh"
need fio nbdcopy qemu-nbd

size=$((160 << 20))
fio_off=$((64 << 20)) fio_len=$((32 << 20)) # where clients write; the rest stays as it was

# The image: random data, holes, zeros that are written.
make_image() {
	"$py" - "$1" $size <<'PY'
import os, random, sys
random.seed(5)
size = int(sys.argv[2])
with open(sys.argv[1], "wb") as f:
    f.truncate(size)
    pos = 0
    while pos < size:
        n = min(random.randrange(1, 4000) * 512, size - pos)
        kind = random.randrange(4)
        if kind < 2:
            f.seek(pos)
            f.write(random.randbytes(n) if kind == 0 else bytes(n))
        pos += n
PY
}

# same NAME: what the volume has is what the image had, but for where fio writes
same() {
	rm -f now
	nbdcopy "$(uri demo/${volume:-v})" now 2>err && "$py" - keep now $fio_off $fio_len <<'PY' >out && ok "$1" || not_ok "$1"
import sys
a, b = open(sys.argv[1], "rb").read(), open(sys.argv[2], "rb").read()
off, length = int(sys.argv[3]), int(sys.argv[4])
sys.exit(not (len(a) == len(b) and a[:off] == b[:off] and a[off + length:] == b[off + length:]))
PY
}

job() { # CYCLE: fio's arguments for its part of what is written
	echo fio --name=job --ioengine=nbd "--uri=$(uri demo/${volume:-v})" --bs=512-9k --bs_unaligned=0 --blockalign=512 --iodepth=8 \
		--offset=$((fio_off + $1 * fio_len / 4)) --size=$((fio_len / 4)) --rw=randwrite --verify=crc32c --verify_state_save=0 \
		--randseed="$1" --norandommap=0
}

adopting() { "$ashlar" volume show "demo/${volume:-v}" --json >out 2>err && [ "$(value 'j["source"] is not None')" = True ]; }
until_adopted() {
	local i
	for i in $(seq 300); do adopting || return 0; sleep 0.2; done
	return 1
}

disks 512M d1 d2 d3
make_image image
cp --sparse=always image keep
t 0 'pool create' "$ashlar" pool create demo --layout raid1 d1 d2 d3
serve --reactors 2 || { not_ok 'the daemon starts'; done_; }
t 0 'pace' "$ashlar" pool set demo pace-floor=1M pace-ceiling=1M
refused 'an image that is not there' 'source' "$ashlar" volume create demo/x --from "$dir/nothing"
refused 'a disk of the pool' 'in use' "$ashlar" volume create demo/x --from "$dir/d1"
refused 'a size that is too small' 'less than' "$ashlar" volume create demo/x --from image --size 1M
printf x >odd
printf 'QFI\373\0\0\0\3' >image.qcow2
truncate -s 64K image.qcow2
refused 'an image that is not raw' 'is a qcow2 image' "$ashlar" volume create demo/x --from image.qcow2
refused 'an image that is no whole block' 'lengthen' "$ashlar" volume create demo/x --from odd
t 0 'volume create --from' "$ashlar" volume create demo/v --from image
t 0 'it is as large as the image' "$ashlar" volume show demo/v --json
[ "$(value 'j["size_bytes"]')" = $size ] && ok 'its size' || not_ok 'its size'
same 'all of it can be read at once'
adopting && ok 'and not all of it is here' || not_ok 'and not all of it is here'
t 0 'job list' "$ashlar" job list demo
says 'adopt .*image' 'the job is listed'
refused 'no snapshot yet' 'has to wait' "$ashlar" snapshot create demo/v@a
t 0 'clients write and read back meanwhile' $(job 0)
for cycle in 1 2; do
	$(job $cycle) --end_fsync=1 --do_verify=0 >out 2>err || not_ok "cycle $cycle: fio writes"
	adopting || not_ok "cycle $cycle: it is still being adopted"
	daemon_kill
	serve --reactors 2 || { not_ok "cycle $cycle: the daemon starts"; done_; }
	t 0 "cycle $cycle: what was flushed is there" $(job $cycle) --verify_only
	same "cycle $cycle: and so is the rest"
done
daemon_stop
mv image elsewhere
serve --reactors 2 || { not_ok 'the daemon starts without the image'; done_; }
t 0 'what has been written can be read without it' $(job 2) --verify_only
nbdcopy "$(uri demo/v)" now >out 2>err && not_ok 'what has not come over cannot' || ok 'what has not come over cannot'
t 0 'events' "$ashlar" events
says 'source is away' 'an event says so'
t 0 'job list' "$ashlar" job list demo --json
says 'waits: the source' 'the job says what it waits for'
mv elsewhere image
t 0 'pace' "$ashlar" pool set demo pace-ceiling=0
until_adopted && ok 'all comes over' || not_ok 'all comes over'
rm image
same 'the volume has all of it without the image'
t 0 'what was written is still there' $(job 1) --verify_only
t 0 'a snapshot can be taken now' "$ashlar" snapshot create demo/v@a
t 0 'volume list' "$ashlar" volume list demo --json
[ "$(value "[v for v in j if v['volume'] == 'v'][0]['used_bytes'] < $size * 3 // 4")" = True ] && ok 'holes and zeros take no space' ||
	not_ok 'holes and zeros take no space'

# ---- over NBD ----
volume=w
remote() {
	qemu-nbd -r -f raw -k "$dir/far.sock" -x far --persistent -e 8 keep >/dev/null 2>&1 &
	far=$!
	pids=("$far")
	for _ in $(seq 100); do [ -S far.sock ] && return; sleep 0.05; done
}
remote_end() {
	kill "$far"
	wait "$far" 2>/dev/null
	pids=()
	rm -f far.sock
}
remote
t 0 'pace' "$ashlar" pool set demo pace-ceiling=1M
t 0 'an export becomes a volume' "$ashlar" volume create demo/w --from "nbd+unix:///far?socket=$dir/far.sock"
same 'all of it can be read at once'
t 0 'clients write and read back meanwhile' $(job 0) --end_fsync=1
remote_end
t 0 'what has been written can be read without the server' $(job 0) --verify_only
nbdcopy "$(uri demo/w)" now >out 2>err && not_ok 'what has not come over cannot' || ok 'what has not come over cannot'
adopting || not_ok 'it is still being adopted'
daemon_kill
remote
serve --reactors 2 || { not_ok 'the daemon starts'; done_; }
t 0 'what was flushed is there' $(job 0) --verify_only
same 'and so is the rest'
t 0 'pace' "$ashlar" pool set demo pace-ceiling=0
until_adopted && ok 'all comes over' || not_ok 'all comes over'
remote_end
same 'the volume has all of it without the server'
t 0 'volume list' "$ashlar" volume list demo --json
[ "$(value "[v for v in j if v['volume'] == 'w'][0]['used_bytes'] < $size * 3 // 4")" = True ] && ok 'holes and zeros take no space' ||
	not_ok 'holes and zeros take no space'
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
t 0 'pool check --data' "$ashlar" pool check --data demo
done_
