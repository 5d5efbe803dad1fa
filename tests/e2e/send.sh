#!/bin/bash
# Send and receive between two daemons, and without one: over a pipe that is cut by killing, resumed, compared byte for byte.
# usage: send.sh BUILD [CUTS]
set -u
. "$(dirname "$0")/lib.sh"
need nbdcopy truncate dd
cuts=${2:-6}

# change: writes and punches somewhere into v.img
change() {
	local i
	for i in 1 2 3 4 5 6 7 8; do
		dd if=/dev/urandom of=v.img bs=4k seek=$((RANDOM % 24000)) count=$((RANDOM % 300 + 1)) conv=notrunc status=none
	done
	fallocate -p -o $((RANDOM % 20000 * 4096)) -l 4194304 v.img
	truncate -s 96M v.img
}
# snap N: v.img becomes the volume, then a snapshot and a copy to compare with
snap() {
	t 0 "the data of snapshot $1" nbdcopy v.img "nbd+unix:///src/v?socket=$nbd" 
	t 0 "snapshot $1" "$ashlar" snapshot create "src/v@s$1"
	cp --sparse=always v.img "s$1.img"
}
# compare N: the other side has it
compare() {
	t 0 "read back $1" nbdcopy "nbd+unix:///dst/w@s$1?socket=$dir/nbd2.sock" back.img
	t 0 "snapshot $1 is the same byte for byte" cmp "s$1.img" back.img
	rm -f back.img
}
# dst COMMAND...: ashlar as the other side knows it
mkdir bin
printf '#!/bin/sh\nASHLAR_CONTROL=%s ASHLAR_DISKS=%s exec %s "$@"\n' "$dir/control2.sock" "$dir/dst" "$ashlar" >bin/dst
chmod +x bin/dst
PATH=$dir/bin:$PATH
dst_serve() {
	local i
	: >daemon2.out
	dst serve --control "$dir/control2.sock" --nbd "unix:$dir/nbd2.sock" >daemon2.out 2>>daemon.err &
	dst_pid=$!
	pids+=("$dst_pid")
	for i in $(seq 600); do
		grep -qx ready daemon2.out && return 0
		sleep 0.05
	done
	return 1
}
used() { "$@" --json >out 2>err && value 'j["used_bytes"]'; }

mkdir src dst
export ASHLAR_DISKS=$dir/src
disks 256M src/d1 src/d2 dst/d1 dst/d2 dst/d3
t 0 'the first pool' "$ashlar" pool create src --layout raid1 src/d1 src/d2
t 0 'the second pool' dst pool create dst --layout raid5 dst/d1 dst/d2 dst/d3
t 0 'a volume' "$ashlar" volume create src/v --size 96M
serve && ok 'the first daemon' || not_ok 'the first daemon'
dst_serve && ok 'the second daemon' || not_ok 'the second daemon'
truncate -s 96M v.img
change
snap 0

# whole, over a pipe
"$ashlar" send src/v@s0 2>send.err | dst receive dst/w >out 2>err
[ "${PIPESTATUS[*]}" = '0 0' ] && ok 'send | receive' || not_ok 'send | receive'
says 'dst/w@s0 received' 'it says what was received'
compare 0
[ "$(used "$ashlar" snapshot show src/v@s0)" = "$(used dst snapshot show dst/w@s0)" ] && ok 'holes are kept' || not_ok 'holes are kept'

# Increments, each cut in turn on one of the two sides, and resumed by the token until it is through.
n_resumed=0
for n in 1 2 3; do
	change
	snap "$n"
	resume=
	for i in $(seq $((cuts + 1))); do
		rm -f pipe
		mkfifo pipe
		dst receive dst/w <pipe >out 2>err &
		receiver=$!
		# shellcheck disable=SC2086
		if [ "$i" -gt "$cuts" ]; then
			"$ashlar" send src/v@s$n --from s$((n - 1)) $resume >pipe 2>send.err
		else
			"$ashlar" send src/v@s$n --from s$((n - 1)) $resume 2>/dev/null | head -c $((RANDOM * 16 + 2000)) >pipe
		fi
		if [ $((i % 3)) = 2 ] && [ "$i" -le "$cuts" ]; then
			kill -KILL "$receiver" 2>/dev/null # its daemon sees the end of the stream
		fi
		wait "$receiver" 2>/dev/null
		status=$?
		[ $status = 0 ] && break
		dst snapshot list dst/w -H -o name >names 2>/dev/null
		grep -q "@s$n\$" names && not_ok "a cut stream is not to be seen"
		for k in $(seq 50); do # the daemon may still be at it
			[ "$(dst receive --list -H -o running)" = yes ] || break
			sleep 0.1
		done
		token=$(dst receive --list -H -o token)
		resume=${token:+--resume $token}
		n_resumed=$((n_resumed + (${#token} > 0)))
	done
	[ $status = 0 ] && ok "increment $n is through after $i tries" || not_ok "increment $n is through"
	compare "$n"
	[ -z "$(dst receive --list -H -o token)" ] && ok 'nothing is kept any more' || not_ok 'nothing is kept any more'
done
compare 0
[ "$n_resumed" -ge 3 ] && ok "streams went on $n_resumed times" || not_ok "streams went on $n_resumed times"

# The daemons are killed in the middle.
change
snap 4
mkfifo slow
dst receive dst/w <slow >out 2>err &
receiver=$!
pids+=("$receiver")
"$ashlar" send src/v@s4 --from s3 2>/dev/null | head -c 700000 >part
{ cat part; sleep 1; } >slow &
sleep 0.5
kill -KILL "$dst_pid"
wait "$dst_pid" 2>/dev/null
wait "$receiver"
[ $? = 1 ] && ok 'receive fails with its daemon' || not_ok 'receive fails with its daemon'
sleep 0.3
dst_serve && ok 'it comes back' || not_ok 'it comes back'
refused 'the volume is as before' 'no snapshot|there is no' dst snapshot show dst/w@s4
compare 3
token=$(dst receive --list -H -o token)
# shellcheck disable=SC2086
"$ashlar" send src/v@s4 --from s3 ${token:+--resume $token} 2>send.err | dst receive dst/w >out 2>err
[ "${PIPESTATUS[*]}" = '0 0' ] && ok 'and is brought up to date' || not_ok 'and is brought up to date'
compare 4

# Refusals, and what is left behind by them: nothing.
"$ashlar" send src/v@s0 --progress >whole 2>err && ok 'to a file' || not_ok 'to a file'
says 'src/v@s0 sent, .* of data' 'with progress it says how much that was'
printf 'x' | dd of=whole bs=1 seek=500000 conv=notrunc status=none
dst receive dst/damaged --no-resume <whole >out 2>err
[ $? = 1 ] && grep -q damaged err && ok 'a damaged stream is refused' || not_ok 'a damaged stream is refused'
refused 'no volume came of it' 'there is no volume' dst volume show dst/damaged
[ -z "$(dst receive --list -H -o token)" ] && ok 'and nothing is kept' || not_ok 'and nothing is kept'
refused 'a snapshot being sent from itself' 'itself' "$ashlar" send src/v@s1 --from s1
refused 'a token of nothing' 'not a token' "$ashlar" send src/v@s1 --resume xyz
refused 'no stream at all' 'no stream' dst receive dst/none
"$ashlar" send src/v@s2 2>err | head -c 100000 >/dev/null
[ "${PIPESTATUS[0]}" = 1 ] && ok 'send fails when nobody reads' || not_ok 'send fails when nobody reads'
t 0 'nothing holds the snapshot any more' "$ashlar" snapshot delete src/v@s2

# A reader that is stuck keeps nobody from ending.
mkfifo stuck
sleep 60 <stuck &
pids+=("$!")
"$ashlar" send src/v@s0 2>err >stuck &
sender=$!
sleep 1
kill -0 "$sender" 2>/dev/null && ok 'send waits for its reader' || not_ok 'send waits for its reader'
refused 'the snapshot is in use' 'in use' "$ashlar" snapshot delete src/v@s0
start=$SECONDS
daemon_stop && ok 'the first daemon ends' || not_ok 'the first daemon ends'
wait "$sender"
[ $? = 1 ] && [ $((SECONDS - start)) -lt 20 ] && ok 'and so does send' || not_ok 'and so does send'

# Without daemons: the commands open the pools themselves.
kill -TERM "$dst_pid"
wait "$dst_pid" && ok 'the second daemon ends' || not_ok 'the second daemon ends'
"$ashlar" send src/v@s0 2>send.err | dst receive dst/alone >out 2>err
[ "${PIPESTATUS[*]}" = '0 0' ] && ok 'send | receive without daemons' || not_ok 'send | receive without daemons'
t 0 'the second pool is clean' dst pool check dst --data
t 0 'the first pool is clean' "$ashlar" pool check src --data
dst_serve || not_ok 'the second daemon once more'
t 0 'read back' nbdcopy "nbd+unix:///dst/alone?socket=$dir/nbd2.sock" back.img
t 0 'the same byte for byte' cmp s0.img back.img
done_
