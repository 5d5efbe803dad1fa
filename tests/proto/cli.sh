#!/bin/bash
# The command line end to end: every command without and with a daemon, its JSON, bad input, exit status, two daemons,
# disks that hold something else. Needs no root.
# usage: tests/proto/cli.sh [ASHLAR]      (default: $BUILD/ashlar)
set -u
ashlar=$(readlink -f "${1:-${BUILD:-build}/ashlar}")
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
py=$(command -v /usr/bin/python3 || command -v python3)
dir=$(mktemp -d "${TMPDIR:-/tmp}/ashlar-cli.XXXXXX")
chmod 0700 "$dir"
daemon_pid=
n_ok=0
n_bad=0
# Only one's own children are ended, by their number.
finish() {
	[ -z "$daemon_pid" ] || kill -KILL "$daemon_pid" 2>/dev/null
	rm -rf "$dir"
}
trap finish EXIT
cd "$dir" || exit 1
mkdir disks
export ASHLAR_DISKS=$dir/disks ASHLAR_CONTROL=$dir/control.sock
unset XDG_RUNTIME_DIR

ok() { n_ok=$((n_ok + 1)); echo "ok $((n_ok + n_bad)) - $1"; }
not_ok() {
	n_bad=$((n_bad + 1))
	echo "not ok $((n_ok + n_bad)) - $1"
	sed 's/^/#   out: /' out 2>/dev/null | head -n 20
	sed 's/^/#   err: /' err 2>/dev/null | head -n 20
}
# t STATUS NAME ARG...: runs ashlar; the exit status must be as given; a failure is one sentence on stderr and nothing else
t() {
	local want=$1 name=$2 got
	shift 2
	timeout 60 "$ashlar" "$@" >out 2>err </dev/null
	got=$?
	if [ $got != "$want" ]; then
		not_ok "$name (exit status $got, not $want)"
		return 1
	fi
	if [ "$want" != 0 ] && { [ "$(wc -l <err)" != 1 ] || ! grep -q '^ashlar: ..' err; }; then
		not_ok "$name (not one sentence on stderr)"
		return 1
	fi
	ok "$name"
}
# says TEXT NAME: the last run said so (extended regular expression)
says() { if grep -Eq -- "$1" out err; then ok "$2"; else not_ok "$2 (no '$1')"; fi; }
# json NAME EXPRESSION: the last output is JSON (j) and the Python expression holds
json() {
	if "$py" -c 'import json,sys
j = json.load(open("out"))
sys.exit(0 if eval(sys.argv[1]) else 1)' "$2" 2>>err; then ok "$1"; else not_ok "$1 ($2)"; fi
}
sums() { cat disks/* "$@" 2>/dev/null | sha256sum; }
disk() { truncate -s "$2" "$1"; }

echo "# without a pool"
t 0 version version
says '^ashlar [0-9]' 'version prints a number'
t 0 'version as JSON' version --json
json 'version JSON' 'len(j["version"]) > 2'
t 0 help help
says 'pool create' 'help names the commands'
t 0 'the option --help' --help
t 0 'list of methods' methods
json 'methods JSON' '{"pool.list", "pool.show", "pool.create", "pool.check", "pool.destroy", "disk.list", "disk.add", "disk.evacuate", "disk.remove", "disk.replace", "pool.rebalance", "job.pause", "volume.create", "volume.list", "volume.show", "volume.resize", "volume.rename", "volume.set", "volume.move", "volume.take_back", "pool.layout", "volume.delete", "volume.clone", "snapshot.create", "snapshot.list", "snapshot.show", "snapshot.delete", "snapshot.rollback", "snapshot.rename", "snapshot.policy", "snapshot.diff", "export.add", "export.set", "export.show", "export.list", "export.remove", "connection.list", "daemon.status", "daemon.shutdown"} <= {m["name"] for m in j}'
for c in 'pool create' 'pool list' 'pool show' 'pool check' 'pool destroy' 'pool rebalance' 'disk list' 'disk add' 'disk evacuate' 'disk remove' 'disk replace' 'job pause' 'job resume' 'job stop' 'volume create' 'volume list' 'volume show' \
	'volume resize' 'volume rename' 'volume set' 'volume move' 'volume take-back' 'volume delete' 'snapshot create' 'snapshot list' 'snapshot show' 'snapshot delete' \
	'snapshot rollback' 'snapshot rename' 'snapshot policy' 'snapshot diff' clone 'export add' 'export set' 'export show' 'export list' 'export remove' serve 'daemon status' \
	'daemon stop' 'connection list'; do
	# shellcheck disable=SC2086
	t 0 "$c --help" $c --help
	says '^Options:' "$c --help names options"
done
t 2 'no command'
t 2 'unknown command' frobnicate
t 2 'unknown verb' pool frobnicate
t 2 'verb missing' volume
t 2 'unknown option' pool list --frobnicate
t 2 'unknown letter' pool list -Q
t 2 'option of another command' pool list --size 1G
t 2 'option without its value' volume create p/v --size
t 2 'value for an option without' pool list --json=1
t 2 'operand missing' volume show
t 2 'operand too much' pool show a b
t 2 'unknown column' pool list -o name,nonsense
t 2 'unknown sort column' pool list --sort nonsense
t 0 'an empty list of pools' pool list --json
json 'no pools' 'j == []'
says 'no pool was found on the 0 disks that .ASHLAR_DISKS names' 'and why'
t 0 'an empty list of volumes' volume list
says 'no pool was found' 'why too'
ASHLAR_DISKS=$dir/nothing t 0 'disks that are not there' disk list
says 'no pool was found, and 1 of 1 disk could not be read: cannot open .*nothing' 'the first is named'
if [ "$(id -u)" != 0 ]; then
	disk locked 512M
	chmod 0 locked
	ASHLAR_DISKS=$dir/locked t 0 'disks that may not be read' pool list
	says 'Permission denied; run this as root' 'what to do'
	rm -f locked
fi
t 1 'a pool that is not there' pool show nothing
says 'nothing' 'the missing pool is named'
t 1 'a daemon that is not there' daemon status

echo "# pool create"
disk d1 512M; disk d2 512M; disk d3 512M; disk d4 512M; disk small 4096
before=$(cat d1 d2 | sha256sum)
t 0 'dry run' pool create demo --dry-run d1 d2
[ "$before" = "$(cat d1 d2 | sha256sum)" ] && ok 'a dry run changes nothing' || not_ok 'a dry run changes nothing'
t 1 'a disk that is not there' pool create demo d1 nowhere
t 1 'a disk that is too small' pool create demo small
t 1 'a directory as disk' pool create demo disks
t 1 'the same disk twice' pool create demo d1 ./d1
t 1 'a URI that no label holds' pool create demo "nbd+unix:///export?socket=/$(printf 'a%.0s' $(seq 69))"
says 'its URI has 96 bytes, and a label holds 95' 'and it says so'
t 1 'an unknown layout' pool create demo --layout raid99 d1 d2
t 1 'too few disks for the layout' pool create demo --layout raid1-3 d1 d2
t 2 'no disks' pool create demo
t 2 'a cluster size that is none' pool create demo --cluster abc d1
for bad in '' . .. -- a/b 'a b' '@' $'a\nb' ä "$(printf 'x%.0s' {1..64})" "$(printf 'x%.0s' {1..4097})"; do
	[ "$bad" = -- ] && continue
	t 1 "pool name '$(printf %.12q "$bad")' refused" pool create "$bad" d1
done
[ "$before" = "$(cat d1 d2 | sha256sum)" ] && ok 'refusals change nothing' || not_ok 'refusals change nothing'
if command -v mke2fs >/dev/null; then
	mke2fs -q -F d3 >/dev/null 2>&1
	before=$(sha256sum <d3)
	t 1 'a disk with a file system is refused' pool create demo d3 d4
	says 'ext' 'what it holds is named'
	says '--force' 'the way out is named'
	[ "$before" = "$(sha256sum <d3)" ] && ok 'its bytes are unchanged' || not_ok 'its bytes are unchanged'
	t 0 'with --force it is taken' pool create other --force --layout raid1 d3 d4
else
	t 0 'a second pool' pool create other --layout raid1 d3 d4
fi
t 0 'create' pool create demo --layout raid1 d1 d2 --json
json 'create JSON' 'j["name"] == "demo" and len(j["disks"]) == 2'
before=$(cat d1 d2 | sha256sum)
t 1 'a disk of another pool is refused' pool create third d1
[ "$before" = "$(cat d1 d2 | sha256sum)" ] && ok 'and unchanged' || not_ok 'and unchanged'
mv d1 d2 disks/

# Part of management(): vm1 of 5G and vm2 of 512M are there, and as they were afterwards.
snapshots() {
	t 0 'snapshot create of two' snapshot create demo/vm1@a demo/vm2@a --json
	json 'snapshot create JSON' '[s["name"] for s in j] == ["demo/vm1@a", "demo/vm2@a"] and j[0]["size_bytes"] == 5 << 30 and len({s["guid"] for s in j}) == 2'
	t 0 'snapshot create of one' snapshot create demo/vm1@b
	says '^snapshot demo/vm1@b taken$' 'it says so'
	t 1 'snapshot create again' snapshot create demo/vm1@b
	says 'exists already' 'the reason is named'
	t 1 'one name twice' snapshot create demo/vm1@c demo/vm1@c
	says 'twice' 'the reason is named'
	t 1 'two pools' snapshot create demo/vm1@c other/vm1@c
	says 'one pool' 'the reason is named'
	t 1 'of no volume' snapshot create demo/nothing@c
	t 2 'snapshot create of nothing' snapshot create
	for bad in demo/vm1 demo/vm1@ demo/@a demo@a vm1@a demo/vm1@a/b demo/vm1@a@b 'demo/vm1@a b' demo/vm1@.. $'demo/vm1@a\nb' \
		"demo/vm1@$(printf 'x%.0s' {1..128})"; do
		t 1 "snapshot name '$(printf %.16q "$bad")' refused" snapshot create "$bad"
	done
	t 0 'longest snapshot name' snapshot create "demo/vm1@$(printf 'x%.0s' {1..127})"
	t 0 'rm of it' snapshot rm "demo/vm1@$(printf 'x%.0s' {1..127})"
	t 0 'snapshot list' snapshot list
	says '^demo/vm1@a ' 'they are listed'
	t 0 'snapshot list -Hp' snapshot ls -Hp -o name,exclusive --sort -name demo/vm1
	[ "$(cat out)" = $'demo/vm1@b\t0\ndemo/vm1@a\t0' ] && ok 'of one volume, tabs, sorted' || not_ok 'of one volume, tabs, sorted'
	t 0 'snapshot list of a pool' snapshot list demo --json
	json 'snapshot list JSON' 'sorted(s["name"] for s in j) == ["demo/vm1@a", "demo/vm1@b", "demo/vm2@a"] and not any(s["by_policy"] for s in j)'
	t 1 'list of no volume' snapshot list demo/nothing
	t 2 'snapshot list: unknown column' snapshot list -o nonsense
	t 0 'snapshot show' snapshot show demo/vm1@a
	t 0 'snapshot show --json' snapshot show demo/vm1@a --json
	json 'snapshot show JSON' 'j["volume"] == "vm1" and j["snapshot"] == "a" and j["exclusive_bytes"] == 0 and j["clones"] == 0'
	t 1 'show of no snapshot' snapshot show demo/vm1@nothing
	t 1 'show of a volume as snapshot' snapshot show demo/vm1
	t 0 'volume list shows how many' volume list --json
	json 'SNAPS' '{v["name"]: v["snapshots"] for v in j} == {"demo/vm1": 2, "demo/vm2": 1}'
	t 0 'exports of snapshots' export list --json
	json 'read-only, POOL/VOL@SNAP' '{x["name"] for x in j if x["is_snapshot"] and x["read_only"] and not x["hidden"]} == {"demo/vm1@a", "demo/vm1@b", "demo/vm2@a"}'
	t 0 'export of a snapshot by another name' export add demo/vm1@a --name 'old boot disk' --json
	json 'it stays read-only' 'j["name"] == "old boot disk" and j["read_only"] and j["volume"] == "demo/vm1@a"'
	t 0 'hide it' export remove demo/vm1@a
	t 0 'clone' clone demo/vm1@a vm4
	t 0 'clone, the other form' clone demo/vm1@a demo/vm5 --json
	json 'clone JSON' 'j["name"] == "demo/vm5" and j["origin"] == "demo/vm1@a" and j["size_bytes"] == 5 << 30'
	t 1 'clone onto a volume' clone demo/vm1@a vm4
	t 1 'clone into another pool' clone demo/vm1@a other/vm4
	says 'must be in pool demo' 'the reason is named'
	t 0 'clones are counted' snapshot show demo/vm1@a --json
	json 'two clones' 'j["clones"] == 2'
	t 0 'resize after the snapshot' volume resize demo/vm1 6G
	t 0 'rollback, dry run' snapshot rollback demo/vm1@a --dry-run --json
	json 'rollback JSON' 'j["dry_run"] and j["volume"] == "demo/vm1" and j["freed_bytes"] >= 0'
	t 0 'rollback' snapshot rollback demo/vm1@a
	t 0 'the size comes back' volume show demo/vm1 --json
	json 'rolled back' 'j["size_bytes"] == 5 << 30'
	t 0 'snapshot rename' snapshot rename demo/vm1@a z
	t 0 'snapshot mv, the other form' snapshot mv demo/vm1@z demo/vm1@a
	t 1 'rename onto another' snapshot rename demo/vm1@a b
	t 1 'rename to another volume' snapshot rename demo/vm1@a demo/vm2@z
	says "a snapshot stays with its volume: 'demo/vm2@z' is not of demo/vm1" 'why not'
	t 0 'policy: none' snapshot policy demo/vm2
	says 'no snapshot policy' 'it says so'
	t 1 'policy: too often' snapshot policy demo/vm2 --every 1s --keep 2
	t 1 'policy: no number' snapshot policy demo/vm2 --every 1h
	t 2 'policy: a number that is none' snapshot policy demo/vm2 --every 1h --keep 0
	t 2 'policy: off and on' snapshot policy demo/vm2 --off --keep 3
	t 0 'policy' snapshot policy demo/vm2 --every 1h --keep 24 --json
	json 'policy JSON' 'j["every"] == "3600s" and j["keep"] == 24'
	t 0 'policy: only the number' snapshot policy demo/vm2 --keep 3
	t 0 'policy: shown' snapshot policy demo/vm2
	says 'every 1h, the newest 3' 'as it was set'
	t 0 'policy: off' snapshot policy demo/vm2 --off
	t 1 'a snapshot where a volume is meant' volume show demo/vm1@a
	says "'demo/vm1@a' names a snapshot" 'with its pool'
	t 1 'volume delete with snapshots' volume delete demo/vm1
	says '2 snapshots: .*--snapshots' 'how many, and the way out'
	t 0 'dry run with them' volume delete demo/vm1 --snapshots --dry-run --json
	json 'dry run JSON' 'j["dry_run"] and j["freed_bytes"] == 0 and j["snapshots"] == ["demo/vm1@a", "demo/vm1@b"] and not j["receive_dropped"]'
	t 0 'and for people' volume delete demo/vm1 --snapshots --dry-run
	says '^snapshot demo/vm1@a would be deleted$' 'each is listed'
	says '^volume demo/vm1 would be deleted with its 2 snapshots, 0 freed; nothing was changed$' 'and counted'
	t 1 'snapshot delete: not there' snapshot delete demo/vm1@a demo/vm1@nothing
	head -c 8192 /dev/zero >garbage
	"$ashlar" receive demo/vm9 <garbage >out 2>err
	[ $? = 1 ] && ok 'garbage is not received' || not_ok 'garbage is not received'
	says 'not an ashlar stream: .*ashlar send' 'what it is not, and what to do'
	"$ashlar" send demo/vm1@b >stream 2>err && "$ashlar" receive demo/vm9 <stream >out 2>err && ok 'send to a file, receive from it' ||
		not_ok 'send to a file, receive from it'
	t 0 'delete what was received' volume delete demo/vm9 --snapshots
	cat stream stream | "$ashlar" receive demo/vm9 >out 2>err
	[ $? = 1 ] && ok 'two streams to one receive' || not_ok 'two streams to one receive'
	says 'demo/vm9@b has been received, and the input goes on behind that stream' 'it says what is not there'
	t 0 'the first is' volume delete demo/vm9 --snapshots
	{ cat stream; sleep 0.2; echo; } | "$ashlar" receive demo/vm9 >out 2>err
	[ $? = 1 ] && ok 'something after a while' || not_ok 'something after a while'
	t 0 'delete that too' volume delete demo/vm9 --snapshots
	t 0 'snapshot delete, dry run' snapshot delete demo/vm1@a demo/vm1@b --dry-run
	says 'would be deleted' 'it says so'
	t 0 'snapshot delete of two' snapshot delete demo/vm1@b demo/vm1@a --json
	json 'delete JSON' 'j["names"] == ["demo/vm1@b", "demo/vm1@a"] and not j["dry_run"]'
	t 0 'the clone is still there' volume show demo/vm4 --json
	json 'its origin is not' 'j["origin"] is None'
	t 0 'a snapshot of a clone' snapshot create demo/vm4@s
	t 0 'volume delete --snapshots' volume delete demo/vm4 --snapshots
	says '^volume demo/vm4 deleted with its 1 snapshot, 0 freed$' 'it says how many'
	t 0 'rm of the other clone' volume rm demo/vm5
	"$ashlar" snapshot list demo/vm2 -H -o name | xargs -r "$ashlar" snapshot delete >/dev/null
	t 0 'no snapshots left' snapshot list --json
	json 'none' 'j == []'
}

limits() {
	t 0 'create with limits' volume create demo/vm9 --size 1G --iops 500 --bps 10M --burst-iops 1000 --json
	json 'its limits' '[j[k] for k in ("iops", "bps", "burst_iops", "burst_bps", "burst_seconds")] == [500, 10 << 20, 1000, None, 60]'
	t 0 'set limits' volume set demo/vm9 iops=700 bps=none --burst-seconds 5
	t 0 'show them' volume show demo/vm9 --json
	json 'what was not named stays' '[j[k] for k in ("iops", "bps", "burst_iops", "burst_seconds")] == [700, None, 1000, 5]'
	json 'nothing has waited' '[j[k] for k in ("limited", "limited_ms", "limit_waiting")] == [0, 0, 0]'
	t 1 'a limit above its burst' volume set demo/vm9 iops=1000
	says 'demo/vm9: a burst of 1000 I/Os per second is not more than the limit of 1000: raise it, or take it off' 'what is wrong'
	t 1 'a burst without a limit' volume set demo/vm9 --burst-bps 1G
	t 1 'too few bytes' volume set demo/vm9 bps=1K
	for bad in -1 1.5 10K '' ten 4294967296; do t 2 "iops=$bad" volume set demo/vm9 "iops=$bad"; done
	t 2 'bps of no size' volume create demo/x --size 1G --bps fast
	t 0 'take a limit off' volume set demo/vm9 --iops 0
	t 0 'list limits' volume list -H -o name,iops,bps,burstiops,burstseconds
	says '^demo/vm9.-.-.-.-$' 'its burst went with it'
	t 0 'delete it' volume delete demo/vm9
}

# Everything here runs twice: in the command's own process, and in a daemon.
management() {
	echo "# management, $1"
	t 0 'pool list' pool list
	says '^demo' 'the pool is listed'
	t 0 'pool ls --json' pool ls --json
	json 'pool list JSON' 'len(j) == 1 and j[0]["name"] == "demo" and j[0]["disks"] == 2 and j[0]["state"] == "'"$2"'"'
	t 0 'pool show --json' --json pool show demo
	json 'pool show JSON' 'j["health"] == "online" and j["layout"] == "raid1" and j["free_bytes"] > 0'
	t 0 'pool show' pool show demo
	t 0 'disk list' disk list demo --json
	json 'disk list JSON' 'len(j) == 2 and all(d["state"] == "online" and d["path"].startswith("/") for d in j)'
	t 0 'a disk that is online' disk online demo 0
	says '^disk 0 is online already; nothing was changed$' 'and it says so'
	t 0 'volume create' volume create demo/vm1 --size 10G
	t 0 'option before the command' --size 512M volume create demo/vm2 --json --full-wait forever
	json 'volume create JSON' 'j["name"] == "demo/vm2" and j["size_bytes"] == 512 << 20 and j["full_wait"] == "forever"'
	t 1 'volume create again' volume create demo/vm1 --size 1G
	t 1 'volume create in no pool' volume create nothing/vm1 --size 1G
	t 2 'size missing' volume create demo/x
	for bad in '' abc 10X -1 -5G 1.2.3 1e3 0x10 99999999999999999999999; do
		t 2 "size '$bad' is wrong usage" volume create demo/x "--size=$bad"
	done
	for bad in 0 0K 513 2000P; do t 1 "size $bad refused" volume create demo/x --size $bad; done
	for bad in demo demo/ /x '' demo/a/b demo/.. ../x demo/@ demo/v@s $'demo/a\nb' 'demo/a b' "demo/$(printf 'x%.0s' {1..128})" \
		"demo/$(printf 'x%.0s' {1..4097})" "$(printf 'x%.0s' {1..4097})/v"; do
		t 1 "volume name '$(printf %.16q "$bad")' refused" volume create "$bad" --size 1G
	done
	t 0 'longest name' volume create "demo/$(printf 'x%.0s' {1..127})" --size 1M
	t 0 'rm of it' volume rm "demo/$(printf 'x%.0s' {1..127})"
	t 2 'full-wait that is none' volume create demo/x --size 1G --full-wait soon
	t 1 'unknown layout' volume create demo/x --size 1G --layout raid99
	t 0 'volume list' volume list
	says '^demo/vm1 +10G' 'a readable size'
	t 0 'volume list -Hp' volume ls -Hp -o name,size --sort -size demo
	[ "$(cat out)" = $'demo/vm1\t10737418240\ndemo/vm2\t536870912' ] && ok 'tabs, exact, sorted' || not_ok 'tabs, exact, sorted'
	t 0 'volume list --json' volume list --json
	json 'volume list JSON' '[v["name"] for v in j] == ["demo/vm1", "demo/vm2"]'
	t 1 'list of a pool that is not there' volume list nothing
	t 0 'volume show' volume show demo/vm1
	t 0 'volume show --json' volume show demo/vm1 --json
	json 'volume show JSON' 'j["size_bytes"] == 10 << 30 and j["attached"] == 0 and j["layout"] == "raid1"'
	t 1 'show of no volume' volume show demo/nothing
	t 0 'resize' volume resize demo/vm1 --size 11G
	t 0 'resize, the other form' volume resize demo/vm1 12G --json
	json 'resize JSON' 'j["size_bytes"] == 12 << 30 and j["old_size_bytes"] == 11 << 30'
	t 1 'smaller without force' volume resize demo/vm1 5G
	says 'volume demo/vm1: 5G .5368709120 bytes. is less than its size of 12G .12884901888 bytes.' 'sizes for people, and exact'
	t 0 'dry run of it' volume resize demo/vm1 5G --dry-run --force
	t 0 'still as large' volume show demo/vm1 --json
	json 'not shrunk' 'j["size_bytes"] == 12 << 30'
	t 0 'smaller with force' volume resize demo/vm1 5G --force
	t 1 'resize to 0' volume resize demo/vm1 0
	t 2 'resize to a negative size' volume resize demo/vm1 -5G
	t 0 'set' volume set demo/vm1 full-wait=5m --json
	json 'set JSON' 'j["full_wait"] == "300s"'
	t 2 'set of nothing' volume set demo/vm1
	t 2 'set of something unknown' volume set demo/vm1 colour=red
	t 0 'another layout, tried' volume set demo/vm1 --layout single --dry-run --json
	t 1 'a layout that there is not' volume set demo/vm1 --layout raid9
	t 2 'a layout and a setting' volume set demo/vm1 full-wait=5m --layout single
	t 1 'a move to a pool that is not open' volume move demo/vm1 nowhere
	t 2 'a move to nowhere' volume move demo/vm1
	t 1 'taking back what has not gone' volume take-back demo/vm1 --force
	t 0 'a layout for all, tried' pool set demo --layout raid1 --dry-run
	t 2 'a layout and a limit' volume set demo/vm1 --iops 5 --layout single
	limits
	t 0 'rename' volume rename demo/vm1 vm3
	t 0 'mv' volume mv demo/vm3 demo/vm1
	t 1 'rename onto another' volume rename demo/vm1 vm2
	t 1 'rename into another pool' volume rename demo/vm1 other/vm1
	t 1 'rename to a bad name' volume rename demo/vm1 ..
	t 0 'export list' export list --json
	json 'default exports' '{x["name"]: x["hidden"] for x in j} == {"demo/vm1": False, "demo/vm2": False}'
	json 'writable, as they would be served' 'not any(x["read_only"] or x["set_read_only"] for x in j)'
	t 0 'export add' export add demo/vm1 --name 'boot disk' --read-only
	t 0 'export remove' export remove demo/vm2
	t 0 'exports now' export ls --json
	json 'name, mode, hidden' '[(x["name"], x["read_only"]) for x in j if x["volume"] == "demo/vm1"] == [("boot disk", True)] and [x["hidden"] for x in j if x["volume"] == "demo/vm2"] == [True]'
	t 1 'export of no volume' export add demo/nothing
	t 1 'two exports of one name' export add demo/vm2 --name 'boot disk'
	t 1 'export name with a newline' export add demo/vm2 --name $'a\nb'
	t 0 'export add again' export add demo/vm2
	t 0 'back to the default' export add demo/vm1
	t 0 'export set' export set demo/vm1 --allow tls:alice --allow uid:7 --max-connections 2 --json
	json 'rules and a limit' 'j["allow"] == ["tls:alice", "uid:7"] and j["max_connections"] == 2 and j["name"] == "demo/vm1"'
	t 0 'export set of another thing' export set demo/vm1 --name other --json
	json 'the rest stays' 'j["allow"] == ["tls:alice", "uid:7"] and j["max_connections"] == 2 and j["name"] == "other"'
	t 0 'export show' export show demo/vm1 --json
	json 'shows the same' 'j["allow"] == ["tls:alice", "uid:7"] and j["max_connections"] == 2 and j["name"] == "other"'
	t 1 'a rule that is none' export set demo/vm1 --allow somebody
	t 1 'rules that are too long' export set demo/vm1 --allow "tls:$(printf '%0150d' 1)"
	t 1 'any, and somebody' export set demo/vm1 --allow any --allow uid:0
	t 2 'export set of nothing' export set demo/vm1
	t 2 'both modes' export set demo/vm1 --read-only --writable
	t 0 'lifted' export set demo/vm1 --allow any --max-connections 0 --name demo/vm1 --json
	json 'as it was' 'j["allow"] == [] and j["max_connections"] == 0 and j["is_default"]'
	snapshots
	t 0 'check' pool check demo --json
	json 'check finds nothing' 'j["problems"] == 0 and j["findings"] == []'
	t 0 'check with data' pool check --data
	t 0 'delete, dry run' volume delete demo/vm2 --dry-run --json
	json 'delete says what it frees' 'j["freed_bytes"] >= 0 and j["dry_run"]'
	t 0 'still there' volume show demo/vm2
	t 1 'destroy with volumes' pool destroy demo
	t 0 'delete' volume delete demo/vm2
	says 'freed' 'it says what it freed'
	t 1 'delete again' volume delete demo/vm2
	t 0 'rm' volume rm demo/vm1
	t 0 'nothing left' volume list --json
	json 'no volumes' 'j == []'
}

# daemon_start ARG...: waits for "ready"; 1 if it ended instead
daemon_start() {
	: >daemon.out # before the child does it: the last daemon's "ready" must not count
	"$ashlar" serve "$@" >daemon.out 2>daemon.err &
	daemon_pid=$!
	for _ in $(seq 200); do
		grep -qx ready daemon.out && return 0
		kill -0 $daemon_pid 2>/dev/null || break
		sleep 0.1
	done
	cp daemon.out out; cp daemon.err err
	wait $daemon_pid
	daemon_pid=
	return 1
}
# daemon_end STATUS NAME
daemon_end() {
	wait "$daemon_pid"
	got=$?
	daemon_pid=
	cp daemon.out out; cp daemon.err err
	[ $got = "$1" ] && ok "$2" || not_ok "$2 (exit status $got)"
}
# what a raw client gets from the control socket for the line $1
raw() {
	"$py" - "$ASHLAR_CONTROL" "$1" >out 2>err <<'END'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(20)
s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode() + b"\n")
sys.stdout.write(s.makefile().readline())
END
}

management 'without a daemon' idle
t 2 'serve: an address that is none' serve --nbd nonsense disks
t 1 'serve: an address that others reach' serve --nbd 0.0.0.0:10809 disks
says 'insecure' 'the way out is named'
t 2 'serve: no reactors' serve --reactors 0 disks
t 1 'serve: no pool on the disks' serve small
t 1 'serve: a way of I/O that is none' serve --io magic disks
says 'uring, aio or auto' 'it says which there are'
t 1 'without a daemon, too' pool list --io magic
t 1 'serve: too small a cache' serve --metadata-cache 1 disks

echo "# with a daemon"
if daemon_start --nbd "unix:$dir/nbd.sock" --nbd 127.0.0.1:0 --reactors 2 --metadata-cache 64M; then
	ok 'the daemon is ready'
	cp daemon.out out; cp daemon.err err
	says '^pool demo: ' 'it says which pool it serves'
	says '^nbd unix:' 'and where'
	says '^nbd 127\.0\.0\.1:[1-9][0-9]+$' 'with the port that it got'
	[ "$(stat -c %a control.sock)" = 600 ] && ok 'the control socket has mode 0600' || not_ok 'the control socket has mode 0600'
	t 0 'daemon status' daemon status --json
	json 'it says how disks are read' 'j["io"] in ("uring", "aio")'
	json 'status JSON' 'j["pools"] == 1 and j["reactors"] == 2 and len(j["nbd"]) == 2 and not j["nbd"][1].endswith(":0")'
	t 0 'connection list' connection list --json
	json 'no connections' 'j == []'
	t 1 'a second daemon on the pool is refused' serve --control "$dir/second.sock" --nbd "unix:$dir/second-nbd.sock" disks
	says 'in use|another process|locked' 'the reason is named'
	t 1 'a second daemon on the control socket' serve --nbd "unix:$dir/second-nbd.sock" d3 d4
	t 1 'the disks are locked for other processes' pool show demo --control "$dir/second.sock"
	management 'with a daemon' served
	t 0 'a volume for clients' volume create demo/vm1 --size 1G
	if command -v nbdinfo >/dev/null; then
		nbdinfo --size "nbd+unix:///demo/vm1?socket=$dir/nbd.sock" >out 2>err
		[ "$(cat out)" = 1073741824 ] && ok 'an NBD client sees it' || not_ok 'an NBD client sees it'
	fi
	if command -v nbdcopy >/dev/null; then
		head -c 3M /dev/urandom >data
		nbd() { echo "nbd+unix:///$1?socket=$dir/nbd.sock"; }
		nbdcopy data "$(nbd demo/vm1)" && t 0 'a snapshot of what a client wrote' snapshot create demo/vm1@s
		head -c 1M /dev/zero | tr '\0' x >over && nbdcopy over "$(nbd demo/vm1)"
		nbdcopy "$(nbd demo/vm1@s)" copy 2>err && cmp -n $((3 << 20)) data copy >out && ok 'a client reads it as it was' || not_ok 'a client reads it as it was'
		nbdinfo --size "nbd+unix://?socket=$dir/nbd.sock" >out 2>err
		[ "$(cat out)" = 1073741824 ] && ok 'the only volume is the default export' || not_ok 'the only volume is the default export'
		t 0 'what it holds alone' snapshot show demo/vm1@s --json
		json 'space' 'j["exclusive_bytes"] == 1 << 20 and j["used_bytes"] == 3 << 20 and j["refer_bytes"] == 3 << 20'
		t 0 'rollback' snapshot rollback demo/vm1@s
		nbdcopy "$(nbd demo/vm1)" copy 2>err && cmp -n $((3 << 20)) data copy >out && ok 'a client reads the old' || not_ok 'a client reads the old'
		t 0 'a policy with a daemon' snapshot policy demo/vm1 --every 1m --keep 1
		sleep 1
		t 0 'it has taken one' snapshot list demo/vm1 --json
		json 'auto-' 'len([s for s in j if s["by_policy"] and s["snapshot"].startswith("auto-")]) == 1'
		t 0 'and said so' events
		says 'snapshot.taken' 'an event'
		t 0 'no more' snapshot policy demo/vm1 --off
		"$ashlar" snapshot list demo/vm1 -H -o name | xargs "$ashlar" snapshot delete >/dev/null
	fi
	t 0 'a pool made by the daemon' pool create extra --serve --force d3 d4
	t 0 'it serves it at once' pool list --json
	json 'two pools' 'sorted(p["name"] for p in j if p["state"] == "served") == ["demo", "extra"]'
	t 0 'destroy it' pool destroy extra
	raw '{"jsonrpc":"2.0","id":7,"method":"daemon.status"}'
	json 'raw JSON-RPC' 'j["id"] == 7 and "version" in j["result"]'
	raw 'nonsense'
	json 'nonsense is answered' 'j["error"]["code"] == -32700'
	raw '{"jsonrpc":"2.0","id":1,"method":"nonsense"}'
	json 'unknown method' 'j["error"]["code"] == -32601'
	raw '{"jsonrpc":"2.0","id":1,"method":"volume.show","params":{"volume":"demo/nothing"}}'
	json 'errors have a name' 'j["error"]["data"]["errno"] == "ENOENT" and j["error"]["code"] == 2'
	raw '{"jsonrpc":"2.0","id":1,"method":"volume.create","params":{"volume":"demo/a\u0000b","size":"1G"}}'
	json 'NUL in a name' 'j["error"]["code"] == -32602'
	raw "$(printf '[%.0s' {1..100000})"
	json 'deep nesting' 'j["error"]["code"] == -32700'
	"$py" - "$ASHLAR_CONTROL" >out 2>err <<'END'
import socket, sys
def conn():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(sys.argv[1])
    return s
s = conn()
try:
    s.sendall(b"x" * (2 << 20))
except OSError:
    pass
line = s.makefile().readline()
assert "32600" in line, line
many = [conn() for _ in range(80)]
for m in many:
    m.close()
half = conn()
half.sendall(b'{"jsonrpc":')
assert half.recv(1) == b"", "half a message must time out"
END
	[ $? = 0 ] && ok 'too long, too many, half a message' || not_ok 'too long, too many, half a message'
	t 0 'it still answers' pool list
	kill -TERM "$daemon_pid"
	daemon_end 0 'SIGTERM ends it cleanly'
	[ ! -e control.sock ] && [ ! -e nbd.sock ] && ok 'its sockets are gone' || not_ok 'its sockets are gone'
else
	not_ok 'the daemon is ready'
fi

echo "# ends and limits"
t 0 'what it made is there without it' volume show demo/vm1
if daemon_start --nbd "unix:$dir/nbd.sock" disks/d1 disks/d2; then
	t 0 'daemon stop' daemon stop
	daemon_end 0 'it ends cleanly'
	daemon_start --nbd "unix:$dir/nbd.sock" || not_ok 'it starts again'
	kill -KILL "$daemon_pid"; wait "$daemon_pid" 2>/dev/null; daemon_pid=
	t 0 'after kill -9 commands work without it' volume show demo/vm1
	daemon_start --nbd "unix:$dir/nbd.sock" && ok 'sockets left behind are replaced' || not_ok 'sockets left behind are replaced'
	kill -INT "$daemon_pid"
	daemon_end 0 'SIGINT ends it cleanly'
else
	not_ok 'serving disks by name'
fi
if daemon_start --nbd "unix:$dir/nbd.sock" --read-only; then
	t 1 'a read-only daemon refuses changes' volume create demo/no --size 1G
	t 0 'and shows' volume list
	kill -TERM "$daemon_pid"
	daemon_end 0 'it ends'
else
	not_ok 'serve --read-only'
fi
: >daemon.out
(ulimit -n 64 && exec timeout 60 "$ashlar" serve --nbd "unix:$dir/nbd.sock" >daemon.out 2>daemon.err) &
daemon_pid=$!
for _ in $(seq 100); do grep -qx ready daemon.out && break; sleep 0.1; done
cp daemon.out out; cp daemon.err err
says '^ready$' 'it works with 64 file descriptors'
t 0 'and answers' daemon stop
daemon_end 0 'and ends'
(ulimit -n 14; timeout 60 "$ashlar" serve --reactors 4 --nbd "unix:$dir/nbd.sock") >out 2>err
[ $? = 1 ] && [ -s err ] && ok 'too few descriptors are an error' || not_ok 'too few descriptors are an error'
t 0 'destroy, dry run' pool destroy demo --force --dry-run
t 0 'nothing was destroyed' pool show demo
t 0 'destroy' pool destroy demo --force --json
json 'destroy JSON' 'j["volumes"] == 1 and len(j["disks"]) == 2'
t 1 'it is gone' pool show demo
t 0 'its disks can be used again' pool create demo --layout raid0 disks/d1 disks/d2
mkdir few
for i in 1 2 3; do disk few/e$i 64M; done
export ASHLAR_DISKS=$dir/few
t 0 'a pool of three' pool create few --layout raid1-3 few/e1 few/e2 few/e3
rm few/e3
timeout 40 "$ashlar" pool rebalance few >out 2>err
[ $? = 1 ] && says 'waits until all disks are back.*nothing goes on meanwhile' 'what waits for ever without a daemon ends with a sentence' ||
	not_ok 'what waits for ever without a daemon ends'
"$ashlar" pool list >/dev/full 2>err
[ $? = 1 ] && ok 'output that cannot be written is an error' || not_ok 'output that cannot be written is an error'

echo "# $n_ok passed, $n_bad failed"
[ "$n_bad" = 0 ]
