#!/bin/bash
# Remote disks: a raid6 pool of two files and two exports of NBD servers, each server in a network namespace of its own. While a client
# writes and verifies, one server is cut off (its link goes down: nothing is said, nothing answers), then the other is killed. The client
# must not notice but for a pause of some seconds. When link and server are back, so are the disks, by themselves, and get what they have
# missed and no more. Afterwards scrub and check find nothing.
# usage: remote.sh BUILD
if [ -z "${IN_NETNS:-}" ]; then
	export IN_NETNS=1
	for how in -n -rn; do
		unshare $how true 2>/dev/null && exec unshare $how bash "$0" "$@"
	done
	echo "# skipped: network namespaces cannot be made here"
	echo "0 passed, 0 failed"
	exit 0
fi
set -u
. "$(dirname "$0")/lib.sh"
need fio qemu-io nbdkit ip nsenter
ip link set lo up

json() { timeout 60 "$ashlar" "$@" --json >out 2>err </dev/null; }
# until_ SECONDS NAME COMMAND...: waits until the command succeeds
until_() {
	local end=$((SECONDS + $1)) name=$2
	shift 2
	while ! "$@"; do
		[ $SECONDS -lt $end ] || { not_ok "$name"; return 1; }
		sleep 0.1
	done
	ok "$name"
}
field() { json disk list demo && value "[d['$2'] for d in j if d['path'] == '$1'][0]"; }
is_absent() { [ "$(field "$1" state)" = absent ]; }
is_redundant() {
	json pool show demo && [ "$(value 'j["redundancy"] == 2 and j["groups_degraded"] == 0')" = True ]
}
now_ms() { date +%s%3N; }

# host N: a network namespace, joined to ours by one link: 192.0.2.(4N+1) here, 192.0.2.(4N+2) there
host() {
	unshare -n sleep 1000 &
	eval "host_$1=$!"
	pids+=($!)
	local pid=$! i
	for i in $(seq 100); do [ "$(readlink /proc/$pid/ns/net)" != "$(readlink /proc/self/ns/net)" ] && break; sleep 0.02; done
	ip link add "v$1" type veth peer name eth0 netns $pid &&
		ip addr add "192.0.2.$((4 * $1 + 1))/30" dev "v$1" && ip link set "v$1" up &&
		nsenter -t $pid -n ip addr add "192.0.2.$((4 * $1 + 2))/30" dev eth0 && nsenter -t $pid -n ip link set eth0 up
}
# server N [-r]: an NBD server there, of the file rN; read-only
server() {
	local h=host_$1 i
	rm -f "r$1.pid"
	nsenter -t "${!h}" -n nbdkit -f ${2:-} -e disk -P "$dir/r$1.pid" file "$dir/r$1" >>"nbdkit.$1" 2>&1 &
	eval "server_$1=$!"
	pids+=($!)
	for i in $(seq 100); do [ -s "r$1.pid" ] && return; sleep 0.05; done
	return 1
}
link() { local h=host_$1; nsenter -t "${!h}" -n ip link set eth0 "$2"; }
fio_args() { echo fio --name=job --ioengine=nbd "--uri=$(uri "demo/$1")" --verify=crc32c --verify_state_save=0 "${@:2}"; }

mkdir disks
truncate -s 256M disks/l1 disks/l2 r1 r2
if ! host 1 2>err || ! host 2 2>err; then
	echo "# skipped: virtual links cannot be made here: $(cat err)"
	n_ok=0
	done_
fi
server 1 && server 2 && ok "two servers" || not_ok "two servers"
r1=nbd://192.0.2.6/disk r2=nbd://192.0.2.10/disk
export ASHLAR_DISKS="$dir/disks:$r1 $r2"
t 0 "a pool of two files and two remote disks" "$ashlar" pool create demo --layout raid6 disks/l1 disks/l2 "$r1" "$r2"
json disk list demo
[ "$(value 'sorted(d["path"] for d in j)[2:]')" = "['$r2', '$r1']" ] && ok "disk list shows the URIs" || not_ok "disk list shows the URIs"
refused "what is on a remote disk is not overwritten" 'belongs to pool demo' "$ashlar" pool create other disks/l1 "$r1"
refused "a URI with a password is refused" 'has a password' "$ashlar" pool create other nbd://joe:secret@192.0.2.6/disk
grep -q secret err && not_ok "the password is not repeated" || ok "the password is not repeated"
refused "a server that is not there is named" 'cannot connect to nbd://192.0.2.6:1/disk.*refused' "$ashlar" pool create other nbd://192.0.2.6:1/disk
for i in still load; do t 0 "volume create $i" "$ashlar" volume create "demo/$i" --size 256M; done
serve --reactors 2 "$dir/disks" "$r1" "$r2" && ok "served" || not_ok "served"
$(fio_args still --rw=write --bs=64k --size=96m --do_verify=0 --end_fsync=1) >out 2>err && ok "something is written" || not_ok "something is written"

$(fio_args load --rw=randwrite --bs=4k --iodepth=16 --size=16m --verify_backlog=256 --time_based --runtime=10 --output-format=json) >fio.json 2>fio.err &
load=$!
pids+=($load)
sleep 1
since=$(now_ms)
link 1 down
until_ 12 "a server that is cut off: its disk is absent" is_absent "$r1"
echo "# absent after $(($(now_ms) - since)) ms"
since=$(now_ms)
kill -KILL "$server_2"
until_ 5 "a server that is killed: its disk is absent" is_absent "$r2"
echo "# absent after $(($(now_ms) - since)) ms"
wait $load && ok "the client has no error and reads what it wrote" || not_ok "the client has no error and reads what it wrote"
pause=$("$py" -c 'import json
t = open("fio.json").read()
j = json.loads(t[t.index("{"):])["jobs"][0]
print(max(j[d]["clat_ns"]["max"] for d in ("read", "write")) // 1000000)')
echo "# longest pause of a request: $pause ms"
[ "$pause" -lt 9000 ] && ok "the longest pause is that of finding out" || not_ok "the longest pause is that of finding out"

server 2 -r
refused "a disk that comes back read-only is refused" 'is exported read-only' "$ashlar" disk online demo "$r2"
case "$(field "$r2" reason)" in
"is there, but is exported read-only"*) ok "disk list says so" ;;
*) not_ok "disk list says so" ;;
esac
kill -KILL "$server_2"
link 1 up
server 2
until_ 30 "both are back by themselves" is_redundant
for d in "$r1" "$r2"; do
	used=$(field "$d" used_bytes)
	copied=$(field "$d" bytes_written)
	echo "# $d: $copied bytes written of $used in use"
	[ "$copied" -gt 0 ] && [ "$copied" -lt $((used / 2)) ] && ok "$d: gets what it has missed and no more" || not_ok "$d: gets what it has missed and no more"
done
t 0 "pool scrub finds nothing" "$ashlar" pool scrub demo --wait
t 0 "pool check --data finds nothing" "$ashlar" pool check --data demo
t 0 "disk fail l1" "$ashlar" disk fail demo l1
t 0 "disk fail l2" "$ashlar" disk fail demo l2
t 0 "all of it is read from the remote disks" $(fio_args still --rw=write --bs=64k --size=96m --verify_only)
daemon_lives && ok "the daemon lives" || not_ok "the daemon lives"
daemon_stop && ok "ends cleanly" || not_ok "ends cleanly"
json pool list
[ "$(value '[p["name"] for p in j]')" = "['demo']" ] && ok "found without a daemon" || not_ok "found without a daemon"
done_
