#!/bin/bash
# A backup made through NBD only: a full one, then three incrementals that read what the dirty context says, while somebody
# writes. Each generation restores byte for byte.
# usage: backup.sh BUILD
set -u
. "$(dirname "$0")/lib.sh"
need nbdinfo nbdcopy qemu-img
"$py" -c 'import nbd' 2>/dev/null || need python3-libnbd

cat >writer.py <<'PY'
# Writes, zeroes and trims at random until it is told to stop: whatever is read must come from snapshots. Between two whole
# rounds it waits for nobody, so snapshots are taken in the middle of its requests.
import nbd, os, random, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
rng = random.Random(int(sys.argv[2]))
size, n = h.get_size(), 0
while not os.path.exists("stop"):
    off = rng.randrange(0, size // 8 // 512) * 512 + rng.randrange(0, 4) * (size // 4)
    length = min(rng.choice((512, 4096, 4096, 65536, 300032)), size - off)
    what = rng.randrange(10)
    if what == 0:
        h.trim(length, off)
    elif what == 1:
        h.zero(length, off)
    else:
        h.pwrite(bytes([rng.randrange(1, 256)]) * length, off)
    n += 1
    if n % 100 == 0:
        open("written", "w").write(str(n))
print(n, "requests")
PY
cat >backup.py <<'PY'
# usage: backup.py URI FILE [CONTEXT]: brings FILE up to date with the export; with a context it reads only what that says is
# dirty. Prints how many bytes it has read.
import nbd, os, sys
uri, path, context = sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None
h = nbd.NBD()
h.add_meta_context("base:allocation")
if context:
    h.add_meta_context(context)
h.connect_uri(uri)
assert not context or h.can_meta_context(context), context
size, done, read = h.get_size(), 0, 0
f = open(path, "r+b" if context else "w+b")
f.truncate(size)
while done < size:
    ext = {}
    def each(name, off, entries, err):
        assert off == done and name not in ext
        ext[name] = [(entries[i], entries[i + 1]) for i in range(0, len(entries), 2)]
    h.block_status(min(size - done, 1 << 30), done, each)
    assert set(ext) == ({"base:allocation", context} if context else {"base:allocation"}), ext.keys()
    for length, flags in ext[context or "base:allocation"]:
        pos, end = done, min(done + length, size)
        if (flags & 1) if context else not (flags & 2):
            while pos < end:
                n = min(4 << 20, end - pos)
                f.seek(pos)
                f.write(h.pread(n, pos))
                pos += n
                read += n
        done = end
print(read)
PY
# backup NAME ARG...: the bytes that it has read are in $read
backup() {
	local name=$1
	shift
	t 0 "$name" "$py" backup.py "$@" || return
	read=$(cat out)
}
# until_written: the writer has done some hundreds of requests since
until_written() {
	local i
	rm -f written
	for i in $(seq 300); do
		[ -s written ] && [ "$(cat written)" -ge 300 ] && sleep 0.3 && return
		sleep 0.05
	done
	return 1
}
# The allocated bytes of the map's lines with those flags: mapped CONTEXT EXPORT FLAGS
mapped() { nbdinfo --map="$1" --json "$(uri "$2")" >out 2>err && value "sum(x['length'] for x in j if x['type'] == $3)"; }

size=$((256 << 20))
disks 2G d1 d2
t 0 'pool create' "$ashlar" pool create demo d1 d2
t 0 'volume create' "$ashlar" volume create demo/v --size $size
t 0 'another volume' "$ashlar" volume create demo/other --size 16M
serve || not_ok 'the daemon starts'
"$py" writer.py "$(uri demo/v)" 1 >writer.out 2>&1 &
writer=$!
pids+=($writer)
until_written || not_ok 'the writer writes'

t 0 'snapshot S1' "$ashlar" snapshot create demo/v@S1
backup 'a full backup' "$(uri demo/v@S1)" backup.img
full=$read
cp --sparse=always backup.img gen1.img
for i in 2 3 4; do
	until_written || not_ok 'the writer goes on writing'
	t 0 "snapshot S$i" "$ashlar" snapshot create demo/v@S$i
	[ $i = 3 ] && context=ashlar:diff:S2 || context=qemu:dirty-bitmap:S$((i - 1))
	backup "incremental $((i - 1)), by $context" "$(uri demo/v@S$i)" backup.img "$context"
	echo "# full $full bytes, incremental $read bytes"
	[ "$read" -gt 0 ] && [ "$read" -lt $size ] && ok 'it reads a part' || not_ok 'it reads a part'
	cp --sparse=always backup.img gen$i.img
done
kill -0 $writer && ok 'somebody has been writing all the time' || not_ok 'somebody has been writing all the time'
touch stop
wait $writer
cat writer.out | sed 's/^/# /'
for i in 1 2 3 4; do
	t 0 "generation $i is the snapshot" qemu-img compare -f raw -F raw gen$i.img "$(uri demo/v@S$i)"
done
! cmp -s gen3.img gen4.img && ok 'generations differ' || not_ok 'generations differ'

# The live volume against the newest snapshot, and back into a volume.
backup 'the last changes, from the volume itself' "$(uri demo/v)" backup.img qemu:dirty-bitmap:S4
t 0 'it is the volume' qemu-img compare -f raw -F raw backup.img "$(uri demo/v)"
t 0 'a volume to restore to' "$ashlar" volume create demo/back --size $size
t 0 'restore by nbdcopy' nbdcopy --destination-is-zero gen2.img "$(uri demo/back)"
t 0 'restored byte for byte' qemu-img compare -f raw -F raw "$(uri demo/back)" "$(uri demo/v@S2)"

# Other programs see it.
t 0 'nbdinfo --map of the bitmap' nbdinfo --map=qemu:dirty-bitmap:S1 "$(uri demo/v)"
says '  1  ' 'dirty ranges'
dirty=$(mapped qemu:dirty-bitmap:S1 demo/v 1)
t 0 'snapshot diff' "$ashlar" snapshot diff --json demo/v@S1 demo/v
[ "$dirty" = "$(value 'sum(x["length"] for x in j)')" ] && ok 'the command says the same' || not_ok "the command says the same ($dirty)"
zero=$(value 'sum(x["length"] for x in j if x["type"] == "zero")')
[ "$zero" -gt 0 ] && [ "$zero" = "$(mapped ashlar:diff:S1 demo/v 3)" ] && ok 'and which of it reads as zeros' || not_ok 'and which of it reads as zeros'
t 0 'contexts are listed' nbdinfo --list --json "$(uri '')"
t 0 'of one export' nbdinfo --json "$(uri demo/v@S3)"
[ "$(value '",".join(sorted(c for c in j["exports"][0]["contexts"]))')" = \
	ashlar:diff:S1,ashlar:diff:S2,base:allocation,qemu:dirty-bitmap:S1,qemu:dirty-bitmap:S2 ] &&
	ok 'a snapshot has the older ones' || not_ok 'a snapshot has the older ones'

t 0 'a volume without snapshots' nbdinfo --json "$(uri demo/other)"
[ "$(value '",".join(j["exports"][0]["contexts"])')" = base:allocation ] && ok 'has none' || not_ok 'has none'
t ! 'a context that is not there' nbdinfo --map=qemu:dirty-bitmap:S9 "$(uri demo/v)"

# A snapshot that goes takes its contexts with it, and nobody else's.
cat >gone.py <<'PY'
import nbd, subprocess, sys
h = nbd.NBD()
contexts = ("base:allocation", "qemu:dirty-bitmap:S2", "ashlar:diff:S2", "qemu:dirty-bitmap:S4")
for c in contexts:
    h.add_meta_context(c)
h.connect_uri(sys.argv[1])
def ask():
    seen = {}
    h.block_status(1 << 20, 0, lambda name, off, entries, err: seen.__setitem__(name, entries))
    assert set(seen) == set(contexts), seen
    return seen
before = ask()
subprocess.run([sys.argv[2], "snapshot", "delete", "demo/v@S2"], check=True, stdout=subprocess.DEVNULL)
after = ask()
for c in contexts[1:3]:
    assert after[c] == [1 << 20, 1], after[c]
for c in (contexts[0], contexts[3]):
    assert after[c] == before[c], (c, before[c], after[c])
assert len(h.pread(4096, 0)) == 4096
PY
t 0 'a snapshot is deleted while its context is in use: all is dirty, the other contexts answer' "$py" gone.py "$(uri demo/v)" "$ashlar"
t 0 'the others stay' nbdinfo --map=qemu:dirty-bitmap:S3 "$(uri demo/v)"
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
t 0 'the difference without a daemon' "$ashlar" snapshot diff -p demo/v@S3 demo/v@S4
says '^ *[0-9]+ +[0-9]+  (data|zero)$' 'as exact numbers'
t 0 'pool check --data' "$ashlar" pool check --data demo
done_
