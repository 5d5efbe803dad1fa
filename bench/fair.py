#!/usr/bin/env python3
"""What a client with one request at a time feels of a greedy one on the same reactor, and how exactly limits hold.

One reactor, one disk (a file), volumes that have been written. The quiet client reads 4 KiB at random, one at a time; the greedy one does
what its row says, on another volume or on the same. "waits" is what the quiet one's mean latency is beyond that when it is alone, in
requests' worth of time of the greedy one: how many of those it waits for, of 1024 that want to go before it. First where the reactor's
CPU is what both want, then where it is the disk: one behind nbdkit that takes a request at a time, and a millisecond for it; there the
first seconds do not count, in which what was under way before the quiet one came has to end.

Then the greedy one gets limits: what it does under them, by the daemon's counters, after the first second, against what it may.
"""
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import served  # noqa: E402
from served import MIB, fail  # noqa: E402

# name, fio's options, volume
GREEDY = [
    ("read 4k, depth 1024", ["--rw=randread", "--bs=4k", "--iodepth=1024"], "loud"),
    ("read 4k, 4 x depth 256", ["--rw=randread", "--bs=4k", "--iodepth=256", "--numjobs=4"], "loud"),
    ("write 4k, depth 1024", ["--rw=randwrite", "--bs=4k", "--iodepth=1024"], "loud"),
    ("read 1m, depth 64", ["--rw=read", "--bs=1m", "--iodepth=64"], "loud"),
    ("read 4k, depth 1024, same volume", ["--rw=randread", "--bs=4k", "--iodepth=1024"], "quiet"),
]
# settings, fio's options, requests allowed per second
LIMITS = [
    (["iops=10"], ["--rw=randread", "--bs=4k", "--iodepth=4"], 10),
    (["iops=200"], ["--rw=randread", "--bs=4k", "--iodepth=1"], 200),
    (["iops=1000"], ["--rw=randrw", "--bs=4k", "--iodepth=1024"], 1000),
    (["iops=5000"], ["--rw=randread", "--bs=4k", "--iodepth=64"], 5000),
    (["bps=1M"], ["--rw=randread", "--bs=4k", "--iodepth=1"], 256),
    (["bps=40M"], ["--rw=randrw", "--bs=64k", "--iodepth=32"], 640),
    (["bps=64M", "iops=1000000"], ["--rw=write", "--bs=1m", "--iodepth=16"], 64),
]


class SlowDisk:
    def __init__(self, where, size):
        sock = where + "/slow.sock"
        self.uri = "nbd+unix:///?socket=" + sock
        self.server = subprocess.Popen(["nbdkit", "-f", "-U", sock, "--filter=noparallel", "--filter=delay", "memory", str(size), "rdelay=1ms",
                                        "serialize=all-requests"], stderr=subprocess.DEVNULL)
        for _ in range(100):
            if os.path.exists(sock):
                return
            time.sleep(0.05)
        fail("nbdkit does not start")

    def close(self):
        self.server.terminate()
        self.server.wait()


class Pool(served.Pool):
    def __init__(self, build, where, data, disk=None):
        scan = disk
        if not disk:
            disk = where + "/disk0"
            with open(disk, "wb") as f:
                f.truncate(4 * data + 256 * MIB)
        super().__init__(build, where, disk, ("quiet", "loud"), data, ("--reactors", "1"), scan)

    def requests(self, volume):
        """When, and how many requests have gone on to the disks by then."""
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.env["ASHLAR_CONTROL"])
            f = s.makefile("rw")
            start = time.monotonic()
            f.write('{"jsonrpc":"2.0","id":1,"method":"volume.show","params":{"volume":"bench/%s"}}\n' % volume)
            f.flush()
            row = json.loads(f.readline())["result"]
            return (start + time.monotonic()) / 2, row["reads"] + row["writes"] - row["limit_waiting"]

    def start(self, volume, opts, seconds, ramp=0):
        timed = ["--time_based", "--runtime=%g" % seconds, "--ramp_time=%g" % ramp]
        return subprocess.Popen(self.fio(volume, opts + timed), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=self.dir,
                                universal_newlines=True)


def result(p):
    out = p.communicate()[0]
    if p.returncode:
        fail("fio ended with status %d" % p.returncode)
    return json.loads(out[out.index("{"):])["jobs"][0]


def quiet(pool, seconds, ramp):
    r = result(pool.start("quiet", ["--rw=randread", "--bs=4k", "--iodepth=1"], seconds, ramp))["read"]
    return r["iops"], r["clat_ns"]["mean"] / 1000, r["clat_ns"]["percentile"]["99.000000"] / 1000


def fairness(pool, greedy, seconds, rounds, ramp=0):
    print("%-36s %10s %10s %10s %12s %8s" % ("greedy client", "quiet IOPS", "mean us", "p99 us", "greedy IOPS", "waits"))
    alone = [quiet(pool, seconds, 0) for _ in range(rounds)]
    base = statistics.median(x[1] for x in alone)
    print("%-36s %10.0f %10.0f %10.0f %12s %8s" % (("none",) + tuple(statistics.median(x[i] for x in alone) for i in range(3)) + ("", "")))
    for name, opts, volume in greedy:
        rows = []
        for _ in range(rounds):
            p = pool.start(volume, opts, seconds + ramp + 2)
            time.sleep(1)
            q = quiet(pool, seconds, ramp)
            job = result(p)
            rows.append(q + (job["read"]["iops"] + job["write"]["iops"],))
        m = [statistics.median(x[i] for x in rows) for i in range(4)]
        print("%-36s %10.0f %10.0f %10.0f %12.0f %8.1f" % (name, m[0], m[1], m[2], m[3], (m[1] - base) * m[3] / 1e6))


def limits(pool, rows, seconds):
    worst = 0
    print("\n%-24s %-36s %10s %10s %9s" % ("limits", "load", "may", "does", "off by"))
    for settings, opts, may in rows:
        pool.cmd("volume", "set", "bench/loud", *settings)
        p = pool.start("loud", opts, seconds + 2)
        time.sleep(1.5)
        t, n = pool.requests("loud")
        time.sleep(seconds)
        t2, n2 = pool.requests("loud")
        pool.cmd("volume", "set", "bench/loud", "iops=none", "bps=none")
        result(p)
        does = (n2 - n) / (t2 - t)
        worst = max(worst, abs(does / may - 1))
        print("%-24s %-36s %10.0f %10.1f %8.2f%%" % (" ".join(settings), " ".join(opts), may, does, 100 * (does / may - 1)))
    return worst


def main():
    a = served.options(__doc__, 256, "MiB of data in each volume")
    a.add_argument("--seconds", type=float, default=5)
    o = a.parse_args()
    size, seconds, rounds = (16, 1, 1) if o.smoke else (o.size, o.seconds, o.rounds)
    greedy, rows, ramp = (GREEDY[:1], LIMITS[2:5:2], 1) if o.smoke else (GREEDY, LIMITS, 4)
    where = tempfile.mkdtemp(prefix="ashlar-bench.", dir=o.dir)
    open_ones = []
    try:
        open_ones.append(Pool(o.build, where, size * MIB))
        fairness(open_ones[0], greedy, seconds, rounds)
        worst = limits(open_ones[0], rows, seconds)
        open_ones.pop().close()
        if shutil.which("nbdkit"):
            print("\na slow disk")
            open_ones.append(SlowDisk(where, 1024 * MIB))
            open_ones.append(Pool(o.build, where, 16 * MIB, open_ones[0].uri))
            fairness(open_ones[1], greedy[:2], seconds, rounds, ramp)
        else:
            print("\na slow disk: left out, there is no nbdkit")
    finally:
        while open_ones:
            open_ones.pop().close()
        shutil.rmtree(where)
    print("\nat worst off by %.2f %%" % (100 * worst))


main()
