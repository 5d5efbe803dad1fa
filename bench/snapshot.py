#!/usr/bin/env python3
"""What snapshots cost, by fio and by the control socket, alternating in one run.

  create     how long `snapshot.create` takes, as a program sees it that talks to the daemon, while a client writes: of a volume that
             is fully written, and of one of 64 TiB with writes all over it
  overwrite  4 KiB random overwrite of a fully written volume: steady, and from the instant of a snapshot on, in windows of as many
             writes as there are clusters; the same for qcow2 behind qemu-nbd, with an internal snapshot and with an overlay
  flush      what one 4 KiB write and a flush right after a snapshot write to the disks, counted by them
  delete     what a client feels while a snapshot is deleted that shares nothing with its volume any more

Disks are files in a tmpfs, written before where that matters, so that nobody pays for pages of the tmpfs; disks whose flushes
are counted are loop devices over such files (that needs root). qemu-nbd is stopped for its snapshots, and starts again before the
steady figure too.
"""
import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import raid  # noqa: E402
import run as base  # noqa: E402
from raid import MIB, rotate  # noqa: E402
from run import Failed, note, run  # noqa: E402

CLUSTER = 64 << 10
SECTIONS = ("create", "overwrite", "flush", "delete")
SETTLE = 0.25  # seconds after a deletion that count with it: what it has left to write
HUGE = 64 << 40


# ---- disks ----

class Sparse(base.Files):
    def __init__(self):
        super().__init__("/dev/shm", "file on tmpfs")

    def make(self, size):
        path = os.path.join(self.dir, "disk%d" % self.n)
        self.n += 1
        with open(path, "wb") as f:
            f.truncate(size)
        return path


def written():
    return base.Files("/dev/shm", "file on tmpfs")


def counted():
    if os.geteuid() == 0 and os.path.exists("/dev/loop-control"):
        return base.Loop()
    note("flushes are not counted: loop devices need root")
    return Sparse()


def flushes(devs):
    """None where nobody counts them."""
    n = 0
    for dev in devs:
        try:
            with open("/sys/block/%s/stat" % os.path.basename(dev)) as f:
                n += int(f.read().split()[15])
        except (OSError, IndexError):
            return None
    return n


# ---- servers ----

class Control:
    """One connection to a daemon's control socket."""

    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(60)
        self.s.connect(path)
        self.rest = b""
        self.id = 0

    def call(self, method, **params):
        self.id += 1
        self.s.sendall(json.dumps({"jsonrpc": "2.0", "id": self.id, "method": method, "params": params}).encode() + b"\n")
        while b"\n" not in self.rest:
            more = self.s.recv(1 << 16)
            if not more:
                raise Failed("%s: the daemon has closed the control connection" % method)
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        reply = json.loads(line)
        if "error" in reply:
            raise Failed("%s: %s" % (method, reply["error"].get("message")))
        return reply["result"]


class ExactCpu:
    def cpu_us(self):
        """To the nanosecond, where the tick of /proc/PID/stat is too coarse for short runs."""
        return time.clock_gettime((~self.p.pid << 3) | 2) * 1e6


class Pool(ExactCpu, raid.Pool):
    def __init__(self, name, size, disk_bytes, disks, opt, tmp, layout="single", n=1):
        super().__init__(name, layout, n, disk_bytes, disks, opt, tmp)
        self.control = Control(self.env["ASHLAR_CONTROL"])
        self.size, self.snapshots = size, 0
        self.volume("v", size)

    def snapshot(self):
        """Seconds."""
        self.snapshots += 1
        t = time.perf_counter()
        self.control.call("snapshot.create", snapshots=["bench/v@%d" % self.snapshots])
        return time.perf_counter() - t

    def used(self):
        return self.control.call("pool.show", pool="bench")["used_bytes"]

    def forget(self, used):
        """Deletes the last snapshot; seconds until its space is there."""
        t = time.perf_counter()
        self.control.call("snapshot.delete", snapshots=["bench/v@%d" % self.snapshots])
        while self.used() > used:
            if time.perf_counter() - t > 60:
                raise Failed("a deleted snapshot keeps its space")
            time.sleep(0.002)
        return time.perf_counter() - t

    def fill(self):
        base.fio(self, "write", "1m", 8, ["--size=%d" % self.size, "--end_fsync=1"], self.tmp)

    def fresh(self):
        if self.snapshots:
            self.forget(self.size)
        self.fill()


class Qcow2(ExactCpu, base.Server):
    def __init__(self, name, size, disks, opt, tmp):
        self.name, self.size, self.tmp = name, size, tmp
        self.sock = os.path.join(tmp, name + ".sock")
        self.uri = "nbd+unix:///disk?socket=" + self.sock
        self.log = open(os.path.join(tmp, name + ".log"), "w+")
        self.overlay = name == "qcow2-overlay"
        room = size + size // 8 + 16 * MIB
        self.dev = disks.make(room if self.overlay else size + room)
        self.over = disks.make(room) if self.overlay else None
        self.snapped, self.p = False, None
        run("qemu-img", "create", "-f", "qcow2", self.dev, str(size))

    def start(self, dev):
        if self.p:
            self.stop()
        if os.path.exists(self.sock):
            os.unlink(self.sock)
        self.log = open(self.log.name, "w+")
        self.p = subprocess.Popen(["qemu-nbd", "-f", "qcow2", "-x", "disk", "-t", "--shared=16", "--cache=none", "--aio=io_uring",
                                   "--discard=unmap", "-k", self.sock, dev],
                                  stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while not os.path.exists(self.sock):
            if self.p.poll() is not None or time.monotonic() > end:
                raise Failed("%s did not start" % self.name)
            time.sleep(0.02)

    def fresh(self):
        if self.snapped and not self.overlay:
            self.stop()
            run("qemu-img", "snapshot", "-d", "s", self.dev)
        if not self.snapped or not self.overlay:  # an overlay's base does not change
            self.start(self.dev)
            base.fio(self, "write", "1m", 8, ["--size=%d" % self.size, "--end_fsync=1"], self.tmp)
        self.start(self.dev)

    def snapshot(self):
        """Seconds, with the server stopped, and the start of qemu-img."""
        self.stop()
        t = time.perf_counter()
        if self.overlay:
            run("qemu-img", "create", "-f", "qcow2", "-b", self.dev, "-F", "qcow2", self.over)
        else:
            run("qemu-img", "snapshot", "-c", "s", self.dev)
        t = time.perf_counter() - t
        self.start(self.over or self.dev)
        self.snapped = True
        return t

    def stop(self):
        if self.p:
            super().stop()


class Client(raid.Load):
    """Anything fio does, in the background."""

    def __init__(self, *args):
        self.args = args
        self.result = None
        self.thread = raid.threading.Thread(target=self.main)
        self.thread.start()


# ---- create ----

def create_one(p, what, job, seconds, report, opt):
    load = Client(p, *job, p.tmp)
    time.sleep(0.3)
    times = []
    for _ in range(opt.snapshots):
        times.append(p.snapshot() * 1000)
        time.sleep(seconds / opt.snapshots)
    r = load.end()
    print("  %-38s median %.2f ms, worst %.2f ms of %d (%.0f writes/s meanwhile)" %
          (what, statistics.median(times), max(times), len(times), r["iops"]), flush=True)
    report.row("create", what=what, ms=times, client=r)
    report.budget("snapshot of %s, median ms" % what, statistics.median(times), -10.0)
    report.budget("snapshot of %s, worst of %d, ms" % (what, len(times)), max(times), -10.0)


def create(opt, report):
    tmp, disks, pools = tempfile.mkdtemp(prefix="ashlar-bench-run."), Sparse(), []
    seconds = 0.1 * opt.snapshots
    timed = ["--time_based", "--runtime=%dms" % (1000 * (seconds + 0.5)), "--rate_iops=%d" % opt.rate]
    try:
        print("\nTaking a snapshot through the control socket, while a client writes 4 KiB, QD8\n")
        p = Pool("full", opt.size * MIB, 3 * opt.size * MIB + 512 * MIB, disks, opt, tmp)
        pools.append(p)
        p.fill()
        create_one(p, "%d MiB, fully written" % opt.size, ("randwrite", "4k", 8, ["--size=%d" % p.size, *timed]), seconds, report, opt)
        p.stop()
        gap = HUGE // opt.sparse // 4096 * 4096
        p = Pool("huge", HUGE, (2 * opt.sparse * CLUSTER + (1 << 30)) // MIB * MIB, disks, opt, tmp)
        pools.append(p)
        spread = ("write:%d" % (gap - 4096), "4k", 8)  # each into a leaf of its own
        base.fio(p, spread[0], "4k", 32, ["--size=%d" % HUGE, "--io_size=%d" % (4096 * opt.sparse), "--end_fsync=1"], tmp)
        s = p.show()
        note("64 TiB with %d clusters: %.0f MiB of metadata" % (s["used_bytes"] // CLUSTER, s["metadata_bytes"] / MIB))
        create_one(p, "64 TiB, %d writes all over it" % opt.sparse, (*spread, ["--size=%d" % HUGE, *timed]), seconds, report, opt)
    finally:
        for p in pools:
            p.stop()
        disks.remove()
        shutil.rmtree(tmp, ignore_errors=True)


# ---- overwrite ----

def overwrite_round(s, results, opt):
    n = s.size // CLUSTER

    def some(windows):
        return base.fio(s, "randwrite", "4k", 32, ["--size=%d" % s.size, "--io_size=%d" % (4096 * n * windows)], s.tmp)

    s.fresh()
    if not opt.smoke:
        some(1)  # a steady state is one that has been so for a while
    row = {"steady": some(2)}
    row["snapshot"] = s.snapshot()
    for i in range(opt.windows):
        row[i] = some(1)
    results.setdefault(s.name, []).append(row)


def overwrite_table(servers, results, opt, report):
    print("\n4 KiB random overwrite, QD32, of a fully written volume (each window: as many writes as there are clusters)\n")
    head = "%-15s %-14s %9s %9s %9s | %10s %10s"
    print(head % ("server", "when", "IOPS", "p99 us", "CPU us/IO", "by steady", "CPU by s."))
    for s in servers:
        rows = results[s.name]
        for key in ("steady", *range(opt.windows)):
            mid = {f: statistics.median(r[key][f] for r in rows) for f in ("iops", "p99", "cpu")}
            by = {f: statistics.median(r[key][f] / r["steady"][f] for r in rows) for f in ("iops", "cpu")}
            print(head % (s.name, key if key == "steady" else "window %d" % (key + 1), "%.0f" % mid["iops"],
                          "%.0f" % mid["p99"], "%.2f" % mid["cpu"], "%.2f" % by["iops"], "%.2f" % by["cpu"]))
            report.row("overwrite", server=s.name, when=key, rounds=[r[key] for r in rows], iops_by_steady=by["iops"],
                       cpu_by_steady=by["cpu"])
            if s.name == "thin" and key == 0:
                report.budget("overwrite right after a snapshot against steady, 4 KiB QD32", by["iops"], +0.8)
        print("%-15s snapshot taken in %.1f ms%s\n" % ("", 1000 * statistics.median(r["snapshot"] for r in rows),
                                                      "" if s.name == "thin" else " (server stopped, qemu-img's start included)"))
    sys.stdout.flush()


def overwrite(opt, report):
    tmp, disks, servers, results = tempfile.mkdtemp(prefix="ashlar-bench-run."), written(), [], {}
    size = opt.size * MIB
    try:
        servers.append(Pool("thin", size, 2 * size + 256 * MIB, disks, opt, tmp))
        for name in ("qcow2-internal", "qcow2-overlay")[:1 if opt.smoke else None]:
            if shutil.which("qemu-nbd") and shutil.which("qemu-img"):
                servers.append(Qcow2(name, size, disks, opt, tmp))
            else:
                note("%s is left out: there is no qemu-nbd" % name)
        for i in range(opt.rounds):
            for s in rotate(servers, i):
                overwrite_round(s, results, opt)
            note("round %d of %d done" % (i + 1, opt.rounds))
    finally:
        for s in servers:
            s.stop()
        disks.remove()
        shutil.rmtree(tmp, ignore_errors=True)
    overwrite_table(servers, results, opt, report)


# ---- flush ----

def flush_once(p):
    """One 4 KiB write and a flush: writes, bytes and flushes at the disks."""
    time.sleep(0.02)
    before, f = p.count(), flushes(p.devs)
    base.fio(p, "randwrite", "4k", 1, ["--size=%d" % p.size, "--io_size=4096", "--end_fsync=1"], p.tmp)
    after, g = p.count(), flushes(p.devs)
    return after["writes"] - before["writes"], after["bytes_written"] - before["bytes_written"], None if f is None else g - f


def flush(opt, report):
    tmp, pools = tempfile.mkdtemp(prefix="ashlar-bench-run."), []
    disks = counted()
    print("\nOne 4 KiB write and a flush, by the disks' counters, %s: median (worst) of %d\n" % (disks.kind, opt.flushes))
    try:
        for layout, n in [("single", 1), ("raid1", 2), ("raid1", 3)][:1 if opt.smoke else None]:
            p = Pool("%s-%d" % (layout, n), 64 * MIB, 1024 * MIB, disks, opt, tmp, layout, n)
            pools.append(p)
            p.fill()
            for how in ("steady", "after a snapshot"):
                got = []
                for _ in range(opt.flushes):
                    if how != "steady":
                        p.snapshot()
                    got.append(flush_once(p))
                flush_row(p, layout, n, how, got, report)
            p.stop()
    finally:
        for p in pools:
            p.stop()
        disks.remove()
        shutil.rmtree(tmp, ignore_errors=True)


def flush_row(p, layout, n, how, got, report):
    shown = []
    for i, what in enumerate(("writes", "bytes", "flushes")):
        v = [x[i] for x in got if x[i] is not None]
        shown.append("%g (%d) %s" % (statistics.median(v), max(v), what) if v else "- " + what)
    print("  %-8s %d disk%s  %-17s %s" % (layout, n, " " if n == 1 else "s", how, ", ".join(shown)), flush=True)
    report.row("flush", layout=layout, disks=n, how=how, counts=got)
    if how == "steady":
        return
    data, copies = (2 if layout == "raid1" else 1), max(2, min(3, n))  # one disk has two copies of its metadata
    what = "4 KiB and a flush after a snapshot, %s of %d" % (layout, n)
    report.budget(what + ": disk writes", statistics.median(x[0] for x in got), -float(data + copies), "%.0f")
    if got[0][2] is not None:  # loop devices have no FUA: each journal write brings a flush of its own
        report.budget(what + ": disk flushes, FUA counted as one", statistics.median(x[2] for x in got), -float(data + copies), "%.0f")


# ---- delete ----

def latencies(path):
    """(ms since the epoch, us) of each request."""
    with open(path) as f:
        rows = [x.split(",") for x in f]
    return [(int(x[0]), int(x[1]) / 1000) for x in rows]


def p99(v):
    return sorted(v)[int(0.99 * len(v))] if v else 0.0


def delete_round(p, i, opt):
    """Seconds that the deletion took, latencies before and meanwhile."""
    before, during = [], []
    p.fill()
    p.snapshot()
    p.fill()
    log = os.path.join(p.tmp, "lat%d" % i)
    half = opt.delete_seconds
    load = Client(p, "randrw", "4k", 8,
                  ["--size=%d" % p.size, "--rwmixread=70", "--time_based", "--runtime=%dms" % (1000 * (half + 2 * SETTLE + 0.5)),
                   "--rate_iops=%d,%d" % (opt.rate * 7 // 10, opt.rate * 3 // 10), "--write_lat_log=" + log, "--log_unix_epoch=1"], p.tmp)
    time.sleep(0.5 + half)
    t0 = time.time() * 1000
    took = p.forget(p.size)
    t1 = time.time() * 1000
    load.end()
    for at, us in latencies(log + "_clat.1.log"):
        if t0 - half * 900 <= at < t0:
            before.append(us)
        elif t0 <= at <= t1 + SETTLE * 1000:
            during.append(us)
    if not before or not during:
        raise Failed("no request was answered while a snapshot was deleted")
    return took, before, during


def delete(opt, report):
    tmp, disks, p = tempfile.mkdtemp(prefix="ashlar-bench-run."), written(), None
    rounds = []
    try:
        p = Pool("delete", opt.size * MIB, 2 * opt.size * MIB + 512 * MIB, disks, opt, tmp)
        for i in range(opt.deletions):
            rounds.append(delete_round(p, i, opt))
    finally:
        if p:
            p.stop()
        disks.remove()
        shutil.rmtree(tmp, ignore_errors=True)
    took = [r[0] for r in rounds]
    a, b = ([p99(r[k]) for r in rounds] for k in (1, 2))
    ratio = statistics.median(y / x for x, y in zip(a, b))
    print("\nDeleting a snapshot of %d MiB, all overwritten since, under a client (4 KiB, 70 %% reads, %d/s)\n" % (opt.size, opt.rate))
    print("  gone in %.0f ms (median of %d, worst %.0f ms)" % (1000 * statistics.median(took), len(took), 1000 * max(took)))
    print("  p99, medians of rounds: %.0f us before, %.0f us until %.2f s after: %.2f times (rounds: %s); worst %.0f and %.0f us" %
          (statistics.median(a), statistics.median(b), SETTLE, ratio, ", ".join("%.2f" % (y / x) for x, y in zip(a, b)),
           max(max(r[1]) for r in rounds), max(max(r[2]) for r in rounds)), flush=True)
    report.row("delete", seconds=took, p99_before=a, p99_during=b, n=[[len(r[1]), len(r[2])] for r in rounds], ratio=ratio)
    report.budget("clients' p99 while a snapshot is deleted against before", ratio, -2.0)


# ---- all of it ----

def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build", help="where ashlar is")
    p.add_argument("--sections", default=",".join(SECTIONS))
    p.add_argument("--size", type=int, default=1024, help="MiB of volumes that are fully written")
    p.add_argument("--sparse", type=int, default=20000, help="writes all over the 64 TiB")
    p.add_argument("--rounds", type=int, default=7, help="of overwriting")
    p.add_argument("--windows", type=int, default=3, help="after each snapshot, of as many writes as there are clusters")
    p.add_argument("--snapshots", type=int, default=30, help="to take of each volume, one each 0.1 s")
    p.add_argument("--flushes", type=int, default=15, help="write and flush pairs to count")
    p.add_argument("--deletions", type=int, default=7)
    p.add_argument("--delete-seconds", type=float, default=1, help="of latencies before each deletion")
    p.add_argument("--rate", type=int, default=2000, help="requests per second of clients in the background")
    p.add_argument("--reactors", type=int, default=1, help="of each `ashlar serve`")
    p.add_argument("--smoke", action="store_true", help="some seconds: does it run at all?")
    p.add_argument("--results", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "results"))
    opt = p.parse_args()
    opt.build = os.path.abspath(opt.build)
    opt.sections = opt.sections.split(",")
    if set(opt.sections) - set(SECTIONS):
        p.error("sections are: " + ", ".join(SECTIONS))
    if opt.smoke:
        opt.size, opt.sparse, opt.rounds, opt.snapshots = 32, 500, 1, 3
        opt.windows, opt.flushes, opt.deletions, opt.delete_seconds = 1, 3, 1, 0.2
    return opt


def main():
    opt = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    report = raid.Report()
    try:
        for name, section in (("create", create), ("overwrite", overwrite), ("flush", flush), ("delete", delete)):
            if name in opt.sections:
                section(opt, report)
    except Failed as e:
        print("bench: %s" % e, file=sys.stderr)
        return 1
    report.end(opt, "snapshot")
    return 0


if __name__ == "__main__":
    sys.exit(main())
