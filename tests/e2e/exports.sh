#!/bin/bash
# Exports as clients meet them: what `export show` prints does run, TLS with certificates and keys, rules of access, limits, a
# resize, and restarts: sockets from a service manager, kill -9, clients that go on.
# usage: exports.sh BUILD
set -u
# shellcheck disable=SC2046
. "$(dirname "$0")/lib.sh"
need qemu-io fio nbdinfo openssl
port=$("$py" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$py" -c 'import sys; sys.path.insert(0, sys.argv[1]); import nbd_rig; nbd_rig.make_certificates("tls")' "$here/../proto" ||
	not_ok 'certificates'
echo "alice:000102030405060708090a0b0c0d0e0f" >tls/keys.psk
uid=$(id -u)

# show NAME ARG...: what the format prints, into shown
show() { "$ashlar" export show demo/v --format "$@" >shown 2>err || { cp err out; not_ok "export show --format $*"; }; }
# qemu_io NAME COMMAND...: the printed line of qemu-io with these commands
qemu_io() {
	local name=$1 c line
	shift
	line=$(grep '^qemu-io ' shown)
	for c; do line+=" -c '$c'"; done
	t 0 "$name" bash -c "$line"
	! grep -qi 'fail\|error' out || not_ok "$name: what it said"
}
fio_job() { # NAME
	cp shown job.fio
	sed -i 's/^runtime=.*/runtime=1/' job.fio
	t 0 "$1" fio --size=16m job.fio
}

# fio_as WHO NAME STATUS: the printed job, with his certificates where libnbd looks for them, which for root is no place of ours
fio_as() {
	local run=(env "HOME=$dir/home-$1")
	mkdir -p "home-$1/.pki"
	cp -r "tls/$1" "home-$1/.pki/libnbd" 2>/dev/null
	chmod -R a+rX "home-$1"
	[ "$uid" != 0 ] || run+=(setpriv --reuid 65534 --regid 65534 --clear-groups)
	sed 's/^runtime=.*/runtime=1/' shown >job.fio
	t "$3" "$2" "${run[@]}" fio --size=16m "$dir/job.fio"
}

chmod 0711 "$dir"
disks 512M d1 d2
t 0 'pool create' "$ashlar" pool create demo --layout raid1 d1 d2
t 0 'volume create' "$ashlar" volume create demo/v --size 64M
t 0 'volume create' "$ashlar" volume create demo/w --size 64M

# ---- what is refused at the start ----
refused 'an address of other hosts needs TLS' 'other hosts can reach' "$ashlar" serve --nbd "0.0.0.0:$port" d1 d2
refused 'keys that are not there' 'cannot read .*server-cert.pem' "$ashlar" serve --tls-certificates nowhere d1 d2
refused 'a file without keys' 'no key' "$ashlar" serve --tls-psk /dev/null d1 d2
t 2 'TLS without keys' "$ashlar" serve --tls require d1 d2
t 2 'verifying without certificates' "$ashlar" serve --tls-psk tls/keys.psk --tls-verify-peer d1 d2
t 2 'names that nobody vouches for' "$ashlar" serve --tls-certificates tls/server --tls-allow alice d1 d2
t 2 'no such format' "$ashlar" export show demo/v --format paper

# ---- in the clear, on this machine ----
serve --nbd "127.0.0.1:$port" d1 d2 || not_ok 'serve'
show qemu
qemu_io 'the line for QEMU runs' 'write -P 5 0 1M' 'read -P 5 4k 64k'
show qemu --nbd "127.0.0.1:$port"
qemu_io 'and the one for TCP' 'read -P 5 0 1M'
show fio
fio_job 'the job for fio runs'
show fio --nbd "127.0.0.1:$port"
fio_job 'and the one for TCP'
show libvirt
t 0 'the element for libvirt is XML' "$py" -c 'import sys, xml.dom.minidom as x; d = x.parse("shown"); assert d.getElementsByTagName("source")[0].getAttribute("name") == "demo/v"'
show nbd-client
grep -q "^nbd-client -N 'demo/v' .*-unix '$nbd'" shown && ok 'the line for nbd-client' || not_ok 'the line for nbd-client'
t 0 'which a shell takes' bash -c 'nbd-client() { [ "$1 $2 $3" = "-N demo/v -unix" ]; }; . ./shown'
t 0 'a name with everything in it' "$ashlar" export set demo/w --name "o'brien, & <sons> 100%?#"
for f in qemu fio libvirt; do
	"$ashlar" export show demo/w --format $f >shown 2>err || not_ok "its format $f"
	[ $f != libvirt ] || t 0 'its XML' "$py" -c 'import xml.dom.minidom as x; assert x.parse("shown").getElementsByTagName("source")[0].getAttribute("name") == "o\x27brien, & <sons> 100%?#"'
	[ $f != qemu ] || qemu_io 'its line for QEMU' 'read 0 4k'
	[ $f != fio ] || fio_job 'its job for fio'
done
t 0 'its name goes' "$ashlar" export set demo/w --name demo/w

# ---- requests of terabytes ----
t 0 'volume create' "$ashlar" volume create demo/big --size 16T
t 0 'zero, trim and block status over 16T, one request each' "$py" "$here/extended.py" "$nbd" demo/big $((16 << 40))
sed 's/^/# /' out
t 0 'volume delete' "$ashlar" volume delete demo/big

# ---- rules ----
t 0 'a rule that we meet' "$ashlar" export set demo/v --allow "uid:$uid" --allow tls:alice
t 0 'we see it' nbdinfo --size "$(uri demo/v)"
t ! 'by TCP we do not' nbdinfo --size "nbd://127.0.0.1:$port/demo/v"
nbdinfo --list "nbd://127.0.0.1:$port" >out 2>err
{ grep -q 'demo/w' out && ! grep -q 'demo/v' out; } && ok 'nor is it listed there' || not_ok 'nor is it listed there'
t 0 'a prefix that we meet' "$ashlar" export set demo/v --allow addr:127.0.0.0/8
t 0 'by TCP we see it' nbdinfo --size "nbd://127.0.0.1:$port/demo/v"
t ! 'by the socket we do not' nbdinfo --size "$(uri demo/v)"
t 0 'snapshot' "$ashlar" snapshot create demo/v@s
t ! 'a snapshot of it neither' nbdinfo --size "$(uri demo/v@s)"
refused 'rules are read before they are kept' 'no rule' "$ashlar" export set demo/v --allow addr:10.0.0.1/8
t 2 'export set of nothing' "$ashlar" export set demo/v
daemon_stop || not_ok 'stop'
serve --nbd "127.0.0.1:$port" d1 d2 || not_ok 'serve'
t ! 'rules are kept in the pool' nbdinfo --size "$(uri demo/v)"
t 0 'and lifted' "$ashlar" export set demo/v --allow any
t 0 'then all may' nbdinfo --size "$(uri demo/v@s)"
t 0 'a limit' "$ashlar" export set demo/v --max-connections 1
qemu-io --image-opts "driver=nbd,server.type=unix,server.path=$nbd,export=demo/v" -c 'read 0 4k' -c 'sleep 3000' >/dev/null 2>&1 &
holder=$!
pids=("$holder")
for _ in $(seq 100); do [ "$("$ashlar" connection list -H | wc -l)" = 1 ] && break; sleep 0.05; done
t ! 'one client more than that' qemu-io -f raw -c 'read 0 4k' "$(uri demo/v)"
wait "$holder"
pids=()
t 0 'when it has gone' qemu-io -f raw -c 'read 0 4k' "$(uri demo/v)"
t 0 'no limit' "$ashlar" export set demo/v --max-connections 0
t 0 'resize' "$ashlar" volume resize demo/v --size 96M
[ "$(nbdinfo --size "$(uri demo/v)")" = $((96 << 20)) ] && ok 'who asks again sees the new size' || not_ok 'who asks again sees the new size'
t 0 'read-only' "$ashlar" export set demo/v --read-only
show qemu
grep -q 'read-only=on' shown && ok 'the line says read-only' || not_ok 'the line says read-only'
qemu_io 'and runs' 'read 0 4k'
t 0 'writable' "$ashlar" export set demo/v --writable
daemon_stop || not_ok 'stop'

# ---- TLS ----
serve --nbd "0.0.0.0:$port" --tls-certificates tls/server --tls-psk tls/keys.psk d1 d2 || not_ok 'serve with keys beside certificates'
grep -q 'nobody has to show who he is' daemon.err && ok 'certificates that nobody is asked for: the daemon warns' || not_ok 'the daemon warns'
show fio --nbd "0.0.0.0:$port"
grep -q "^uri=nbd://$(uname -n):$port/" shown && ok 'where all addresses are meant, our name is printed' || not_ok 'our name is printed'
daemon_stop || not_ok 'stop'
serve --nbd "0.0.0.0:$port" --tls require --tls-certificates tls/server --tls-verify-peer --tls-psk tls/keys.psk d1 d2 || not_ok 'serve with TLS'
t ! 'nothing goes in the clear' nbdinfo --size "$(uri demo/v)"
refused 'export show asks for the keys' 'with TLS only' "$ashlar" export show demo/v --format qemu
for target in "" "--nbd localhost:$port"; do
	for keys in "--tls-certificates $dir/tls/alice" "--tls-psk $dir/tls/keys.psk --user alice"; do
		# shellcheck disable=SC2086
		show qemu $keys $target
		qemu_io "QEMU with $keys $target" 'write -P 9 0 64k' 'read -P 9 0 64k'
	done
done
show fio --tls-certificates "$dir/tls/alice"
grep -q "^uri=nbds+unix://localhost/demo/v?socket=$nbd" shown && ok 'a job for fio by the socket' || not_ok 'a job for fio by the socket'
show fio --tls-certificates "$dir/tls/alice" --nbd "localhost:$port"
fio_as alice 'fio with certificates' 0
refused 'fio takes no keys' 'takes no pre-shared keys' "$ashlar" export show demo/v --format fio --tls-psk tls/keys.psk
t 0 'a rule for alice' "$ashlar" export set demo/v --allow tls:alice
show fio --tls-certificates "$dir/tls/alice" --nbd "localhost:$port"
fio_as alice 'alice may' 0
fio_as bob 'bob may not' !
t 0 'no rule' "$ashlar" export set demo/v --allow any
daemon_stop || not_ok 'stop'

# ---- restarts ----
"$py" "$here/activate.py" events "unix:$dir/act.sock" "127.0.0.1:$port" -- "$ashlar" serve --control "$ASHLAR_CONTROL" d1 d2 >act.out 2>act.err &
manager=$!
pids=("$manager")
nbd=$dir/act.sock
for _ in $(seq 100); do [ -S "$nbd" ] && break; sleep 0.05; done
[ ! -s events ] && ok 'nothing runs before somebody comes' || not_ok 'nothing runs before somebody comes'
t 0 'the first client waits for the start' qemu-io -f raw -c 'write -P 3 0 1M' -c flush "$(uri demo/v)"
t 0 'the other socket too' nbdinfo --size "nbd://127.0.0.1:$port/demo/v"
sleep 1
grep -q 'READY=1' events && grep -q 'WATCHDOG=1' events && ok 'the manager is told' || not_ok 'the manager is told'
# A client of QEMU, one of libnbd and one of fio go on over a kill.
show qemu
line=$(grep '^qemu-io ' shown | sed 's/export=/reconnect-delay=60,export=/')
bash -c "$line -c 'write -P 4 1M 1M' -c flush -c 'sleep 2000' -c 'read -P 4 1M 1M' -c 'write -P 6 2M 1M' -c flush -c 'read -P 6 2M 1M'" >qemu.out 2>&1 &
qemu=$!
"$py" "$here/reconnect.py" "$(uri demo/w)" 5 >loop.out 2>&1 &
loop=$!
pids+=("$qemu" "$loop")
for i in 1 2; do
	sleep 1
	victim=$(awk '/^pid/ { p = $2 } END { print p }' events)
	kill -KILL "$victim"
	for _ in $(seq 200); do [ "$(grep -c READY=1 events)" = $((i + 1)) ] && break; sleep 0.05; done
done
wait "$qemu" && ! grep -qi 'fail\|error\|differ' qemu.out && ok 'QEMU goes on over kill -9' || { cp qemu.out out; not_ok 'QEMU goes on over kill -9'; }
wait "$loop" && ok "libnbd goes on over kill -9: $(cat loop.out)" || { cp loop.out out; not_ok 'libnbd goes on over kill -9'; }
kill -TERM "$manager"
wait "$manager" && ok 'SIGTERM ends it cleanly' || { cp act.err err; not_ok 'SIGTERM ends it cleanly'; }
pids=()
grep -q 'STOPPING=1' events && ok 'the manager is told that we stop' || not_ok 'the manager is told that we stop'
t 0 'pool check --data' "$ashlar" pool check --data demo
done_
