#!/usr/bin/python3
"""reconnect.py URI SECONDS: a client that connects again whenever its connection ends, and finds all that it has flushed."""
import sys
import time

import nbd


def connect(until):
    while True:
        try:
            h = nbd.NBD()
            h.connect_uri(sys.argv[1])
            return h
        except nbd.Error:
            if time.time() > until + 30:
                raise
            time.sleep(0.02)


end = time.time() + float(sys.argv[2])
flushed, pending, n, times = {}, {}, 0, 0
while time.time() < end:
    h = connect(end)
    times += 1
    try:
        for off, value in list(flushed.items()):
            got = h.pread(4096, off)
            assert got[:1] in (value, pending.get(off, value)) and got == got[:1] * 4096, "at %d: %r, not %r" % (off, got[:1], value)
            flushed[off] = bytes(got[:1])  # what a kill has left of what was under way stays, whatever comes
        pending.clear()
        while time.time() < end:
            for _ in range(8):
                off, value = n % 512 * 4096, bytes([n % 251 + 1])
                pending[off] = value
                h.pwrite(value * 4096, off)
                n += 1
            h.flush()
            flushed.update(pending)
            pending.clear()
        h.shutdown()
    except nbd.Error:
        time.sleep(0.02)
assert times > 1 and n > 100, (times, n)
print("%d connections, %d writes" % (times, n))
