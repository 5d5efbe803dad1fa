#!/usr/bin/env python3
"""How fast an idle disk is evacuated, beside a plain dd of as many bytes between the same places, alternating in one run.

A pool of one file, a volume in it that is written with random data; a second file is added, and the first is evacuated by command while the
pool is served and nobody else asks for anything. The time is that of the job: from the command to its end, as a client of the control socket
sees it. dd copies with direct I/O, 1 MiB at a time, and flushes at its end, as the job does group by group.
"""
import json
import os
import shutil
import statistics
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import served  # noqa: E402
from served import MIB, fail, run  # noqa: E402


def filled(path, size):
    """A file whose space is there: nobody pays for it while time is taken."""
    with open(path, "wb") as f:
        chunk = os.urandom(MIB)
        for _ in range(size // MIB):
            f.write(chunk)
        f.flush()
        os.fsync(f.fileno())


class Pool(served.Pool):
    def __init__(self, build, where, size, data):
        self.disks = [where + "/disk0", where + "/disk1"]
        for d in self.disks:
            filled(d, size)
        super().__init__(build, where, self.disks[0], ["v"], data)

    def evacuate(self):
        self.cmd("disk", "add", "bench", "--force", self.disks[1])
        time.sleep(0.5)
        start = time.monotonic()
        row = json.loads(self.cmd("disk", "evacuate", "bench", "disk0", "--wait", "--json"))
        seconds = time.monotonic() - start
        if row["state"] != "done":
            fail("the evacuation is " + row["state"])
        return row["total_bytes"], seconds


def dd(where, size):
    start = time.monotonic()
    run("dd", "if=%s/disk0" % where, "of=%s/disk1" % where, "bs=1M", "count=%d" % (size // MIB), "iflag=direct", "oflag=direct",
        "conv=notrunc,fsync")
    return time.monotonic() - start


def main():
    o = served.options(__doc__, 1024, "MiB of data").parse_args()
    size, rounds = (64, 1) if o.smoke else (o.size, o.rounds)
    ours, theirs, copied = [], [], 0
    for _ in range(rounds):
        where = tempfile.mkdtemp(prefix="ashlar-bench.", dir=o.dir)
        try:
            pool = Pool(o.build, where, (2 * size + 256) * MIB, size * MIB)
            copied, seconds = pool.evacuate()
            pool.close()
            ours.append(copied / seconds / MIB)
            theirs.append(copied / dd(where, copied) / MIB)
        finally:
            shutil.rmtree(where)
    print("evacuation of %d MiB, MiB/s: ashlar %.0f, dd %.0f, ratio %.2f (medians of %d)" %
          (copied // MIB, statistics.median(ours), statistics.median(theirs), statistics.median(x / y for x, y in zip(ours, theirs)), rounds))


main()
