#!/bin/bash
# The clients that people have, each over unix sockets and TCP, in the clear and with TLS by keys and by certificates: qemu-img, qemu-io,
# nbdinfo, nbdcopy, nbdsh, fio, nbdfuse. What one has written, another one reads. Guests are in vm.sh and vm_nbd.sh.
# usage: clients.sh BUILD
set -u
# shellcheck disable=SC2046
. "$(dirname "$0")/lib.sh"
need qemu-img qemu-io nbdinfo nbdcopy nbdsh fio openssl
port=$("$py" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$py" -c 'import sys; sys.path.insert(0, sys.argv[1]); import nbd_rig; nbd_rig.make_certificates("tls")' "$here/../proto" ||
	not_ok 'certificates'
mkdir tls/psk
echo "alice:000102030405060708090a0b0c0d0e0f" >tls/psk/keys.psk
size=$((24 << 20))

# way WHERE KEYS: how to get there: $uri for those of libnbd, $opts and $creds for those of QEMU
way() {
	local s= user= query=
	creds=()
	case $2 in
	psk) s=s user=alice@ query="tls-psk-file=$dir/tls/psk/keys.psk" creds=(--object "tls-creds-psk,id=t,endpoint=client,dir=$dir/tls/psk,username=alice") ;;
	x509) s=s query="tls-certificates=$dir/tls/alice" creds=(--object "tls-creds-x509,id=t,endpoint=client,dir=$dir/tls/alice") ;;
	esac
	case $1 in
	unix)
		uri="nbd$s+unix://$user${s:+localhost}/demo/v?socket=$nbd${query:+&$query}"
		opts="driver=nbd,server.type=unix,server.path=$nbd,export=demo/v"
		;;
	tcp)
		uri="nbd$s://${user}localhost:$port/demo/v${query:+?$query}"
		opts="driver=nbd,server.type=inet,server.host=localhost,server.port=$port,export=demo/v"
		;;
	esac
	[ -z "$s" ] || opts+=",tls-creds=t"
	[ "$2" != x509 ] || opts+=",tls-hostname=localhost"
}

# fio and nbdfuse take no keys, and find certificates only where their user has them, which for root is no place of ours.
at_home() { # WHERE KEYS: $at, their URI
	at=$uri
	[ "$2" != x509 ] || at=${uri%[?&]tls-*}
	[ "$2" != psk ]
}
fio_run() { # WHERE KEYS
	local run=()
	at_home "$@" || return
	if [ "$2" = x509 ]; then
		run=(env "HOME=$dir/home")
		if [ "$(id -u)" = 0 ]; then
			[ "$1" = tcp ] || return # the socket is root's
			run+=(setpriv --reuid 65534 --regid 65534 --clear-groups)
		fi
	fi
	t 0 "$1 $2: fio" "${run[@]}" fio --name=job --ioengine=nbd "--uri=$at" --rw=randwrite --bs=4k --iodepth=16 --numjobs=2 --offset=48m \
		--offset_increment=4m --size=4m --fsync=32 --verify=crc32c --verify_state_save=0
}
# In name spaces of its own: there root is not called root, and may mount.
fuse_run() { # WHERE KEYS
	local run=()
	at_home "$@" || return
	[ "$2" != x509 ] || run=(env "HOME=$dir/home" unshare --user --map-user=1000 --map-group=1000 --mount --keep-caps)
	{ command -v nbdfuse && [ -w /dev/fuse ] && { [ "$(id -u)" = 0 ] || command -v fusermount3; } && "${run[@]}" true; } >/dev/null 2>&1 ||
		{ echo "# $1 $2: nbdfuse is not there, or FUSE cannot be used"; return; }
	t 0 "$1 $2: nbdfuse" "${run[@]}" bash fuse.sh "$at" "$size"
}
mkdir mnt
# The volume as a file: what is in `image` is there; it can be written.
cat >fuse.sh <<'FUSE'
nbdfuse mnt/v "$1" &
for _ in $(seq 200); do [ -e mnt/v ] && break; sleep 0.05; done
mountpoint mnt || exit 1
bad=0
cmp -n "$2" image mnt/v || bad=1
dd if=image of=mnt/v bs=1M count=3 seek=40 conv=notrunc,fsync status=none || bad=1
dd if=mnt/v bs=1M count=3 skip=40 status=none | cmp -n $((3 << 20)) - image || bad=1
kill $!
wait
mountpoint -q mnt && bad=1
exit $bad
FUSE

shell='
assert h.get_size() == 64 << 20 and h.get_structured_replies_negotiated()
buf = bytes(range(256)) * 256
h.pwrite(buf, 36 << 20, nbd.CMD_FLAG_FUA)
assert h.pread(len(buf), 36 << 20) == buf
h.trim(1 << 20, 37 << 20)
h.zero(1 << 20, 38 << 20, nbd.CMD_FLAG_NO_HOLE)
h.cache(1 << 20, 36 << 20)
h.flush()
assert h.pread(2 << 20, 37 << 20) == bytearray(2 << 20)
found = []
h.block_status(3 << 20, 36 << 20, lambda context, offset, entries, error: found.extend(entries))
assert found and found[1] == 0, found
'

all_clients() { # WHERE KEYS
	local name="$1 $2" tls=True
	way "$1" "$2"
	[ "$2" != clear ] || tls=False
	head -c "$size" /dev/urandom >image
	t 0 "$name: qemu-img convert" qemu-img convert -n "${creds[@]}" -f raw --target-image-opts image "$opts"
	t 0 "$name: nbdcopy reads it" nbdcopy --connections=4 "$uri" copy
	cmp -n "$size" image copy && ok "$name: byte by byte" || not_ok "$name: byte by byte"
	head -c "$size" /dev/urandom >image
	t 0 "$name: nbdcopy" nbdcopy --connections=4 --requests=16 --flush image "$uri"
	t 0 "$name: qemu-img compare" qemu-img compare "${creds[@]}" --image-opts driver=raw,file.driver=file,file.filename=image \
		"driver=raw,size=$size,file.${opts//,/,file.}"
	t 0 "$name: qemu-io" qemu-io "${creds[@]}" --image-opts -c 'write -P 7 30M 1M' -c 'write -z 31M 512k' -c 'discard 32M 1M' -c flush \
		-c 'read -P 7 30M 1M' -c 'read -P 0 31M 512k' -c 'read -P 0 32M 1M' "$opts"
	! grep -qi 'fail\|error' out && ok "$name: what it said" || not_ok "$name: what it said"
	t 0 "$name: qemu-img map" qemu-img map "${creds[@]}" --output=json --image-opts "$opts"
	[ "$(value 'j[0]["start"], j[0]["data"], j[-1]["start"] + j[-1]["length"]')" = "(0, True, 67108864)" ] && ok "$name: the map" || not_ok "$name: the map"
	t 0 "$name: nbdinfo" nbdinfo --json "$uri"
	[ "$(value 'j["TLS"], j["exports"][0]["export-size"], j["exports"][0]["can_multi_conn"], j["structured"]')" = "($tls, 67108864, True, True)" ] &&
		ok "$name: what it is told" || not_ok "$name: what it is told"
	t 0 "$name: nbdinfo --map" nbdinfo --map --totals "$uri"
	t 0 "$name: nbdsh" env "PATH=/usr/bin:$PATH" nbdsh --base-allocation -c "h.set_uri_allow_local_file(True); h.connect_uri('$uri')" -c "$shell"
	fio_run "$1" "$2"
	fuse_run "$1" "$2"
}

mkdir -p home/.pki
cp -r tls/alice home/.pki/libnbd
chmod 0711 "$dir"
chmod -R a+rX home
disks 256M d1 d2
t 0 'pool create' "$ashlar" pool create demo --layout raid1 d1 d2
t 0 'volume create' "$ashlar" volume create demo/v --size 64M
serve --nbd "127.0.0.1:$port" --tls-certificates tls/server --tls-verify-peer --tls-psk tls/psk/keys.psk d1 d2 || not_ok 'serve'
for where in unix tcp; do
	for keys in clear psk x509; do
		all_clients $where $keys
	done
done
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
t 0 'pool check --data' "$ashlar" pool check --data demo
cp -r tls/server tls/old
openssl x509 -in tls/server/server-cert.pem -signkey tls/server/server-key.pem -days -1 -out tls/old/server-cert.pem 2>/dev/null
serve --nbd "127.0.0.1:$port" --tls-certificates tls/old d1 d2 || not_ok 'serve with a certificate that has expired'
grep -q 'certificate.* has expired on' daemon.err && ok 'a certificate that has expired is named' || not_ok 'a certificate that has expired is named'
t 0 'others are served' nbdinfo --size "$(uri demo/v)"
t ! 'clients refuse it' nbdinfo --size "nbds://127.0.0.1:$port/demo/v?tls-certificates=$dir/tls/alice"
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
done_
