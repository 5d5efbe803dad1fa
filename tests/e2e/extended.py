#!/usr/bin/python3
"""extended.py SOCKET EXPORT SIZE: requests with extended headers over a whole big volume, of which a little is written."""
import os
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "proto"))
from nbd_rig import CACHE, FLUSH, READ, STATUS, TRIM, WRITE, ZERO, Raw  # noqa: E402


class Where:
    path = sys.argv[1]


size = int(sys.argv[3])
c = Raw(Where, timeout=100).go(sys.argv[2].encode(), extended=True, contexts=(b"base:allocation",))


def ask(what, cmd, off=0, length=0, **kw):
    start = time.time()
    c.request(cmd, off, length, **kw)
    error, _, chunks = c.reply(off)
    print("# %-28s %.2f s" % (what, time.time() - start))
    assert not error, (what, error)
    return chunks


def extents(off=0, length=size):
    (typ, body), = ask("status", STATUS, off, length)
    context, n = struct.unpack_from(">II", body)
    assert typ == 6 and context == 1 and len(body) == 8 + 16 * n
    return [struct.unpack_from(">QQ", body, 8 + 16 * i) for i in range(n)]


at = [0, 5 << 30, size // 2, size - 65536]
for a in at:
    ask("write", WRITE, a, 65536, payload=b"x" * 65536)
ask("flush", FLUSH)
pos, found = 0, []
while pos < size:
    for n, flags in extents(pos, size - pos):
        if flags == 0:
            found.append((pos, n))
        pos += n
assert pos == size and found == [(a, 65536) for a in at], (pos, found)
ask("cache of all", CACHE, 0, size)
ask("zero from the second on", ZERO, 4 << 30, size - (4 << 30))
assert ask("read", READ, 5 << 30, 65536)[0][1][8:] == bytes(65536)
assert ask("read", READ, 0, 65536)[0][1][8:] == b"x" * 65536
ask("trim of all", TRIM, 0, size)
pos = 0
while pos < size:
    for n, flags in extents(pos, size - pos):
        assert flags == 3, (pos, n, flags)
        pos += n
c.close()
