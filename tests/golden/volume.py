"""volume.py URI fill SEED FIRST COUNT STEP | zero FIRST COUNT | sum

Blocks of 4 KiB. fill writes every STEP-th block from FIRST, with a content that its number and SEED give; then flushes. sum
prints the SHA-256 of the whole volume.
"""
import hashlib
import struct
import sys

import nbd

BLOCK = 4096
h = nbd.NBD()
h.connect_uri(sys.argv[1])
what, args = sys.argv[2], [int(a) for a in sys.argv[3:]]
if what == "fill":
    seed, first, count, step = args
    for k in range(first, first + count * step, step):
        h.pwrite(struct.pack("<II", seed, k) * (BLOCK // 8), k * BLOCK)
    h.flush()
elif what == "zero":
    h.zero(args[1] * BLOCK, args[0] * BLOCK)
    h.flush()
else:
    total = hashlib.sha256()
    for off in range(0, h.get_size(), 1 << 20):
        total.update(h.pread(min(1 << 20, h.get_size() - off), off))
    print(total.hexdigest())
h.shutdown()
