#!/usr/bin/env python3
"""How fast an idle disk is evacuated, beside a plain dd of as many bytes between the same places, alternating in one run.

A pool of one file, a volume in it that is written with random data; a second file is added, and the first is evacuated by command while the
pool is served and nobody else asks for anything. The time is that of the job: from the command to its end, as a client of the control socket
sees it. dd copies with direct I/O, 1 MiB at a time, and flushes at its end, as the job does group by group.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

MIB = 1 << 20


def fail(text):
    sys.exit("evacuate: " + text)


def run(*args, **kw):
    p = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, check=False, **kw)
    if p.returncode:
        fail("%s: %s" % (" ".join(args[:4]), p.stderr.strip() or p.stdout.strip()))
    return p.stdout


def filled(path, size):
    """A file whose space is there: nobody pays for it while time is taken."""
    with open(path, "wb") as f:
        chunk = os.urandom(MIB)
        for _ in range(size // MIB):
            f.write(chunk)
        f.flush()
        os.fsync(f.fileno())


class Pool:
    def __init__(self, ashlar, where, size, data):
        self.dir = where
        self.ashlar = ashlar
        self.env = dict(os.environ, ASHLAR_DISKS=where, ASHLAR_CONTROL=where + "/control.sock")
        self.disks = [where + "/disk0", where + "/disk1"]
        for d in self.disks:
            filled(d, size)
        self.cmd("pool", "create", "bench", "--layout", "single", "--force", self.disks[0])
        self.cmd("volume", "create", "bench/v", "--size", str(data))
        self.daemon = subprocess.Popen([ashlar, "serve", "--nbd", "unix:%s/nbd.sock" % where, self.disks[0]], env=self.env,
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True)
        for line in self.daemon.stdout:
            if line.strip() == "ready":
                break
        else:
            fail("the daemon does not start")
        run("fio", "--name=fill", "--ioengine=nbd", "--uri=nbd+unix:///bench/v?socket=%s/nbd.sock" % where, "--rw=write", "--bs=1m",
            "--iodepth=8", "--size=%d" % data, "--end_fsync=1", cwd=where)

    def cmd(self, *args):
        return run(self.ashlar, *args, env=self.env)

    def evacuate(self):
        self.cmd("disk", "add", "bench", "--force", self.disks[1])
        time.sleep(0.5)
        start = time.monotonic()
        row = json.loads(self.cmd("disk", "evacuate", "bench", "disk0", "--wait", "--json"))
        seconds = time.monotonic() - start
        if row["state"] != "done":
            fail("the evacuation is " + row["state"])
        return row["total_bytes"], seconds

    def close(self):
        self.daemon.terminate()
        self.daemon.wait()


def dd(where, size):
    start = time.monotonic()
    run("dd", "if=%s/disk0" % where, "of=%s/disk1" % where, "bs=1M", "count=%d" % (size // MIB), "iflag=direct", "oflag=direct",
        "conv=notrunc,fsync")
    return time.monotonic() - start


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--build", default="build")
    a.add_argument("--dir", default=None, help="where the files are; default: the temporary directory")
    a.add_argument("--size", type=int, default=1024, help="MiB of data")
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--smoke", action="store_true", help="once, little")
    o = a.parse_args()
    size, rounds = (64, 1) if o.smoke else (o.size, o.rounds)
    ours, theirs, copied = [], [], 0
    for _ in range(rounds):
        where = tempfile.mkdtemp(prefix="ashlar-bench.", dir=o.dir)
        try:
            pool = Pool(os.path.abspath(o.build) + "/ashlar", where, (2 * size + 256) * MIB, size * MIB)
            copied, seconds = pool.evacuate()
            pool.close()
            ours.append(copied / seconds / MIB)
            theirs.append(copied / dd(where, copied) / MIB)
        finally:
            shutil.rmtree(where)
    print("evacuation of %d MiB, MiB/s: ashlar %.0f, dd %.0f, ratio %.2f (medians of %d)" %
          (copied // MIB, statistics.median(ours), statistics.median(theirs), statistics.median(x / y for x, y in zip(ours, theirs)), rounds))


main()
