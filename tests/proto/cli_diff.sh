#!/bin/bash
# `snapshot diff` on the command line, with and without a daemon: ranges, text, JSON, pages, refusals. Needs no root.
# usage: tests/proto/cli_diff.sh [BUILD]      (default: $BUILD)
set -u
. "$(dirname "$(readlink -f "$0")")/../e2e/lib.sh"
need qemu-io

diff_() { t 0 "$1" "$ashlar" snapshot diff "${@:2}"; }
# is NAME EXPRESSION: the last output is JSON (j) and the expression holds
is() { [ "$(value "$2")" = True ] && ok "$1" || not_ok "$1 ($2)"; }
io() { t 0 "$1" qemu-io -f raw "${@:3}" "$(uri "$2")"; }

disks 1G d1 d2
t 0 'pool create' "$ashlar" pool create demo d1 d2
t 0 'a volume' "$ashlar" volume create demo/v --size 1G
t 0 'and another' "$ashlar" volume create demo/w --size 1G
serve || not_ok 'the daemon starts'
io 'write' demo/v -c 'write -P 1 0 1M' -c 'write -P 2 4M 64k'
t 0 'snapshots of both' "$ashlar" snapshot create demo/v@a demo/w@a
diff_ 'nothing differs' demo/v@a demo/v
[ ! -s out ] && ok 'and nothing is said' || not_ok 'and nothing is said'
diff_ 'nothing as JSON' --json demo/v@a demo/v
is 'an empty list' 'j == []'
io 'writes after it' demo/v -c 'write -P 3 512k 4k' -c 'write -P 3 516k 4k' -c 'write -P 3 8M 64k' -c 'discard 4M 64k'
want='[{"offset": 524288, "length": 8192, "type": "data"}, {"offset": 4 << 20, "length": 65536, "type": "zero"}, {"offset": 8 << 20, "length": 65536, "type": "data"}]'
diff_ 'up to now' --json demo/v@a demo/v
is 'ranges are merged, holes are told' "j == $want"
t 0 'a second snapshot' "$ashlar" snapshot create demo/v@b
io 'writes after that' demo/v -c 'write -P 4 16M 1M'
diff_ 'between two' --json demo/v@a demo/v@b
is 'the same as then' "j == $want"
diff_ 'backwards' --json demo/v@b demo/v@a
is 'the other way round' '[(x["offset"], x["type"]) for x in j] == [(524288, "data"), (4 << 20, "data"), (8 << 20, "zero")]'
diff_ 'as text' demo/v@b demo/v
says '^ +OFFSET +LENGTH +TYPE$' 'a heading'
says '^ +16M +1M  data$' 'sizes for people'
diff_ 'exact' -p demo/v@b demo/v
says '^ +16777216 +1048576  data$' 'exact bytes'
diff_ 'for scripts' -H -p demo/v@b demo/v
[ "$(cat out)" = "$(printf '16777216\t1048576\tdata')" ] && ok 'tabs, no heading' || not_ok 'tabs, no heading'
t 0 'another size' "$ashlar" volume resize demo/v 2G
diff_ 'with a longer volume' --json demo/v@b demo/v
is 'what lies beyond differs' 'j[-1] == {"offset": 1 << 30, "length": 1 << 30, "type": "zero"} and len(j) == 2'

# More than a page.
cat >many.py <<'PY'
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
buf = nbd.Buffer.from_bytearray(bytearray(b"x" * 4096))
for i in range(10000):
    h.aio_pwrite(buf, (32 << 20) + i * 8192, lambda err: 1)
    while h.aio_in_flight() > 100:
        h.poll(-1)
while h.aio_in_flight():
    h.poll(-1)
PY
t 0 'many ranges' "$py" many.py "$(uri demo/v)"
t 0 'a third snapshot' "$ashlar" snapshot create demo/v@c
many='[x["offset"] for x in j[1:-1]] == [(32 << 20) + i * 8192 for i in range(10000)] and {x["length"] for x in j[1:-1]} == {4096}'
diff_ 'in pages' --json demo/v@b demo/v@c
is 'none is missing, none is there twice' "$many"

refused 'a snapshot that is not there' 'nothing' "$ashlar" snapshot diff demo/v@nothing demo/v
refused 'a volume that is not there' 'nothing' "$ashlar" snapshot diff demo/v@a demo/nothing
refused 'volumes without anything in common' 'nothing in common' "$ashlar" snapshot diff demo/v@a demo/w
refused 'pools without anything in common' 'in common' "$ashlar" snapshot diff demo/v@a other/v
t 2 'no name of a snapshot' "$ashlar" snapshot diff v@a v
t 2 'one only' "$ashlar" snapshot diff demo/v@a
t 2 'three' "$ashlar" snapshot diff demo/v@a demo/v@b demo/v@c
t 0 'a snapshot may be deleted afterwards' "$ashlar" snapshot delete demo/v@a
diff_ 'the others stay' --json demo/v@b demo/v@c
is 'as they were' "$many"
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
diff_ 'without a daemon' --json demo/v@b demo/v@c
is 'the same' "$many"
t 0 'pool check' "$ashlar" pool check demo
done_
