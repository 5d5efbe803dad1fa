#!/bin/bash
# The engine inside nbdkit: its plugin for a volume, a snapshot, all of a pool; what it says it can do; clients that verify; filters of
# nbdkit's over it; kill -9 and opening again; refusals before nbdkit goes into the background.
# usage: nbdkit.sh BUILD
set -u
# shellcheck disable=SC2046
. "$(dirname "$0")/lib.sh"
need nbdkit nbdinfo nbdcopy fio qemu-io
plugin=$build/nbdkit-ashlar-plugin.so
[ -f "$plugin" ] || { echo "# skipped: the plugin was not built (nbdkit-plugin-dev)"; done_; }

kit=()
# kit_start ARG...: in the background, as nbdkit does it by default; its process is the daemon of lib.sh. It has the pool for good
# when it answers, which is later than that it is in the background.
kit_start() {
	rm -f "$nbd" pid
	timeout 60 nbdkit -U "$nbd" -P pid "$@" >out 2>err </dev/null || return 1
	for _ in $(seq 200); do [ -s pid ] && break; sleep 0.05; done # which it writes once it is in the background
	daemon_pid=$(cat pid)
	timeout 60 nbdinfo --list "nbd+unix:///?socket=$nbd" >out 2>err
}
# Not a child of ours, so it is looked at until it is gone.
kit_end() {
	kill "-$1" "$daemon_pid"
	for _ in $(seq 200); do kill -0 "$daemon_pid" 2>/dev/null || { daemon_pid=; return 0; }; sleep 0.05; done
	return 1
}
# with NAME ARG... -- COMMAND: nbdkit with these arguments, as long as the command runs
with() {
	local name=$1 args=()
	shift
	while [ "$1" != -- ]; do args+=("$1"); shift; done
	t 0 "$name" nbdkit -U - "${args[@]}" --run "$2"
}
bytes_of() { od -An -tx1 -j "$2" -N 4 "$1" | tr -d ' \n'; }

disks 512M d1 d2 d3
t 0 'pool create' "$ashlar" pool create demo --layout raid5 d1 d2 d3
t 0 'volume create' "$ashlar" volume create demo/v --size 256M
t 0 'volume create' "$ashlar" volume create demo/stamp --size 1G
kit=("$plugin" disk=d1 disk=d2 disk="$dir/d3")

t 0 'what it is' nbdkit "$plugin" --dump-plugin
says '^name=ashlar$' 'its name'
says '^thread_model=parallel$' 'requests in parallel'
t 0 'help' nbdkit "$plugin" --help
says 'POOL/VOL@SNAP' 'the parameters are there'
refused 'a volume that is not there' 'demo/none.*no export' nbdkit -U "$nbd" -P pid "${kit[@]}" demo/none
refused 'a pool that is not there' 'pool none' nbdkit -U "$nbd" -P pid "${kit[@]}" none/v
refused 'no disks' 'disk=PATH' nbdkit -U "$nbd" -P pid "$plugin" demo/v
refused 'a name without a pool' 'POOL/VOL' nbdkit -U "$nbd" -P pid "${kit[@]}" v
refused 'an unknown parameter' 'no parameter' nbdkit -U "$nbd" -P pid "${kit[@]}" demo/v magic=1
refused 'a way of I/O that is none' 'uring, aio or auto' nbdkit -U "$nbd" -P pid "${kit[@]}" demo/v io=magic

kit_start "${kit[@]}" demo/v reactors=2 && ok 'it starts' || not_ok 'it starts'
refused 'the pool is locked for others' 'in use' "$ashlar" volume create demo/w --size 1M
refused 'for a second nbdkit, too' 'in use' nbdkit -f -U - "${kit[@]}" demo/v --run true
t 0 'nbdinfo' nbdinfo --json "$(uri demo/v)"
for can in can_multi_conn can_fua can_fast_zero can_trim can_zero can_cache can_flush; do
	[ "$(value "j['exports'][0]['$can']")" = True ] && ok "$can" || not_ok "$can"
done
[ "$(value 'j["exports"][0]["export-size"], j["exports"][0]["block_size_minimum"], j["exports"][0]["description"]')" = "(268435456, 512, 'Ashlar volume demo/v of 256M')" ] &&
	ok 'size, blocks, description' || not_ok 'size, blocks, description'
t 0 'clients write, read and verify' fio --name=job --ioengine=nbd "--uri=$(uri demo/v)" --rw=randwrite --bs=4k --iodepth=16 --numjobs=2 \
	--size=24m --offset_increment=24m --verify=crc32c --verify_state_save=0 --fsync=64
t 0 'zeros, discards, FUA' qemu-io -f raw -c 'write -P 5 128M 4M' -c 'write -z 129M 512k' -c 'write -z -u 130M 512k' -c 'discard 131M 512k' \
	-c 'write -f -P 6 128M 4k' -c 'read -P 6 128M 4k' -c 'read -P 5 131584k 512k' -c 'read -P 0 129M 512k' -c 'read -P 0 130M 512k' \
	-c 'read -P 0 131M 512k' "$(uri demo/v)"
t 0 'what is allocated' nbdinfo --map "$(uri demo/v)"
says '133169152 +[0-9]+ +0|134217728 +[0-9]+ +0' 'data is where it was written'
says ' 3 ' 'and holes where not'
head -c 40M /dev/urandom >image
t 0 'a copy in' nbdcopy --connections=4 --requests=16 --flush image "$(uri demo/v)"
t 0 'a copy out' nbdcopy "$(uri demo/v)" copy
cmp -n 41943040 image copy && ok 'byte by byte' || not_ok 'byte by byte'
t 0 'a block that is not aligned is an error' "$py" -c 'import nbd, sys
h = nbd.NBD(); h.set_strict_mode(0); h.connect_uri(sys.argv[1])
try:
    h.pread(100, 7)
    sys.exit(1)
except nbd.Error as e:
    sys.exit(0 if e.errno == "EINVAL" else 2)' "$(uri demo/v)"
kit_end TERM && ok 'it ends' || not_ok 'it ends'
t 0 'the pool is clean' "$ashlar" pool check demo

# Who reads the pool lets it start, but not write: once in the background it waits.
"$py" -c 'import fcntl, time
f = open("d1", "rb")
fcntl.lockf(f, fcntl.LOCK_SH)
print("held", flush=True)
time.sleep(3)' >held &
pids=($!)
until grep -qs held held; do sleep 0.02; done
kit_start "${kit[@]}" demo/v && ok 'a reader of the pool is waited for' || not_ok 'a reader of the pool is waited for'
wait "${pids[0]}"
pids=()
t 0 'then it serves' nbdinfo --can trim "$(uri demo/v)"
kit_end TERM && ok 'it ends' || not_ok 'it ends'

# Killed under load, and opened again.
kit_start "${kit[@]}" io=aio && ok 'all of the pool, by AIO' || not_ok 'all of the pool, by AIO'
"$py" "$here/stamp.py" write "$(uri demo/stamp)" state 20 1 >stamp.out 2>&1 &
pids=($!)
sleep 1.5
kit_end KILL
wait "${pids[0]}"
pids=()
locks_gone d1
t 0 'after kill -9 the pool is whole' "$ashlar" pool check demo
t 0 'a snapshot' "$ashlar" snapshot create demo/v@s
kit_start "${kit[@]}" && ok 'it starts again' || not_ok 'it starts again'
t 0 'all that was flushed is there' "$py" "$here/stamp.py" check "$(uri demo/stamp)" state
t 0 'exports are listed' nbdinfo --list --json "nbd+unix:///?socket=$nbd"
[ "$(value 'sorted((x["export-name"], x["is_read_only"]) for x in j["exports"])')" = "[('demo/stamp', False), ('demo/v', False), ('demo/v@s', True)]" ] &&
	ok 'volumes, and snapshots read-only' || not_ok 'volumes, and snapshots read-only'
t ! 'no default among several' nbdinfo "nbd+unix:///?socket=$nbd"
t 0 'a volume is overwritten' qemu-io -f raw -c 'write -P 9 0 1M' -c flush "$(uri demo/v)"
t 0 'the snapshot is not' nbdcopy "$(uri demo/v@s)" copy
cmp -n 41943040 image copy && ok 'byte by byte' || not_ok 'byte by byte'
t ! 'nor can it be' qemu-io -f raw -c 'write -P 9 0 4k' "$(uri demo/v@s)"
kit_end TERM && ok 'it ends' || not_ok 'it ends'

# Filters. The partition is made by hand: one of 8 MiB from 1 MiB on.
with 'snapshot alone' "${kit[@]}" demo/v@s -- 'nbdcopy "$uri" copy'
cmp -n 41943040 image copy && ok 'byte by byte' || not_ok 'byte by byte'
with 'cow: writes to it' --filter=cow "${kit[@]}" demo/v -- 'qemu-io -f raw -c "write -P 3 0 1M" -c "read -P 3 0 1M" "$uri"'
with 'and not to the volume' "${kit[@]}" demo/v -- 'qemu-io -f raw -c "read -P 9 0 1M" "$uri"'
with 'offset' --filter=offset "${kit[@]}" demo/v offset=64M range=8M -- 'qemu-io -f raw -c "write -P 4 0 64k" "$uri" && nbdinfo --size "$uri"'
says '^8388608$' 'its range'
with 'is where it should be' "${kit[@]}" demo/v -- 'qemu-io -f raw -c "read -P 4 64M 64k" "$uri"'
"$py" -c 'import struct, sys
mbr = bytearray(512)
mbr[446:462] = struct.pack("<BBBBBBBBII", 0, 0, 2, 0, 0x83, 0, 0, 0, 2048, 16384)
mbr[510:512] = b"\x55\xaa"
sys.stdout.buffer.write(mbr)' >mbr
with 'a partition table' "${kit[@]}" demo/v -- 'qemu-io -f raw -c "write -s mbr 0 512" "$uri"'
with 'partition' --filter=partition "${kit[@]}" demo/v partition=1 -- 'qemu-io -f raw -c "write -P 2 0 64k" "$uri" && nbdinfo --size "$uri"'
says '^8388608$' 'its size'
with 'is where it should be' "${kit[@]}" demo/v -- 'qemu-io -f raw -c "read -P 2 1M 64k" "$uri"'
with 'log' --filter=log "${kit[@]}" demo/v logfile=log -- 'qemu-io -f raw -c "write -f -P 1 2M 64k" "$uri"'
grep -Eq 'Write .*offset=0x200000 count=0x10000 fua=1' log && ok 'FUA arrives at the plugin' || not_ok 'FUA arrives at the plugin'
with 'blocksize: requests of any size' --filter=blocksize "${kit[@]}" demo/v minblock=512 -- \
	"$py"' -c "import nbd, sys; h = nbd.NBD(); h.connect_uri(sys.argv[1]); h.pwrite(b\"xyz\", 3000001); assert h.pread(3, 3000001) == b\"xyz\"" "$uri"'
before=$(sha256sum d1 d2 d3)
with 'read-only' "${kit[@]}" demo/v read-only=true -- 'nbdcopy "$uri" copy'
[ "$before" = "$(sha256sum d1 d2 d3)" ] && ok 'nothing was written to any disk' || not_ok 'nothing was written to any disk'
t 0 'the pool is clean' "$ashlar" pool check demo
done_
