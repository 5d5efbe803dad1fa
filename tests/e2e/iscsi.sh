#!/bin/bash
# iSCSI as initiators meet it: libiscsi's test suite, qemu's initiator beside an NBD client, CHAP, LUNs for some initiators only,
# hostile ones, kill -9, changes of what is exported while sessions are there.
# What iscsi-test-cu skips: ORWRITE, WRITE ATOMIC and SANITIZE, which a thin volume does not offer; START STOP UNIT and PREVENT ALLOW of
# removable media; multipath, which needs a second path; writes of SAME without a length, which the block limits page rules out.
# usage: iscsi.sh BUILD
set -u
# shellcheck disable=SC2046
. "$(dirname "$0")/lib.sh"
need iscsi-ls iscsi-inq iscsi-test-cu qemu-io qemu-img nbdkit
port=$("$py" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
iqn=iqn.2026-01.org.test
url() { echo "iscsi://${2:-}127.0.0.1:$port/$iqn:$1"; }
session() { # NAME PYTHON: a session `i` of the small initiator does that
	"$py" - "$here/../proto" "$port" "$2" >out 2>err <<-'EOP' && ok "$1" || not_ok "$1"
	import sys
	sys.path.insert(0, sys.argv[1])
	from iscsi_rig import *
	addr = ("127.0.0.1", int(sys.argv[2]))
	iqn = "iqn.2026-01.org.test"
	exec(sys.argv[3])
	EOP
}

disks 1G d1 d2 e1 e2 f1
t 0 'pool create' "$ashlar" pool create demo --layout raid1 d1 d2
t 0 'another pool' "$ashlar" pool create other --layout raid1 e1 e2
truncate -s 1G f2
nbdkit -f -U "$dir/f2.sock" file "$dir/f2" >nbdkit.out 2>&1 &
nbdkit_pid=$!
pids+=("$nbdkit_pid")
for _ in {1..50}; do [ -S f2.sock ] && break; sleep 0.1; done
stuck="nbd+unix:///?socket=$dir/f2.sock"
t 0 'a pool with a disk that will not answer' "$ashlar" pool create stuck --layout raid1 f1 "$stuck"
t 0 'a volume there' "$ashlar" volume create stuck/v --size 64M
for v in v a b cu; do t 0 "volume $v" "$ashlar" volume create "demo/$v" --size 128M; done
echo alice-secret-12 >s1
echo bob-secret-3456 >s2
echo short >s3

# ---- what is exported ----
add=("$ashlar" export add)
t 0 'a LUN' "${add[@]}" demo/v --iscsi --iqn "$iqn:open"
t 0 'a LUN for who knows a secret' "${add[@]}" demo/a --iscsi --iqn "$iqn:secret" --chap-user alice --chap-secret-file s1 --mutual-user bob --mutual-secret-file s2
t 0 'a LUN for one initiator' "${add[@]}" demo/a --iscsi --iqn "$iqn:shared" --lun 1 --initiator "$iqn:a"
t 0 'another for another' "${add[@]}" demo/b --iscsi --iqn "$iqn:shared" --lun 2 --initiator "$iqn:b"
t 0 'a target with a LUN for who knows a secret' "${add[@]}" demo/a --iscsi --iqn "$iqn:mixed" --chap-user alice --chap-secret-file s1
t 0 'and one for everybody' "${add[@]}" demo/v --iscsi --iqn "$iqn:mixed"
t 0 'a name by default' "${add[@]}" demo/cu --iscsi
says 'LUN 0 of iqn\.2026-01\.org\.ashlar:demo\.cu' 'it says where it is'
for v in v b cu; do t 0 'one of many LUNs' "${add[@]}" demo/$v --iscsi --iqn "$iqn:many"; done
t 0 'one that has rules for NBD' "$ashlar" export set demo/b --allow uid:1
t 0 'is for every initiator all the same' "${add[@]}" demo/b --iscsi --iqn "$iqn:open" --lun 9
says 'every initiator' 'and that is said'
t 0 'not any more' "$ashlar" export remove demo/b --iscsi --iqn "$iqn:open"
t 0 'no rules' "$ashlar" export set demo/b --allow any
refused 'one that it is not' 'not exported by iSCSI as that: it is LUN 2 of' "$ashlar" export remove demo/b --iscsi --lun 7
t 0 'an export, without a daemon' "$ashlar" export show demo/b
says 'readonly +no' 'it is as it is set'
refused 'a LUN that is taken' 'LUN 1 of .*:shared is demo/a' "${add[@]}" demo/v --iscsi --iqn "$iqn:shared" --lun 1
refused 'the same volume twice in a session' 'is LUN 1 of' "${add[@]}" demo/a --iscsi --iqn "$iqn:shared" --lun 5 --initiator "$iqn:a"
refused 'a name that is none' 'not an iSCSI name' "${add[@]}" demo/v --iscsi --iqn Target
refused 'an initiator that is none' 'not an iSCSI name' "${add[@]}" demo/v --iscsi --iqn "$iqn:x" --initiator me
refused 'a short secret' '12 to 100 bytes' "${add[@]}" demo/v --iscsi --iqn "$iqn:x" --chap-user u --chap-secret-file s3
refused 'one secret for both directions' 'the same' "${add[@]}" demo/v --iscsi --iqn "$iqn:x" --chap-user u --chap-secret-file s1 --mutual-user w --mutual-secret-file s1
refused 'a secret for the target alone' 'goes with --chap-user' "${add[@]}" demo/v --iscsi --iqn "$iqn:x" --mutual-user w --mutual-secret-file s1
t 2 'a user without a secret' "${add[@]}" demo/v --iscsi --chap-user u
t 2 'options without --iscsi' "${add[@]}" demo/v --lun 3
refused 'a volume that is not there' 'no volume' "${add[@]}" demo/none --iscsi
t 0 'the list' "$ashlar" export list --iscsi
says "$iqn:shared +2 demo/b" 'it has the LUNs'
t 0 'an export' "$ashlar" export show demo/a --json
says 'alice' 'it names the user'
refused 'an address of other hosts' 'no encryption' "$ashlar" serve --iscsi "0.0.0.0:$port" d1 d2
t 2 'an address that is none' "$ashlar" serve --iscsi 3260 d1 d2

serve --iscsi "127.0.0.1:$port" d1 d2 e1 e2 f1 "$stuck" || not_ok 'serve'
t 0 'status' "$ashlar" daemon status
says "127.0.0.1:$port" 'it says where iSCSI is'
for f in iscsiadm libvirt-iscsi esxi; do
	t 0 "export show --format $f" "$ashlar" export show demo/a --format $f
	says "$iqn:secret" 'it has the target'
done
{ "$ashlar" export list --iscsi --json; "$ashlar" export list --json; for f in iscsiadm libvirt-iscsi esxi; do "$ashlar" export show demo/a --format $f; done
	"$ashlar" export show demo/a --json; "$ashlar" event list --json; cat daemon.out daemon.err; } >all 2>&1
grep -q 'secret-12\|secret-3456\|616c6963652d73' all && not_ok 'secrets are nowhere to be seen' || ok 'secrets are nowhere to be seen'

# ---- clients ----
t 0 'iscsi-ls' iscsi-ls "iscsi://127.0.0.1:$port"
says "Target:$iqn:open" 'it finds the target'
t 0 'iscsi-inq' iscsi-inq "$(url open)/0"
says 'ASHLAR' 'it knows us'
t ! 'no way in without the secret' iscsi-inq "$(url secret)/0"
t 0 'CHAP' iscsi-inq "$(url secret alice%alice-secret-12@)/0"
t ! 'a wrong secret' iscsi-inq "$(url secret alice%alice-secret-13@)/0"
t 0 'qemu-img over iSCSI' qemu-img info -f raw "$(url open)/0"
t 0 'written over NBD' qemu-io -f raw -c 'write -P 0x5a 1M 1M' -c flush "$(uri demo/v)"
t 0 'it reads the same over iSCSI' qemu-io -f raw -c 'read -P 0x5a 1M 1M' -c 'read -P 0 3M 1M' "$(url open)/0"
says 'read 1048576/1048576' 'all of it'
t 0 'written over iSCSI' qemu-io -f raw -c 'write -P 0xa5 1536k 64k' -c 'write -z 4M 1M' -c 'discard 1M 256k' -c flush "$(url open)/0"
t 0 'it reads the same over NBD' qemu-io -f raw -c 'read -P 0xa5 1536k 64k' -c 'read -P 0 1M 256k' -c 'read -P 0x5a 1280k 256k' "$(uri demo/v)"
timeout 60 qemu-img compare -f raw -F raw "$(url open)/0" "$(uri demo/v)" >out 2>err && ok 'both at the same moment' || not_ok 'both at the same moment'
timeout 300 "$py" "$here/../proto/iscsi_hostile.py" 127.0.0.1 "$port" "$daemon_pid" "$ashlar" >out 2>err && ok "hostile initiators: $(tail -n 1 out)" || not_ok 'hostile initiators'

t 0 'a LUN to be read only' "${add[@]}" demo/v --iscsi --iqn "$iqn:ro" --read-only
session 'who may only read does not change how it is for others' '
ro, rw = Initiator(addr).login(iqn + ":ro"), Initiator(addr).login(iqn + ":open")
assert ro.ready() and rw.ready()
st, _, sense, _, _ = ro.command([0x15, 0x10, 0, 0, 16, 0], write=bytes(4) + bytes([0x0a, 0x0a, 0, 0, 8]) + bytes(7))
assert st == 2 and sense[2] & 15 == 7, (st, sense.hex())
for i, want in (ro, 2), (rw, 0):
    assert i.command(write10(0, 1), write=bytes(512))[0] == want
'
t 0 'not any more' "$ashlar" export remove demo/v --iscsi --iqn "$iqn:ro"

# ---- changes ----
session 'the size changes: the next command says so, and an asynchronous message' '
i = Initiator(addr).login(iqn + ":open")
assert i.ready()
import subprocess
subprocess.run(["'"$ashlar"'", "volume", "resize", "demo/v", "192M"], check=True, stdout=subprocess.DEVNULL)
p = i.recv()
assert p.opcode == 0x32 and p.bhs[36] == 0 and p.data[14:16] == b"\x2a\x09", (hex(p.opcode), p.data.hex())
st, _, sense, _, _ = i.command(bytes(6))
assert st == 2 and sense[2] & 15 == 6 and sense[12:14] == b"\x2a\x09", sense.hex()
'
session 'what is not exported any more asks for a logout, then ends' '
import subprocess, time
i = Initiator(addr, name=iqn + ":b").login(iqn + ":shared")
assert i.ready(2)
k = Initiator(addr, name=iqn + ":a").login(iqn + ":shared")
assert k.ready(1)
subprocess.run(["'"$ashlar"'", "export", "remove", "demo/b", "--iscsi"], check=True, stdout=subprocess.DEVNULL)
p = i.recv()
assert p.opcode == 0x32 and p.bhs[36] == 1, hex(p.opcode)
assert i.logout() == 0
try:
    Initiator(addr, name=iqn + ":b").login(iqn + ":shared")
    raise AssertionError("it is still there")
except Refused as e:
    assert e.status == 0x203
assert k.ready(1)
'
session 'LUNs come to a session, and go, and it hears of it' '
import subprocess
def ashlar(*args):
    subprocess.run(["'"$ashlar"'"] + list(args), check=True, stdout=subprocess.DEVNULL)
def luns(i):
    st, data, _, _, _ = i.command(struct.pack(">BBBBBBIBB", 0xa0, 0, 0, 0, 0, 0, 256, 0, 0), read=256)
    assert st == 0
    return sorted(data[8 + 8 * k + 1] for k in range(int.from_bytes(data[:4], "big") // 8))
def hears(i, lun):
    p = i.recv()
    assert p.opcode == 0x32 and p.bhs[36] == 0 and p.data[14:16] == b"\x3f\x0e", (hex(p.opcode), p.data.hex())
    st, _, sense, _, _ = i.command(bytes(6), lun=lun)
    assert st == 2 and sense[2] & 15 == 6 and sense[12:14] == b"\x3f\x0e", sense.hex()
    assert i.command(bytes(6), lun=lun)[0] == 0
i = Initiator(addr, name=iqn + ":a").login(iqn + ":shared")
other = Initiator(addr, name=iqn + ":c")
assert i.ready(1) and luns(i) == [1]
for again in range(3):
    ashlar("export", "add", "demo/b", "--iscsi", "--iqn", iqn + ":shared", "--lun", "7", "--initiator", iqn + ":a")
    hears(i, 1)
    assert luns(i) == [1, 7] and i.ready(7)
    assert i.command(write10(again, 1), write=bytes([again]) * 512, lun=7)[0] == 0
    ashlar("export", "add", "demo/b", "--iscsi", "--iqn", iqn + ":shared", "--lun", "7", "--initiator", iqn + ":a", "--read-only")
    hears(i, 1)
    assert luns(i) == [1, 7] and i.ready(7)
    st, _, sense, _, _ = i.command(write10(again, 1), write=bytes(512), lun=7)
    assert st == 2 and sense[2] & 15 == 7, sense.hex()
    assert i.command(read10(again, 1), read=512, lun=7)[1] == bytes([again]) * 512
    ashlar("export", "remove", "demo/b", "--iscsi")
    hears(i, 1)
    assert luns(i) == [1]
    st, _, sense, _, _ = i.command(bytes(6), lun=7)
    assert st == 2 and sense[2] & 15 == 5 and sense[12] == 0x25, sense.hex()
assert i.logout() == 0
'
session 'LUNs that come with a secret are for sessions that have shown it' '
import subprocess
def ashlar(*args):
    subprocess.run(["'"$ashlar"'"] + list(args), check=True, stdout=subprocess.DEVNULL)
def luns(i):
    data = i.command(struct.pack(">BBBBBBIBB", 0xa0, 0, 0, 0, 0, 0, 256, 0, 0), read=256)[1]
    return sorted(data[8 + 8 * k + 1] for k in range(int.from_bytes(data[:4], "big") // 8))
ashlar("volume", "create", "demo/m", "--size", "64M")
ashlar("export", "add", "demo/m", "--iscsi", "--iqn", iqn + ":grown", "--lun", "0")
before = Initiator(addr).login(iqn + ":grown")
assert before.ready()
ashlar("export", "add", "demo/b", "--iscsi", "--iqn", iqn + ":grown", "--lun", "1", "--chap-user", "alice", "--chap-secret-file", "s1")
assert luns(before) == [0] and before.ready()
i = Initiator(addr).login(iqn + ":grown")
assert luns(i) == [0], luns(i)
st, _, sense, _, _ = i.command(read10(0, 1), read=512, lun=1)
assert st == 2 and sense[12] == 0x25, sense.hex()
i = Initiator(addr).login(iqn + ":grown", security=False)
assert luns(i) == [0], luns(i)
k = Initiator(addr).login(iqn + ":grown", user="alice", secret="alice-secret-12")
assert luns(k) == [0, 1]
ashlar("export", "remove", "demo/b", "--iscsi")
p = k.recv()
assert p.opcode == 0x32 and p.bhs[36] == 0, hex(p.opcode)
assert luns(k) == [0]
ashlar("volume", "delete", "demo/m", "--force")
'
session 'a volume that is deleted leaves its sessions' '
import subprocess
subprocess.run(["'"$ashlar"'", "volume", "create", "demo/gone", "--size", "64M"], check=True, stdout=subprocess.DEVNULL)
subprocess.run(["'"$ashlar"'", "export", "add", "demo/gone", "--iscsi", "--iqn", iqn + ":gone"], check=True, stdout=subprocess.DEVNULL)
i = Initiator(addr).login(iqn + ":gone")
assert i.ready()
subprocess.run(["'"$ashlar"'", "volume", "delete", "demo/gone", "--force"], check=True, stdout=subprocess.DEVNULL, timeout=30)
p = i.recv()
assert p.opcode == 0x32 and p.bhs[36] == 1, hex(p.opcode)
'

# ---- a restart ----
session 'a registration that is to last' '
i = Initiator(addr).login(iqn + ":open")
assert i.ready()
st, _, sense, _, _ = i.command(bytes([0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0]), write=bytes(8) + b"ASHLARK1" + bytes(4) + b"\1\0\0\0")
assert st == 0, sense.hex()
assert i.command(bytes([0x5f, 1, 3, 0, 0, 0, 0, 0, 24, 0]), write=b"ASHLARK1" + bytes(16))[0] == 0
'
t 0 'written before' qemu-io -f raw -c 'write -P 0x77 8M 1M' -c flush "$(url secret alice%alice-secret-12@)/0"
daemon_kill
serve --iscsi "127.0.0.1:$port" d1 d2 e1 e2 f1 "$stuck" || not_ok 'serve again'
t ! 'NBD clients are held to a reservation before any initiator is there' qemu-io -f raw -c 'write 0 64k' "$(uri demo/v)"
session 'a reservation holds after kill -9' '
i = Initiator(addr, name=iqn + ":other").login(iqn + ":open")
assert i.ready()
assert i.command(write10(0, 1), write=bytes(512))[0] == 0x18
st, data, _, _, _ = i.command(bytes([0x5e, 1, 0, 0, 0, 0, 0, 0, 64, 0]), read=64)
assert st == 0 and data[8:16] == b"ASHLARK1", data.hex()
'
t 0 'data is there after kill -9' qemu-io -f raw -c 'read -P 0x77 8M 1M' "$(url secret alice%alice-secret-12@)/0"

t 0 'the last export of a volume goes' "$ashlar" export remove demo/v --iscsi
t 0 'and with it the reservation, which nobody could release' qemu-io -f raw -c 'write 0 64k' "$(uri demo/v)"

# ---- to another pool ----
session 'a LUN goes to another pool while it is written to, and is the same' '
import subprocess
i = Initiator(addr).login("iqn.2026-01.org.ashlar:demo.cu")
assert i.ready()
vpd = bytes([0x12, 1, 0x83, 0, 255, 0])
was = i.command(vpd, read=255)[1]
move = subprocess.Popen(["'"$ashlar"'", "volume", "move", "demo/cu", "other", "--wait"], stdout=subprocess.DEVNULL)
wrote, n = {}, 0
while move.poll() is None or n < 200:
    at, fill = n * 37 % 4096 * 8, n % 251 + 1
    st, _, sense, _, _ = i.command(write10(at, 8), write=bytes([fill]) * 4096)
    assert st == 0, sense.hex()
    wrote[at] = fill
    n += 1
assert move.wait() == 0
for at, fill in wrote.items():
    assert i.command(read10(at, 8), read=4096)[1] == bytes([fill]) * 4096, at
assert i.command(vpd, read=255)[1] == was
k = Initiator(addr).login("iqn.2026-01.org.ashlar:demo.cu")
assert k.ready() and k.command(vpd, read=255)[1] == was
'
t 0 'its export is in the other pool' "$ashlar" export list --iscsi
says 'demo\.cu +0 other/cu' 'by the name that it had'

# ---- a disk that does not answer ----
t 0 'its volume is a disk for initiators' "$ashlar" export add stuck/v --iscsi --iqn "$iqn:stuck"
session 'a command that is stuck is aborted, and the session goes on' '
import glob, os, signal, time
i = Initiator(addr, timeout=20).login(iqn + ":stuck")
assert i.ready() and i.command(write10(0, 8), write=bytes(4096))[0] == 0
os.kill('"$nbdkit_pid"', signal.SIGSTOP)
while not all(open(t).read().rsplit(")", 1)[1].split()[0] == "T" for t in glob.glob("/proc/'"$nbdkit_pid"'/task/*/stat")):
    time.sleep(0.01)
try:
    b = i.bhs(1, 0xa1, 0, w20=4096, rest=write10(0, 8).ljust(16, b"\0"))
    i.send(b, b"x" * 4096)
    c = i.bhs(1, 0xa1, 0, w20=4096, rest=write10(64, 8).ljust(16, b"\0"))
    i.send(c, b"y" * 4096)
    time.sleep(0.5)
    start = time.monotonic()
    assert i.tmf(5) == 0 # LOGICAL UNIT RESET
    took = time.monotonic() - start
    assert 1 < took < 8, took
    assert i.tmf(1, ref=int.from_bytes(b[16:20], "big")) == 1 # there is no such task any more
    assert i.ready()
    st, data, sense, _, _ = i.command(read10(1024, 8), read=4096)
    assert st == 0, sense.hex()
    k = Initiator(addr, isid=i.isid, timeout=20).login(iqn + ":stuck") # takes the place of the first
    assert k.ready()
finally:
    os.kill('"$nbdkit_pid"', signal.SIGCONT)
st, data, sense, _, _ = k.command(read10(0, 8), read=4096)
assert st == 0 and data in (bytes(4096), b"x" * 4096), sense.hex()
'

# ---- all that libiscsi asks ----
timeout 400 iscsi-test-cu -d -n -t ALL "iscsi://127.0.0.1:$port/iqn.2026-01.org.ashlar:demo.cu/0" >cu 2>&1
grep -q '^ *tests .* 0 *0$' cu && ok "iscsi-test-cu: $(awk '$1 == "tests" { print $4 " passed" }' cu)" || { grep -A6 'had failures' cu >out; not_ok 'iscsi-test-cu'; }
daemon_lives && ok 'the daemon lives' || not_ok 'the daemon lives'
daemon_stop && ok 'it ends cleanly' || not_ok 'it ends cleanly'
t 0 'pool check' "$ashlar" pool check demo
t 0 'and of the other' "$ashlar" pool check other
done_
