#!/usr/bin/env python3
"""What redundancy costs, by fio, alternating in one run.

  writes     sequential writes of 1 MiB to raid5 (4+1) and raid6 (4+2) against raid0 on 4 disks: first writes, overwrites
  degraded   reads of raid5 and raid6 with one disk lost against healthy ones, and again while all is rebuilt elsewhere
  overwrite  disk I/Os for each 4 KiB random overwrite on raid5, counted by the disks
  rebuild    what a rebuild reads and how long it takes, of a pool that is a tenth full and of one that is nearly full, and what
             clients feel of it

Disks are RAM-backed (loop devices over tmpfs), so that all that is seen is the engine's own cost: "ram". There a disk's work is
the same CPUs' work, and six disks take half as much again as four. So writes and the rebuild are also measured on disks that are
limited to a rate each (by a cgroup; it needs root), as real ones are: "limited".
"""
import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
import run as base  # noqa: E402
from run import Failed, note, run  # noqa: E402

MIB = 1 << 20
DATA_DISKS = {"raid0": (4, 0), "raid5": (4, 1), "raid6": (4, 2)}
SECTIONS = ("writes", "degraded", "overwrite", "rebuild")


# ---- disks ----

class Limited(base.Loop):
    """Loop devices that do not exceed a rate each, for processes in a cgroup of ours."""
    kind = "limited"

    def __init__(self, bps):
        super().__init__()
        self.bps = bps
        self.group = "/sys/fs/cgroup/blkio/ashlar-bench.%d" % os.getpid()
        self.v2 = not os.path.exists("/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device")
        if self.v2:
            self.group = "/sys/fs/cgroup/ashlar-bench.%d" % os.getpid()
        try:
            os.mkdir(self.group)
            if self.v2 and not os.path.exists(self.group + "/io.max"):
                raise OSError("no io controller")
        except OSError:
            self.remove()
            raise

    def write(self, name, text):
        with open(os.path.join(self.group, name), "w") as f:
            f.write(text)

    def make(self, size):
        dev = super().make(size)
        rdev = os.stat(dev).st_rdev
        number = "%d:%d" % (os.major(rdev), os.minor(rdev))
        if self.v2:
            self.write("io.max", "%s rbps=%d wbps=%d" % (number, self.bps, self.bps))
        else:
            for way in ("read", "write"):
                self.write("blkio.throttle.%s_bps_device" % way, "%s %d" % (number, self.bps))
        return dev

    def enter(self):
        """In the child, before it becomes the daemon."""
        self.write("cgroup.procs" if self.v2 else "tasks", str(os.getpid()))

    def remove(self):
        super().remove()
        for _ in range(50):  # the last process may not have left quite yet
            try:
                os.rmdir(self.group)
                return
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.1)
        note("%s is left over" % self.group)


def ram_disks():
    """Loop devices rather than zram, which spends more on each page than the engine does."""
    if os.geteuid() == 0 and os.path.exists("/dev/loop-control"):
        return base.Loop()
    return base.Files("/dev/shm", "file on tmpfs")


def limited_disks(opt):
    if opt.smoke or os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        return None
    try:
        return Limited(opt.limit * MIB)
    except OSError as e:
        note("disks cannot be limited to a rate here: %s" % e)
        return None


# ---- pools ----

class Pool(base.Server):
    """A pool with a daemon of its own; `volume` is what fio works on."""

    def __init__(self, name, layout, n, disk_bytes, disks, opt, tmp, n_other=0, serve=()):
        """n_other: there is a second pool, "other", of so many disks. serve: more options of `ashlar serve`."""
        self.name, self.layout, self.tmp = name, layout, tmp
        self.ashlar = os.path.join(opt.build, "ashlar")
        self.sock = os.path.join(tmp, name + ".sock")
        self.log = open(os.path.join(tmp, name + ".log"), "w+")
        self.env = dict(os.environ, ASHLAR_CONTROL=os.path.join(tmp, name + ".control"))
        self.devs = [disks.make(disk_bytes) for _ in range(n)]
        self.env["ASHLAR_DISKS"] = ":".join(self.devs)
        self.cli("pool", "create", "bench", "--force", "--layout", layout, *self.devs)
        others = [disks.make(disk_bytes) for _ in range(n_other)]
        if others:
            self.cli("pool", "create", "other", "--force", "--layout", layout, *others)
        enter = disks.enter if isinstance(disks, Limited) else None
        cmd = [self.ashlar, "serve", "--control", self.env["ASHLAR_CONTROL"], "--nbd", "unix:" + self.sock,
               "--reactors", str(opt.reactors), *serve, *self.devs, *others]
        self.p = subprocess.Popen(cmd, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, preexec_fn=enter)
        end = time.monotonic() + 20
        while not self.ready():
            if self.p.poll() is not None or time.monotonic() > end:
                raise Failed("%s did not start: %s" % (name, self.tail()))
            time.sleep(0.05)

    def tail(self):
        self.log.seek(0)
        return self.log.read()[-500:]

    def ready(self):
        with open(self.log.name) as f:
            return "ready\n" in f.read()

    def cli(self, *args):
        return run(self.ashlar, *args, env=self.env)

    def json(self, *args):
        return json.loads(self.cli(*args, "--json"))

    def volume(self, name, size):
        self.cli("volume", "create", "bench/" + name, "--size", str(size))
        self.use(name)

    def use(self, name):
        self.uri = "nbd+unix:///bench/%s?socket=%s" % (name, self.sock)

    def drop(self, name):
        self.cli("volume", "delete", "bench/" + name)
        for _ in range(200):
            if self.json("pool", "show", "bench")["used_bytes"] == 0:
                return
            time.sleep(0.05)

    def show(self):
        return self.json("pool", "show", "bench")

    def count(self):
        """Of the disks in service."""
        rows = [d for d in self.json("disk", "list", "bench") if d["state"] == "online"]
        return {k: sum(d[k] for d in rows) for k in ("reads", "writes", "bytes_read", "bytes_written")}

    def rebuild_job(self):
        jobs = [j for j in self.json("job", "list", "bench") if j["kind"] == "rebuild"]
        return jobs[-1] if jobs else {"state": "none", "done_bytes": 0}

    def rebuild_wait(self, deadline=120):
        end = time.monotonic() + deadline
        while True:
            s = self.show()
            if s["redundancy"] == s["redundancy_promised"] and self.rebuild_job()["state"] == "done":
                return
            if time.monotonic() > end:
                raise Failed("%s: not rebuilt after %d s: %s" % (self.name, deadline, self.rebuild_job()))
            time.sleep(0.05)


class Report:
    """Figures as they come; budgets among them are repeated at the end."""

    def __init__(self):
        self.rows, self.budgets = [], []

    def row(self, section, **figures):
        self.rows.append(dict(section=section, **figures))

    def budget(self, what, value, limit, form="%.2f"):
        """limit: at least (+) or at most (-)."""
        met = value >= limit if limit > 0 else value <= -limit
        text = ("%-7s %s: " + form + " (budget: %s " + form + ")") % \
            ("met" if met else "NOT MET", what, value, "at least" if limit > 0 else "at most", abs(limit))
        self.budgets.append(text)
        self.row("budget", what=what, value=value, limit=limit, met=met)

    def end(self, opt, name):
        """The budgets once more, and all rows into a file, but for a smoke run."""
        print()
        print("\n".join(self.budgets))
        if opt.smoke:
            return
        os.makedirs(opt.results, exist_ok=True)
        path = os.path.join(opt.results, time.strftime("%Y%m%d-%H%M%S-" + name + ".json"))
        with open(path, "w") as f:
            json.dump({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "kernel": platform.release(),
                       "cpus": os.cpu_count(), "load": os.getloadavg(), "rows": self.rows}, f, indent=1)
        print("written to %s" % os.path.relpath(path))


def rotate(v, i):
    return v[i % len(v):] + v[:i % len(v)]


# ---- sequential writes ----

def writes_round(p, i, size, tmp, results):
    """A new volume, written and written again."""
    p.volume("w%d" % i, size)
    for how in ("first write", "overwrite"):
        r = base.fio(p, "write", "1m", 8, ["--size=%d" % size, "--end_fsync=1"], tmp)
        results.setdefault((p.layout, how), []).append(r)
    p.drop("w%d" % i)


def writes(disks, opt, report):
    size = opt.size * MIB
    tmp = tempfile.mkdtemp(prefix="ashlar-bench-run.")
    results, pools = {}, []
    try:
        for layout, (data, parity) in DATA_DISKS.items():
            pools.append(Pool(layout, layout, data + parity, max(128 * MIB, size), disks, opt, tmp))
        for i in range(opt.rounds):
            for p in rotate(pools, i):
                writes_round(p, i, size, tmp, results)
    finally:
        for p in pools:
            p.stop()
        shutil.rmtree(tmp, ignore_errors=True)
    print("\nSequential writes of 1 MiB, QD8, %s disks\n" % disks.kind)
    head = "%-8s %-12s %9s %9s %11s | %10s"
    print(head % ("layout", "what", "MiB/s", "p99 ms", "CPU us/MiB", "by raid0"))
    for (layout, how), v in sorted(results.items(), key=lambda x: x[0][1]):
        ratio = statistics.median(r["iops"] / b["iops"] for r, b in zip(v, results["raid0", how]))
        mid = {k: statistics.median(r[k] for r in v) for k in ("iops", "p99", "cpu")}
        print(head % (layout, how, "%.0f" % mid["iops"], "%.1f" % (mid["p99"] / 1000), "%.0f" % mid["cpu"], "%.2f" % ratio))
        report.row("writes", disks=disks.kind, layout=layout, how=how, rounds=v, by_raid0=ratio)
        if layout != "raid0":
            report.budget("%s against raid0, 1 MiB sequential %s, %s disks" % (layout, how, disks.kind), ratio, +0.8)
    print(flush=True)


# ---- degraded reads, overwrites ----

READS = [("randread 4k qd32", "randread", "4k", 32), ("read 1M qd8", "read", "1m", 8)]


def degraded(disks, opt, report):
    size = opt.size * MIB
    tmp = tempfile.mkdtemp(prefix="ashlar-bench-run.")
    results, pools = {}, []
    try:
        for layout in ("raid5", "raid6"):
            for how in ("healthy", "degraded"):
                p = Pool("%s-%s" % (layout, how), layout, sum(DATA_DISKS[layout]), max(128 * MIB, size), disks, opt, tmp)
                p.volume("v", size)
                base.fio(p, "write", "1m", 8, ["--size=%d" % size, "--end_fsync=1"], tmp)
                pools.append(p)
                if how == "degraded":
                    p.cli("disk", "fail", "bench", "0")  # all others have a column of each group: nothing can be rebuilt
        for i in range(opt.rounds):
            for name, rw, bs, depth in READS:
                for p in rotate(pools, i):
                    r = base.fio(p, rw, bs, depth, ["--size=%d" % size, "--time_based", "--runtime=%dms" % (1000 * opt.seconds)], tmp)
                    results.setdefault((p.name, name), []).append(r)
        if "overwrite" in opt.sections:
            overwrite(pools[0], size, opt, report)
    finally:
        for p in pools:
            p.stop()
        shutil.rmtree(tmp, ignore_errors=True)
    print("\nReads with one disk lost, %s disks\n" % disks.kind)
    head = "%-8s %-17s %10s %10s | %8s %14s"
    print(head % ("layout", "job", "healthy", "degraded", "ratio", "CPU/IO, ratio"))
    for layout in ("raid5", "raid6"):
        for name, *_ in READS:
            h, d = results[layout + "-healthy", name], results[layout + "-degraded", name]
            ratio = statistics.median(x["iops"] / y["iops"] for x, y in zip(d, h))
            cpu = sum(x["cpu"] for x in d) / (sum(y["cpu"] for y in h) or 1)
            print(head % (layout, name, *("%.0f" % statistics.median(r["iops"] for r in v) for v in (h, d)), "%.2f" % ratio,
                          "%.2f" % cpu))
            report.row("degraded", layout=layout, job=name, healthy=h, degraded=d, ratio=ratio)
            report.budget("%s with a disk lost against healthy, %s" % (layout, name), ratio, +0.5)
    print(flush=True)


def overwrite(p, size, opt, report):
    """Of a healthy raid5; nothing else is at work."""
    before, show = p.count(), p.show()
    r = base.fio(p, "randwrite", "4k", 32, ["--size=%d" % size, "--time_based", "--runtime=%dms" % (1000 * opt.seconds)], p.tmp)
    after, shown = p.count(), p.show()
    n = {k: (after[k] - before[k]) / r["n"] for k in after}
    log = {k: (shown[k] - show[k]) / r["n"] for k in ("log_writes", "log_bytes", "stripes_full", "stripes_rmw", "stripes_rcw")}
    copies = min(3, len(p.devs))  # of the log, as of the metadata
    place = n["writes"] - copies * log["log_writes"]
    print("\nOne 4 KiB random overwrite on raid5 (4+1), QD32, by the disks' counters (%d writes, %.0f/s)\n" % (r["n"], r["iops"]))
    print("  in place    %5.2f reads, %5.2f writes: %.2f I/Os (in theory 2 and 2)" % (n["reads"], place, n["reads"] + place))
    print("  log         %5.2f writes (%.2f batches in %d copies), %.1f KiB" %
          (copies * log["log_writes"], log["log_writes"], copies, copies * log["log_bytes"] / 1024))
    print("  all         %5.2f I/Os, %.1f KiB read, %.1f KiB written" %
          (n["reads"] + n["writes"], n["bytes_read"] / 1024, n["bytes_written"] / 1024), flush=True)
    report.row("overwrite", client=r, per_write=n, log=log)
    report.budget("disk I/Os in place of a 4 KiB overwrite on raid5", n["reads"] + place, -4.05)


# ---- rebuild ----

class Load:
    """Clients at a moderate rate, in the background."""

    def __init__(self, p, size, seconds, opt):
        self.args = (p, "randrw", "4k", 8, ["--size=%d" % size, "--rwmixread=70", "--time_based", "--runtime=%dms" % (1000 * seconds),
                                            "--rate_iops=%d,%d" % (opt.rate * 7 // 10, opt.rate * 3 // 10)], p.tmp)
        self.thread = threading.Thread(target=self.main)
        self.result = None
        self.thread.start()

    def main(self):
        try:
            self.result = base.fio(*self.args)
        except Failed as e:
            self.result = e

    def end(self):
        self.thread.join()
        if not isinstance(self.result, dict):
            raise self.result
        return self.result


def fill(p, share, raw, size, tmp):
    """Data up to a share of the raw space."""
    done = 0
    while True:
        s = p.show()
        more = int(share * raw - s["raw_used_bytes"]) * 8 // 10 // (8 * MIB) * (8 * MIB)
        if more <= 0 or done + more > size or s["free_bytes"] < more:
            return done
        base.fio(p, "write", "1m", 8, ["--offset=%d" % done, "--size=%d" % more, "--end_fsync=1"], tmp)
        done += more


def rebuild_idle(p, disk, width, report, what):
    """Nobody else is at work. What is read, by whom, how fast."""
    row = p.json("disk", "list", "bench")[disk]
    before, t = p.count(), time.monotonic()
    # The failed disk's own counters go with it.
    before = {k: v - row[k] for k, v in before.items() if k in row}
    p.cli("disk", "fail", "bench", str(disk))
    p.rebuild_wait()
    t = time.monotonic() - t
    after = p.count()
    read, written = after["bytes_read"] - before["bytes_read"], after["bytes_written"] - before["bytes_written"]
    whole = (width - 1) * row["size_bytes"]
    used = row["used_bytes"] / row["size_bytes"]
    print("  %-22s %5.0f MiB read, %4.0f MiB written, %.1f s: %.0f %% of %.0f MiB, what a whole-disk rebuild reads; "
          "disk was %.0f %% used" % (what, read / MIB, written / MIB, t, 100 * read / whole, whole / MIB, 100 * used), flush=True)
    report.row("rebuild", what=what, read=read, written=written, seconds=t, whole=whole, used=used)
    return {"read": read, "written": written, "seconds": t, "whole": whole, "used": used}


def rebuild(disks, opt, report):
    # Groups have up to 10 columns, and each rebuild needs a disk that has none.
    n, width, disk_bytes = 13, 10, opt.rebuild_disk * MIB
    tmp = tempfile.mkdtemp(prefix="ashlar-bench-run.")
    p = None
    try:
        p = Pool("rebuild", "raid5", n, disk_bytes, disks, opt, tmp)
        size = n * disk_bytes
        p.volume("v", size)
        p.cli("pool", "set", "bench", "rebuild-delay=0")
        print("\nRebuild of raid5 (9+1) on %d %s disks of %d MiB, clients idle\n" % (n, disks.kind, opt.rebuild_disk))
        small = fill(p, 0.10, n * disk_bytes, size, tmp)
        tenth = rebuild_idle(p, 0, width, report, "a tenth full")
        p.cli("volume", "delete", "bench/v")
        p.volume("w", size)
        full = fill(p, 0.68, n * disk_bytes, size, tmp)
        nearly = rebuild_idle(p, 1, width, report, "nearly full")
        report.budget("bytes read to rebuild a pool a tenth full, %% of a whole disk's rebuild, %s disks" % disks.kind,
                      100 * tenth["read"] / tenth["whole"], -15, "%.0f")
        report.row("rebuild-rate", bps=nearly["written"] / nearly["seconds"])
        rebuild_clients(p, full, disks, opt, report)
    finally:
        if p:
            p.stop()
        shutil.rmtree(tmp, ignore_errors=True)


def rebuild_clients(p, size, disks, opt, report):
    """p99 of clients before and during a rebuild."""
    seconds = opt.rebuild_seconds
    Load(p, size, 1, opt).end()  # first contact: leaves are loaded
    before = Load(p, size, seconds, opt).end()
    p.cli("disk", "fail", "bench", "2")
    start, t = p.rebuild_job()["done_bytes"], time.monotonic()
    during = Load(p, size, seconds, opt).end()
    job, t = p.rebuild_job(), time.monotonic() - t
    whole = job["state"] == "running"
    paced = (job["done_bytes"] - start) / t
    ratio = during["p99"] / before["p99"]
    print("\n  clients (4 KiB, 70 %% reads, %d/s): p99 %.0f us before, %.0f us during a rebuild at %.0f MiB/s%s: %.2f times" %
          (opt.rate, before["p99"], during["p99"], paced / MIB, "" if whole else " (which ended in between)", ratio), flush=True)
    end = time.monotonic()
    rest = job["total_bytes"] - job["done_bytes"] if whole else 0
    p.rebuild_wait()
    end = time.monotonic() - end
    if rest:
        print("  then, with clients idle: %.0f MiB/s" % (rest / MIB / end), flush=True)
    report.row("rebuild-clients", disks=disks.kind, before=before, during=during, ratio=ratio, paced_bps=paced, whole=whole,
               idle_bps=rest / end if rest else None)
    report.budget("clients' p99 during a rebuild against before, %s disks" % disks.kind, ratio, -2.0)


# ---- all of it ----

def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build", help="where ashlar is")
    p.add_argument("--sections", default=",".join(SECTIONS))
    p.add_argument("--kinds", default="ram,limited", help="of disks")
    p.add_argument("--size", type=int, default=384, help="MiB of volumes")
    p.add_argument("--limit", type=int, default=50, help="MiB per second of each limited disk")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=1.5, help="of each read job in each round")
    p.add_argument("--rebuild-disk", type=int, default=512, help="MiB of each disk of the pool that is rebuilt")
    p.add_argument("--rebuild-seconds", type=float, default=5, help="of each measurement of latency")
    p.add_argument("--rate", type=int, default=1000, help="requests per second of clients during a rebuild")
    p.add_argument("--reactors", type=int, default=1, help="of each `ashlar serve`")
    p.add_argument("--smoke", action="store_true", help="less than half a minute: does it run at all?")
    p.add_argument("--results", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "results"))
    opt = p.parse_args()
    opt.build = os.path.abspath(opt.build)
    opt.sections = opt.sections.split(",")
    if set(opt.sections) - set(SECTIONS):
        p.error("sections are: " + ", ".join(SECTIONS))
    if opt.smoke:
        opt.size, opt.rounds, opt.seconds, opt.rebuild_disk, opt.rebuild_seconds = 32, 1, 0.3, 128, 0.5
    return opt


def sections_of(kind, opt):
    """A set of disks serves one section: its devices are taken away at its end."""
    make = ram_disks if kind == "ram" else lambda: limited_disks(opt)
    if "writes" in opt.sections:
        yield make, writes
    if kind == "ram" and "degraded" in opt.sections:
        yield make, degraded
    # On limited disks there is something for clients to feel; without them it is measured on the others.
    if "rebuild" in opt.sections and (kind == "limited" or opt.smoke or opt.kinds == "ram"):
        yield make, rebuild


def main():
    opt = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    report = Report()
    try:
        for kind in opt.kinds.split(","):
            for make, section in sections_of(kind, opt):
                disks = make()
                if not disks:
                    continue
                try:
                    section(disks, opt, report)
                finally:
                    disks.remove()
    except Failed as e:
        print("bench: %s" % e, file=sys.stderr)
        return 1
    report.end(opt, "raid")
    return 0


if __name__ == "__main__":
    sys.exit(main())
