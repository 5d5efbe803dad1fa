#!/bin/bash
# Bad input and scarce resources: 64 file descriptors, 10,000 connections, clients that stop reading, requests and names
# beyond all limits, a volume deleted while attached. The daemon and its good clients go on.
# usage: limits.sh BUILD
set -u
. "$(dirname "$0")/lib.sh"
need prlimit

# scene NAME EXPORT: its lines count here
scene() {
	timeout 100 "$py" "$here/limits.py" "$1" "$nbd" "$2" "$daemon_pid" >scene.out 2>scene.err || not_ok "$1: ends"
	[ ! -s scene.err ] || sed 's/^/#   /' scene.err | tail -n 12
	add_counts scene.out
	daemon_lives && ok "$1: the daemon lives" || not_ok "$1: the daemon lives"
}

disks 512M d1 d2
t 0 'pool create' "$ashlar" pool create demo --layout raid1 d1 d2
t 0 'volume create' "$ashlar" volume create demo/v1 --size 8G
serve_under='prlimit --nofile=64'
if serve; then
	scene crowd demo/v1
	scene names demo/v1
	daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
else
	not_ok 'the daemon starts with 64 descriptors'
fi
serve_under=
serve || not_ok 'the daemon starts'
scene requests demo/v1
scene stalled demo/v1

# Deleted while attached.
t 0 'volume create' "$ashlar" volume create demo/v2 --size 64M
"$py" "$here/limits.py" cut "$nbd" demo/v2 >cut.out 2>cut.err &
client=$!
pids=("$client")
for _ in $(seq 100); do grep -q attached cut.out && break; sleep 0.05; done
refused 'deleting an attached volume' 'attached|in use|client' "$ashlar" volume delete demo/v2
says '--force' 'the way out is named'
kill -0 $client 2>/dev/null && ok 'its client goes on' || not_ok 'its client goes on'
t 0 'with --force' "$ashlar" volume delete demo/v2 --force
wait $client
pids=()
sed -i /attached/d cut.out
add_counts cut.out
daemon_lives && ok 'the daemon lives' || not_ok 'the daemon lives'
t 1 'the volume is gone' "$ashlar" volume show demo/v2

# Sizes and names on the command line.
for s in 0 0K 1 513 2000P 1025P; do t 1 "size $s" "$ashlar" volume create demo/x --size $s; done
for s in -1 -5G '' 99999999999999999999; do t 2 "size '$s'" "$ashlar" volume create demo/x "--size=$s"; done
t 1 'resize to 0' "$ashlar" volume resize demo/v1 0
t 2 'resize to a negative size' "$ashlar" volume resize demo/v1 --size=-1G
t 1 'resize beyond limits' "$ashlar" volume resize demo/v1 1025P
for n in demo/a/b demo/.. .. ../x demo/ / $'demo/a\nb' "demo/$(printf 'x%.0s' {1..4097})" "$(printf 'x%.0s' {1..4097})"; do
	t 1 "volume name $(printf %.20q "$n")" "$ashlar" volume create "$n" --size 1M
done
t 0 'the largest volume' "$ashlar" volume create demo/large --size 1024P
t 0 'its last sector' qemu-io -f raw -c "write -P 7 $(((1 << 60) - 512)) 512" -c "read -P 7 $(((1 << 60) - 512)) 512" "$(uri demo/large)"
t 0 'delete it' "$ashlar" volume delete demo/large
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
t 0 'pool check --data' "$ashlar" pool check --data demo
done_
