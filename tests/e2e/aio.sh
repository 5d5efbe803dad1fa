#!/bin/bash
# Without io_uring: where the kernel refuses it (a filter as container runtimes have it) the engine takes epoll and Linux AIO by
# itself, in the daemon and in commands that open disks themselves. The same pool is used by both ways in turn; kill -9 under load;
# discards, flushes and many clients. Files of a file system that is a process go to threads: disks.sh.
# usage: aio.sh BUILD
set -u
# shellcheck disable=SC2046
. "$(dirname "$0")/lib.sh"
need fio nbdcopy
unset ASHLAR_IO # which way is taken is what is looked at
refuse=$build/tests/e2e/no_uring
[ -x "$refuse" ] || { echo "$refuse is not there; build it first" >&2; exit 1; }
"$refuse" true || { echo "# skipped: no filter can be installed"; done_; }

is_aio() { [ "$(timeout 20 "$ashlar" daemon status --json 2>/dev/null | sed -n 's/.*"io": "\(.*\)".*/\1/p')" = "$1" ]; }
job() { echo fio --name=job --ioengine=nbd "--uri=$(uri demo/v)" --randseed=7 "$@"; }
verify='--verify=crc32c --verify_state_save=0'

disks 512M d1 d2 d3
refused 'io_uring asked for where it is refused' 'io_uring.*aio' "$refuse" "$ashlar" pool create demo --layout raid5 --io uring d1 d2 d3
t 0 'a pool is made without it' "$refuse" "$ashlar" pool create demo --layout raid5 d1 d2 d3
t 0 'a volume is made with it' env ASHLAR_IO=uring "$ashlar" volume create demo/v --size 1G
t 0 'another one' "$ashlar" volume create demo/stamp --size 1G --io aio

serve_under=$refuse
serve --reactors 2 && ok 'the daemon starts without it' || not_ok 'the daemon starts without it'
grep -q 'io aio (the kernel refuses io_uring: Operation not permitted)' daemon.out && ok 'and says so' || not_ok 'and says so'
is_aio aio && ok 'its status does' || not_ok 'its status does'
t 0 'clients write, read and verify' $(job $verify --bs=4k --size=32m --rw=randwrite --iodepth=32 --numjobs=2 --offset_increment=32m --fsync=64)
t 0 'one request at a time' $(job $verify --bs=4k --rw=randrw --iodepth=1 --offset=64m --size=2m)
t 0 'discards' $(job --rw=randtrim --bs=64k --offset=64m --size=32m --iodepth=16)
head -c 40M /dev/urandom >image
t 0 'a copy over many connections' nbdcopy --connections=8 --requests=32 --flush image "$(uri demo/v)"
t 0 'reads the same' nbdcopy "$(uri demo/v)" copy
cmp -n 41943040 image copy && ok 'byte by byte' || not_ok 'byte by byte'
"$py" "$here/stamp.py" write "$(uri demo/stamp)" state 20 1 >stamp.out 2>&1 &
pids=($!)
sleep 1.5
daemon_kill
wait "${pids[0]}"
pids=()
t 0 'after kill -9 the pool is whole' "$refuse" "$ashlar" pool check demo

serve_under=
serve --reactors 2 && ok 'the daemon starts with io_uring' || not_ok 'the daemon starts with io_uring'
is_aio uring && ok 'its status says so' || not_ok 'its status says so'
t 0 'all that was flushed is there' "$py" "$here/stamp.py" check "$(uri demo/stamp)" state
daemon_stop || not_ok 'it ends'
ASHLAR_IO=aio serve --reactors 1 && ok '$ASHLAR_IO chooses' || not_ok '$ASHLAR_IO chooses'
is_aio aio && ok 'and status says so' || not_ok 'and status says so'
t 0 'all that was flushed is still there' "$py" "$here/stamp.py" check "$(uri demo/stamp)" state
t 0 'a scrub' "$ashlar" pool scrub demo --wait
daemon_stop && ok 'it ends cleanly' || not_ok 'it ends cleanly'
t 0 'the pool checks clean' "$ashlar" pool check demo --io aio
done_
