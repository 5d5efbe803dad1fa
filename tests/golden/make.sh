#!/bin/bash
# Makes the golden images of the present format: pools as an older version left them, which every later version opens. Run
# it once for a format, when that is released or a feature bit is added; images that are there are never replaced.
# usage: tests/golden/make.sh ASHLAR PREFIX [IMAGE...]      e.g. tests/golden/make.sh build/ashlar v1 clean
. "$(dirname "$0")/lib.sh"
prefix=$2
shift 2
set -e

lists=(sums)

fresh() { # LAYOUT NDISKS
	rm -f d?
	local names=()
	for i in $(seq "$2"); do truncate -s 64M "d$i"; names+=("d$i"); done
	"$ashlar" pool create gold --layout "$1" --cluster 16K --group 1M "${names[@]}" >/dev/null
}

# Volumes old and new, sparse and dense, one deleted, one renamed, one exported under another name.
populate() {
	"$ashlar" volume create gold/dense --size 4M >/dev/null
	"$ashlar" volume create gold/sparse --size 1G >/dev/null
	"$ashlar" volume create gold/doomed --size 4M >/dev/null
	"$ashlar" volume create gold/before --size 2M >/dev/null
	volume gold/dense fill 1 0 512 1
	volume gold/sparse fill 2 0 64 4001
	volume gold/doomed fill 3 0 100 1
	volume gold/before fill 4 7 20 3
	volume gold/dense zero 40 100
	"$ashlar" volume rename gold/before gold/after >/dev/null
	"$ashlar" volume delete gold/doomed >/dev/null
	"$ashlar" export add gold/after --name other-name >/dev/null
}

sums() { # FILE [VOLUME...]
	local v
	for v in gold/dense gold/sparse other-name "${@:2}"; do echo "$(volume "$v" sum) $v"; done >"$1"
}

pack() { # NAME DISK...
	local out=$here/$prefix-$1.tar.xz
	[ ! -e "$out" ] || { echo "$out is there already" >&2; exit 1; }
	tar --sparse --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -c "${lists[@]}" "${@:2}" | xz -9e >"$out"
	echo "$(stat -c %s "$out") $out"
}

# closed in order
make_clean() {
	fresh raid1 4
	start d1 d2 d3 d4
	populate
	sums sums
	stop TERM
	pack clean d1 d2 d3 d4
}

# killed with records in the journal and regions dirty
make_crashed() {
	fresh raid10 4
	start d1 d2 d3 d4
	populate
	volume gold/sparse fill 5 1 30 2003
	volume gold/dense fill 6 45 20 1
	sums sums
	stop KILL || true
	pack crashed d1 d2 d3 d4
}

# one disk was away while the others were written, and comes back stale
make_stale() {
	fresh raid1-3 3
	start d1 d2 d3
	populate
	stop TERM
	mkdir away && mv d3 away
	start d1 d2
	volume gold/dense fill 7 100 50 2
	volume gold/sparse fill 8 2 30 2003
	sums sums
	stop TERM
	mv away/d3 . && rmdir away
	pack stale d1 d2 d3
}

# raid5, beside a raid6 volume; closed in order
make_parity_clean() {
	fresh raid5 4
	start d1 d2 d3 d4
	populate
	"$ashlar" volume create gold/six --size 4M --layout raid6 >/dev/null
	volume gold/six fill 5 3 90 2
	sums sums gold/six
	stop TERM
	pack parity-clean d1 d2 d3 d4
}

# raid6, one disk away, killed with entries in the stripe logs
make_parity_crashed() {
	fresh raid6 5
	start d1 d2 d3 d4 d5
	populate
	stop TERM
	mkdir away && mv d2 away
	start d1 d3 d4 d5
	volume gold/sparse fill 5 1 30 2003
	volume gold/dense fill 6 45 20 1
	volume gold/dense fill 7 10 30 3
	sums sums
	stop KILL || true
	mv away/d2 . && rmdir away
	pack parity-crashed d1 d2 d3 d4 d5
}

# Snapshots, clones of them, one whose snapshot and origin are gone.
family() {
	"$ashlar" snapshot create gold/dense@one gold/sparse@one >/dev/null
	volume gold/dense fill 5 100 200 1
	volume gold/sparse fill 5 0 20 4001
	"$ashlar" snapshot create gold/dense@two >/dev/null
	volume gold/dense zero 300 20
	volume gold/dense fill 6 50 3 7
	"$ashlar" clone gold/dense@one copy >/dev/null
	volume gold/copy fill 7 10 40 3
	"$ashlar" clone gold/sparse@one orphan >/dev/null
	"$ashlar" volume delete gold/sparse --snapshots >/dev/null
	"$ashlar" volume create gold/sparse --size 1M >/dev/null
	"$ashlar" snapshot create gold/copy@s >/dev/null
	"$ashlar" snapshot policy gold/dense --every 1000h --keep 3 >/dev/null
}

# closed in order
make_snapshots_clean() {
	fresh raid1 3
	start d1 d2 d3
	populate
	family
	sums sums gold/dense@one gold/dense@two gold/copy gold/copy@s gold/orphan
	stop TERM
	pack snapshots-clean d1 d2 d3
}

# killed after a rollback and while snapshots were being deleted
make_snapshots_crashed() {
	fresh raid5 4
	start d1 d2 d3 d4
	populate
	family
	for i in $(seq 20); do
		"$ashlar" snapshot create "gold/orphan@$i" >/dev/null
		volume gold/orphan fill "$i" "$i" 10 31
	done
	"$ashlar" snapshot rollback gold/dense@one >/dev/null
	"$ashlar" snapshot delete gold/orphan@{1..10} >/dev/null
	sums sums gold/dense@one gold/dense@two gold/copy gold/copy@s gold/orphan gold/orphan@{11..20}
	stop KILL || true
	pack snapshots-crashed d1 d2 d3 d4
}

# Exports with rules of access and limits, of a volume, a snapshot, and a clone that has them from it; killed with a part in the journal.
make_access() {
	fresh raid1 2
	start d1 d2
	populate
	"$ashlar" volume create gold/guarded --size 1M >/dev/null
	"$ashlar" export set gold/guarded --allow tls:alice --allow addr:10.0.0.0/8 --max-connections 3 >/dev/null
	"$ashlar" snapshot create gold/guarded@s gold/guarded@own >/dev/null
	"$ashlar" export set gold/guarded@own --allow gid:7 >/dev/null
	"$ashlar" clone gold/guarded@s heir >/dev/null
	stop TERM
	start d1 d2
	"$ashlar" export set gold/heir --max-connections 1 --name "the heir" >/dev/null
	sums sums
	"$ashlar" export list -H -o name,volume,readonly,limit,allow >exports
	lists=(sums exports)
	stop KILL || true
	pack access d1 d2
	lists=(sums)
}

# iSCSI exports: short notes and long ones, replaced and removed, of a snapshot, of a volume that is deleted; killed with some in the journal.
make_notes() {
	local many=()
	fresh raid1 2
	start d1 d2
	populate
	for i in $(seq 16); do many+=(--initiator "iqn.2026-01.org.test:$(printf 'host%0100d' "$i")"); done
	echo 0123456789ab >key
	"$ashlar" snapshot create gold/dense@s >/dev/null
	"$ashlar" volume create gold/short-lived --size 1M >/dev/null
	"$ashlar" export add gold/short-lived --iscsi "${many[@]}" >/dev/null
	"$ashlar" export add gold/dense --iscsi --iqn iqn.2026-01.org.test:t "${many[@]}" >/dev/null
	"$ashlar" export add gold/dense@s --iscsi --iqn iqn.2026-01.org.test:t --lun 9 >/dev/null
	"$ashlar" volume delete gold/short-lived >/dev/null
	stop TERM
	start d1 d2
	"$ashlar" export add gold/dense --iscsi --iqn iqn.2026-01.org.test:t --lun 0 "${many[@]}" --chap-user u --chap-secret-file key >/dev/null
	"$ashlar" export add gold/sparse --iscsi --iqn iqn.2026-01.org.test:t --lun 1 --chap-user u --chap-secret-file key >/dev/null
	"$ashlar" export add gold/after --iscsi >/dev/null
	"$ashlar" export remove gold/after --iscsi >/dev/null
	sums sums
	"$ashlar" export list --iscsi --json >luns
	lists=(sums luns)
	stop KILL || true
	pack notes d1 d2
	lists=(sums)
}

# part_of SNAPSHOT BYTES VOLUME [SEND OPTION...]: a stream that ends early; a line of `resume` says how it goes on
part_of() {
	local token
	"$ashlar" send "$1" "${@:4}" 2>/dev/null | head -c "$2" | "$ashlar" receive "$3" >/dev/null 2>err && return 1
	token=$(grep -o 'send --resume [^ ]*' err | cut -d ' ' -f 3)
	echo "$1 $token $3" >>resume
	[ -n "$token" ]
}

# killed after two streams had been cut: a whole one, and one that changes a volume
make_receiving() {
	fresh raid1 3
	start d1 d2 d3
	populate
	family
	rm -f resume
	"$ashlar" send gold/dense@one 2>/dev/null | "$ashlar" receive gold/got >/dev/null
	part_of gold/dense@one 900000 gold/incoming
	part_of gold/dense@two 400000 gold/got --from one
	sums sums gold/dense@one gold/dense@two gold/got gold/got@one gold/orphan
	stop KILL || true
	lists=(sums resume)
	pack receiving d1 d2 d3
	lists=(sums)
}

# Limits of volumes, changed and taken off; a snapshot and a clone have none. Killed with a part in the journal.
make_limits() {
	fresh raid1 2
	start d1 d2
	populate
	"$ashlar" volume create gold/slow --size 1M --iops 100 --bps 1M --burst-iops 700 --burst-bps 3M --burst-seconds 9 >/dev/null
	"$ashlar" volume create gold/freed --size 1M --iops 7 >/dev/null
	"$ashlar" snapshot create gold/slow@s >/dev/null
	"$ashlar" clone gold/slow@s quick >/dev/null
	stop TERM
	start d1 d2
	"$ashlar" volume set gold/freed iops=none >/dev/null
	"$ashlar" volume set gold/dense bps=2G burst-bps=10G >/dev/null
	"$ashlar" volume set gold/slow bps=2M >/dev/null
	sums sums
	"$ashlar" volume list -Hp -o name,iops,bps,burstiops,burstbps,burstseconds >limits
	lists=(sums limits)
	stop KILL || true
	pack limits d1 d2
	lists=(sums)
}

# A disk of four has been removed, and groups have three columns; killed with the records in the journal.
make_shapes() {
	fresh raid5 4
	start d1 d2 d3 d4
	populate
	volume gold/dense fill 5 500 90 1
	"$ashlar" disk remove gold d2 --wait >/dev/null
	volume gold/sparse fill 6 10 40 77
	sums sums
	stop KILL || true
	rm d2
	pack shapes d1 d3 d4
}

# until JSON COMMAND...: until what the command prints makes the expression true, of which `j` is its JSON
until_so() {
	local i
	for i in $(seq 200); do
		"$ashlar" "${@:2}" --json | "$py" -c 'import json, sys; j = json.load(sys.stdin); sys.exit(not eval(sys.argv[1]))' "$1" && return 0
		sleep 0.05
	done
	return 1
}

# Killed while one family was on its way to another layout, paused; one had gone there before.
make_moves() {
	fresh raid1 3
	start d1 d2 d3
	populate
	family
	"$ashlar" volume set gold/after --layout raid5 --wait >/dev/null
	"$ashlar" pool set gold pace-floor=1M pace-ceiling=1M >/dev/null
	"$ashlar" volume set gold/dense --layout raid5 >/dev/null
	until_so 'any(x["kind"] == "move" and x["state"] == "running" and x["done_bytes"] > 2**20 for x in j)' job list gold
	"$ashlar" job pause gold "$("$ashlar" job list gold -H -o kind,state,job | sed -n 's/^move.running.//p')" >/dev/null
	volume gold/dense fill 8 300 40 2
	sums sums gold/dense@one gold/dense@two gold/copy gold/copy@s gold/orphan
	echo move >jobs
	lists=(sums jobs)
	stop KILL || true
	pack moves d1 d2 d3
	lists=(sums)
}

# Killed while one volume was being adopted from a file, and after another had moved away to one. Their paths are the daemon's own folder, wherever that is.
make_sources() {
	fresh raid1 2
	start d1 d2
	populate
	"$py" -c 'import struct; open("source", "wb").write(b"".join(struct.pack("<II", 11, k) * 512 for k in range(8192)))'
	truncate -s 4M target
	"$ashlar" pool set gold pace-floor=1M pace-ceiling=1M >/dev/null
	"$ashlar" volume move gold/dense /proc/self/cwd/target --wait >/dev/null
	volume gold/dense fill 8 300 40 2
	"$ashlar" volume create gold/adopted --from /proc/self/cwd/source >/dev/null
	volume gold/adopted fill 9 100 30 7
	until_so 'any(x["kind"] == "adopt" and x["done_bytes"] > 2**20 for x in j)' job list gold
	sums sums gold/adopted
	echo adopt >jobs
	lists=(sums jobs)
	stop KILL || true
	pack sources d1 d2 source target
	lists=(sums)
}

for name in ${*:-clean crashed stale parity-clean parity-crashed snapshots-clean snapshots-crashed receiving access limits moves sources notes shapes}; do
	"make_${name//-/_}"
done
