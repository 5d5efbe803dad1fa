#!/bin/bash
# A pool without space, and writes that wait for it: an initiator may take them back, log in again, and write when there is space; clients
# that end, and a daemon that is told to, do not wait with them.
# usage: full.sh BUILD
set -u
# shellcheck disable=SC2046
. "$(dirname "$0")/lib.sh"
need qemu-io fio
port=$("$py" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
disks 192M d1 d2
t 0 'pool create' "$ashlar" pool create demo --layout raid1 d1 d2
for v in good n one i; do t 0 "volume $v" "$ashlar" volume create "demo/$v" --size 1G; done
t 0 'a client at a time' "$ashlar" export set demo/one --max-connections 1
t 0 'a LUN' "$ashlar" export add demo/i --iscsi --iqn iqn.2026-01.org.test:i
serve --reactors 1 --iscsi "127.0.0.1:$port" d1 d2 || not_ok 'serve'
t 0 'a volume that has its space' qemu-io -f raw -c 'write 0 32M' -c flush "$(uri demo/good)"
waiting() { # VOLUME: has a write that waits for space
	for _ in $(seq 200); do
		"$ashlar" volume show "demo/$1" --json >out 2>err
		[ "$(value 'j["full_waiting"]')" = True ] && return
		sleep 0.05
	done
	return 1
}
qemu-io -f raw -c 'write 0 300M' "$(uri demo/n)" >n.out 2>&1 &
pids+=($!)
# so much at once that nothing more is taken from it
fio --thread --name=one --ioengine=nbd --uri="$(uri demo/one)" --rw=write --bs=1m --iodepth=100 --size=300m >one.out 2>&1 &
pids+=($!)
for v in n one; do waiting $v && ok "demo/$v: a write waits for space" || not_ok "demo/$v: a write waits for space"; done
fio --name=hold --ioengine=nbd --uri="$(uri demo/n)" --rw=write --bs=1m --iodepth=64 --numjobs=6 --offset=300m --size=64m >fio.out 2>&1 &
pids+=($!)
sleep 2
t 0 'whoever needs no space finds memory for large requests' timeout 10 qemu-io -f raw -c 'write 0 16M' -c 'read 16M 16M' -c 'write 16M 16M' "$(uri demo/good)"
kill -KILL "${pids[1]}"
wait "${pids[1]}" 2>/dev/null
since=$SECONDS

cat >init.py <<-'EOP'
	import sys, time
	sys.path.insert(0, sys.argv[1])
	from iscsi_rig import *

	def start(i, cdb, data):
	    b = i.bhs(1, 0x80 | 0x20 | 1, w20=len(data), rest=bytes(cdb).ljust(16, b"\0"))
	    i.send(b, data)
	    return int.from_bytes(b[16:20], "big"), int.from_bytes(b[24:28], "big")

	def login(isid=b"\x80\1\2\3\4\5"):
	    i = Initiator(("127.0.0.1", int(sys.argv[2])), isid=isid, timeout=5).login("iqn.2026-01.org.test:i")
	    assert i.ready()
	    return i

	same = struct.pack(">BBIBHB", 0x41, 0, 1 << 20, 0, 65535, 0)
EOP
{ cat init.py; cat <<-'EOP'; } >take.py
	i = login()
	start(i, same, b"s" * 512)
	time.sleep(0.5)
	tags = [start(i, write10(k * 2048, 128), b"w" * 65536) for k in range(40)]
	time.sleep(0.2)
	assert i.tmf(1, ref=tags[7][0], ref_sn=tags[7][1]) == 0
	assert i.tmf(5) == 0
	assert i.ready()
	start(i, same, b"s" * 512)
	time.sleep(0.2)
	login()
EOP
{ cat init.py; cat <<-'EOP'; } >hold.py
	start(login(), same, b"s" * 512)
	time.sleep(60)
EOP
t 0 'an initiator takes back what waits, and logs in again' "$py" take.py "$here/../proto" "$port"
for _ in $(seq 200); do
	[ "$("$ashlar" connection list -H | grep -c demo/one)" = 0 ] && break
	sleep 0.1
done
[ $((SECONDS - since)) -le 12 ] && ok 'a client that is dead gives up its place' || not_ok 'a client that is dead gives up its place'
t 0 'which another one takes' qemu-io -f raw -c 'read 0 4k' "$(uri demo/one)"
"$py" hold.py "$here/../proto" "$port" >/dev/null 2>&1 &
pids+=($!)
sleep 1
since=$SECONDS
daemon_stop && [ $((SECONDS - since)) -le 5 ] && ok 'the daemon ends' || not_ok 'the daemon ends'
kill "${pids[3]}"
wait "${pids[@]}" 2>/dev/null
pids=()
truncate -s 1G d3 d4
t 0 'more disks' "$ashlar" disk add demo d3
t 0 'more disks' "$ashlar" disk add demo d4
serve d1 d2 d3 d4 || not_ok 'serve'
t 0 'there is space' qemu-io -f raw -c 'write -P 1 0 300M' -c 'read -P 1 0 300M' "$(uri demo/n)"
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
t 0 'pool check' "$ashlar" pool check demo
done_
