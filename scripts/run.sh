#!/bin/bash
# From nothing to a served volume: four sparse files, a pool, a thin volume, NBD. Files are kept in ./run and used again.
# usage: scripts/run.sh ASHLAR      (RUN_DIR: another directory; RUN_ONCE=1: start, look, stop)
set -euo pipefail

ashlar=$1
dir=${RUN_DIR:-run}
once=${RUN_ONCE:-}
pool=demo
vol=$pool/vm1
tcp=127.0.0.1:10809

mkdir -p "$dir"
chmod 0700 "$dir"
control=$dir/ashlar.sock
nbd=$dir/nbd.sock
# A unix socket's path has at most 107 bytes; relative ones keep it short.
[ ${#nbd} -lt 100 ] || { echo "run.sh: the path $dir is too long for a socket; set RUN_DIR" >&2; exit 1; }
export ASHLAR_CONTROL=$control ASHLAR_DISKS=$dir

if "$ashlar" daemon status >/dev/null 2>&1; then
	echo "run.sh: $dir is being served already (ASHLAR_CONTROL=$control $ashlar daemon stop ends it)" >&2
	exit 1
fi

for i in 1 2 3 4; do
	[ -e "$dir/disk$i.img" ] || truncate -s 4G "$dir/disk$i.img"
done
if ! "$ashlar" pool show $pool >/dev/null 2>&1; then
	# Files that hold a pool which cannot be opened are refused here, with the reason; nothing is overwritten.
	"$ashlar" pool create $pool --layout raid1 "$dir"/disk{1,2,3,4}.img
fi
"$ashlar" volume show $vol >/dev/null 2>&1 || "$ashlar" volume create $vol --size 10G

serve=("$ashlar" serve --control "$control" --nbd "unix:$nbd")
# Is the port free? Nobody answers there.
if (exec 3<>"/dev/tcp/${tcp%:*}/${tcp#*:}") 2>/dev/null; then
	tcp=
else
	serve+=(--nbd "$tcp")
fi
serve+=("$dir"/disk{1,2,3,4}.img)

uri="nbd+unix:///$vol?socket=$nbd"

next() {
	cat <<-END

	The volume $vol is served. In another terminal, from this directory:

	  nbdinfo '$uri'
	  qemu-img convert -n -p -O raw YOUR-IMAGE.qcow2 '$uri'
	  qemu-system-x86_64 -m 2G -enable-kvm -drive 'file=$uri,format=raw,if=virtio,cache=none,discard=unmap'
	  fio --name=test --ioengine=nbd --uri='$uri' --rw=randrw --bs=4k --iodepth=32 --size=1G --runtime=10 --time_based
	  $ashlar volume list --control $control
	  $ashlar volume create $pool/vm2 --size 20G --control $control
	END
	[ -z "$tcp" ] || echo "  nbdinfo nbd://$tcp/$vol        (TCP, for this machine only)"
	printf '\nfio overwrites what is on the volume. Ctrl-C here closes the pool; `make run` opens it again.\n\n'
}

# Waits for the line "ready" in the daemon's output, which goes on to the terminal.
fifo=$(mktemp -u "$dir/out.XXXXXX")
mkfifo -m 0600 "$fifo"
"${serve[@]}" >"$fifo" &
pid=$!
exec 4<"$fifo"
rm -f "$fifo"
# However this script ends, the daemon does too; a reader of our output that goes away is a way to end.
trap '' PIPE
trap 'kill -TERM $pid 2>/dev/null || true' EXIT INT TERM
ready=
while IFS= read -r line <&4; do
	echo "$line"
	[ "$line" != ready ] || { ready=1; break; }
done
if [ -z "$ready" ]; then
	wait $pid || exit $?
	exit 1
fi

if [ -n "$once" ]; then
	ok=0
	nbdinfo "$uri" || ok=1
	"$ashlar" volume list || ok=1
	kill -TERM $pid
	cat <&4
	wait $pid || ok=1
	exit $ok
fi

next
cat <&4 &
# A signal ends `wait` early: wait again for the clean end. Ctrl-C reaches the daemon by itself, and a second one ends it.
trap ':' INT
trap 'kill -TERM $pid 2>/dev/null || true' TERM
status=0
while kill -0 $pid 2>/dev/null; do
	status=0
	wait $pid || status=$?
done
exit $status
