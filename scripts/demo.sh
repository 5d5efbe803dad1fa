#!/bin/bash
# A guided tour that ends by itself: a pool on sparse files, a volume, a file system written over NBD, a snapshot, damage,
# rollback, a clone, differences, and everything sent to a second pool. Each command is shown, run as shown, and what it answered
# is checked; the first that is not as said ends the tour. Needs no root; all its files are in one directory, which goes at the end.
# usage: scripts/demo.sh ASHLAR
set -uo pipefail

PATH=$(dirname "$(readlink -f "$1")"):$PATH:/usr/sbin:/sbin
tree=$(readlink -f "$(dirname "${BASH_SOURCE[0]}")/..")
export LC_ALL=C PATH
for c in nbdcopy nbdinfo mke2fs e2fsck dumpe2fs debugfs; do
	command -v $c >/dev/null || { echo "demo.sh: $c is needed (packages libnbd-bin and e2fsprogs)" >&2; exit 1; }
done

dir=$(mktemp -d "${TMPDIR:-/tmp}/ashlar-demo.XXXXXX") || exit 1
cd "$dir" || exit 1
# Relative, so that a long $TMPDIR does not make socket names too long.
export ASHLAR_CONTROL=control.sock ASHLAR_DISKS=.
unset XDG_RUNTIME_DIR
daemon=
started=$(date +%s)

# However it ends, the daemon does too. Only killed if it has not ended by itself.
cleanup() {
	[ -z "$daemon" ] || { kill -KILL "$daemon" && wait "$daemon"; } 2>/dev/null
	cd / && rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

bold= plain=
[ ! -t 1 ] || { bold=$'\e[1m' plain=$'\e[0m'; }

wrong() {
	printf '\ndemo.sh: %s\n' "$1" >&2
	[ ! -s serve.err ] || sed 's/^/the daemon: /' serve.err >&2
	exit 1
}
title() { printf '\n%s# %s%s\n' "$bold" "$1" "$plain"; }
show() { printf '\n%s$ %s%s\n' "$bold" "$1" "$plain"; }
# run works|fails COMMAND: shows it, runs it, shows what it answered, which must end as said. The answer stays in `answer`.
run() {
	local status=0
	show "$2"
	timeout 60 bash -o pipefail -c "$2" >answer 2>&1 </dev/null || status=$?
	cat answer
	case $1,$status in
	works,0 | fails,[1-9] | fails,[1-9][0-9]) ;;
	*) wrong "that ended with exit status $status" ;;
	esac
}
uri() { echo "'nbd+unix:///$1?socket=nbd.sock'"; }
# says REGEX: the last answer has such a line
says() { grep -Eq -- "$1" answer || wrong "that should have said: $1"; }

# Pages of the tree are what the file system holds.
mkdir files && cp -R "$tree/docs" "$tree/engine" "$tree/README.md" files || exit 1

title 'A pool of four disks, which are sparse files here, and a thin volume: it takes space as it is written.'
run works 'truncate -s 1G disk1.img disk2.img disk3.img disk4.img'
run works 'ashlar pool create demo --layout raid1 disk*.img'
says '^pool demo made of 4 disks$'
run works 'ashlar volume create demo/web --size 128M'
says '^volume demo/web created \(128M, raid1\)$'

title 'The daemon serves it over NBD.'
show 'ashlar serve --nbd unix:nbd.sock disk*.img &'
>serve.out
ashlar serve --nbd unix:nbd.sock disk*.img >serve.out 2>serve.err </dev/null &
daemon=$!
for ((i = 0; i < 300; i++)); do
	! grep -qx ready serve.out || break
	kill -0 $daemon 2>/dev/null || wrong 'the daemon has ended'
	sleep 0.1
done
cat serve.out
grep -qx ready serve.out || wrong 'the daemon is not ready'

title "A file system, written over NBD: here with files of this project; a virtual machine would do it by itself."
run works 'mke2fs -q -t ext4 -d files web.img 128M'
run works "nbdcopy web.img $(uri demo/web)"
run works 'ashlar volume list'
says '^demo/web 128M '

title 'A snapshot: it takes no time and no space, and is an export of its own, read-only.'
run works 'ashlar snapshot create demo/web@good'
says '^snapshot demo/web@good taken$'
run works "nbdinfo $(uri demo/web@good)"
says 'is_read_only: true'

title 'Damage: 6 MiB of noise over the beginning of the volume. The file system is gone.'
run works 'head -c 6M /dev/urandom >noise'
run works "nbdcopy noise $(uri demo/web)"
run works "nbdcopy $(uri demo/web) now.img"
run fails 'dumpe2fs -h now.img'
says 'Bad magic number in super-block'

title 'What has changed since the snapshot is known without reading any data; and what it has cost.'
run works 'ashlar snapshot diff demo/web@good demo/web'
says '^ *0 +6M +data$'
[ "$(tail -n +2 answer | wc -l)" = 1 ] || wrong 'nothing but these 6 MiB has changed'
run works 'ashlar snapshot list demo/web'
says '^demo/web@good '

title 'Rollback: the volume is what it was.'
run works 'ashlar snapshot rollback demo/web@good'
says '^volume demo/web rolled back to demo/web@good, 6M freed$'
run works "nbdcopy $(uri demo/web) now.img"
run works 'e2fsck -fn now.img'
run works 'cmp web.img now.img && echo same'
run works 'debugfs -R "rdump /docs /engine /README.md ." now.img && for f in docs engine README.md; do diff -r files/$f $f || exit; done; echo every file is back'
says '^every file is back$'

title 'A clone: a volume of its own, which shares what it has not overwritten. It gets a boot sector here.'
run works 'ashlar clone demo/web@good test'
says '^volume demo/test made of demo/web@good$'
run works "head -c 512 noise >sector; nbdcopy sector $(uri demo/test)"
run works 'ashlar volume list'
says '^demo/test +128M +[^ ]+ +[^ ]+ +64K '
run works 'ashlar snapshot diff demo/web@good demo/test'
says '^ *0 +4K +data$'
run works 'ashlar snapshot diff --json demo/web@good demo/web'
says '^\[\]$'

title 'To a second pool, as on another machine: first all of a snapshot, then what has changed since.'
run works 'truncate -s 1G far1.img far2.img far3.img'
run works 'ashlar pool create vault --layout raid5 --serve far*.img'
says '^pool vault made of 3 disks'
run works 'ashlar send demo/web@good | ashlar receive vault/web'
says '^vault/web@good received, '
run works "nbdcopy noise $(uri demo/web) && ashlar snapshot create demo/web@next"
run works 'ashlar send demo/web@next --from good | tee stream | ashlar receive vault/web'
says '^vault/web@next received, 6M of data$'
run works 'ls -sh stream'
for s in good next; do
	run works "for p in demo vault; do nbdcopy \"nbd+unix:///\$p/web@$s?socket=nbd.sock\" \$p.img; done; cmp demo.img vault.img && echo same"
	says '^same$'
done
run works 'ashlar snapshot list'
says '^vault/web@next '

title 'Deleted in any order, clones or not; the clone stays whole. And the check of all metadata agrees.'
run works 'ashlar volume delete demo/web --snapshots'
says '^volume demo/web deleted with its 2 snapshots, '
run works "nbdcopy $(uri demo/test) now.img && cmp -i 512 web.img now.img && echo same"
says '^same$'
run works 'ashlar daemon stop'
wait $daemon || wrong 'the daemon has not ended cleanly'
daemon=
run works 'ashlar pool check demo && ashlar pool check vault'

title "That was all, in $(($(date +%s) - started)) s; the files of this tour are deleted now. \`make run\` makes a pool that stays."
