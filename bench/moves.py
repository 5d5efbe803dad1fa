#!/usr/bin/env python3
"""What clients feel while things move: 4 KiB requests, 70 % reads, at random all over one volume, at a moderate rate.

Each round goes through all operations at the default pace, with a measurement of the same client without any right before each of them:

  nothing    for as long as a measurement before     raid5, raid6, raid1    the volume's layout, of a raid1
  replace    one disk by another                     there, back            the volume goes to another pool, and back
  remove     a disk leaves the pool
  rebalance  a disk is added, data is evened out
  evacuate   a disk gives away what it has
  narrow     a disk leaves whose columns no other could take: raid5 of four disks becomes one of three

The client stays connected throughout, and is measured from the command until the job is done, so whatever the switch at the end costs counts,
and once more afterwards. What counts is how often its p99 is that of before or of after, whichever is more: what a layout costs by itself
is not the job's doing. Figures are medians over the rounds of each round's ratio. Disks are loop devices over a tmpfs that are limited to a rate each (by a cgroup; it
needs root), as real ones are; without that, as fast as memory.
"""
import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import raid  # noqa: E402
import run as base  # noqa: E402
from raid import MIB  # noqa: E402
from run import Failed, note  # noqa: E402
from snapshot import latencies, p99  # noqa: E402

OPERATIONS = ("nothing", "replace", "remove", "rebalance", "evacuate", "raid5", "narrow", "raid6", "raid1", "there", "back")
JOB_SECONDS = 300


class Client:
    """fio, until it is told to stop; latencies by time."""

    def __init__(self, p, opt):
        self.log = os.path.join(p.tmp, "lat")
        self.err = open(os.path.join(p.tmp, "fio.log"), "w+")
        cmd = ["fio", "--name=bench", "--ioengine=nbd", "--uri=" + p.uri, "--rw=randrw", "--rwmixread=70", "--bs=4k", "--iodepth=8",
               "--size=%d" % (opt.size * MIB), "--randrepeat=0", "--norandommap", "--thread", "--time_based", "--runtime=3600",
               "--rate_iops=%d,%d" % (opt.rate * 7 // 10, opt.rate * 3 // 10), "--write_lat_log=" + self.log, "--log_unix_epoch=1"]
        self.p = subprocess.Popen(cmd, cwd=p.tmp, stdout=self.err, stderr=self.err, stdin=subprocess.DEVNULL)

    def end(self):
        self.p.send_signal(signal.SIGINT)
        if self.p.wait(60) not in (0, 128):
            self.err.seek(0)
            raise Failed("fio: %s" % self.err.read()[-500:])
        self.err.close()
        return latencies(self.log + "_clat.1.log")


class Pools(raid.Pool):
    """Pool "bench" of four disks and one to spare, and "other" of four."""

    def __init__(self, disks, opt, tmp):
        size = (max(opt.size, 128) * 2 + 256) * MIB
        super().__init__("bench", "raid1", 4, size, disks, opt, tmp, 4)
        self.members, self.spares = list(self.devs), [disks.make(size)]
        self.volume("v", opt.size * MIB)
        base.fio(self, "write", "1m", 8, ["--size=%d" % (opt.size * MIB), "--end_fsync=1"], tmp)

    # Each is the command that begins it.
    def replace(self):
        old, new = self.members.pop(0), self.spares.pop(0)
        self.members.append(new)
        self.spares.append(old)
        return "disk", "replace", "bench", old, new, "--force"

    def remove(self):
        self.spares.append(self.members.pop(0))
        return "disk", "remove", "bench", self.spares[-1]

    narrow = remove

    def rebalance(self):
        return "pool", "rebalance", "bench"

    def evacuate(self):
        return "disk", "evacuate", "bench", self.members[0]

    def add(self):
        self.members.append(self.spares.pop(0))
        self.cli("disk", "add", "bench", self.members[-1], "--force")

    def before(self, what):
        """So many disks as it needs, while there is no client."""
        if what == "rebalance":
            if len(self.members) == 4:
                self.cli(*self.remove(), "--wait")
            self.add()
        elif len(self.members) < 4:
            self.add()
            self.cli(*self.rebalance(), "--wait")
        if what == "narrow":
            self.cli(*self.command("raid5"), "--wait")

    def after(self, what):
        if what == "evacuate":
            self.cli(*self.remove(), "--wait")

    def command(self, what):
        if what.startswith("raid"):
            return "volume", "set", "bench/v", "--layout", what
        if what in ("there", "back"):
            return ("volume", "move") + (("bench/v", "other") if what == "there" else ("other/v", "bench"))
        return getattr(self, what)()


def round_once(p, what, opt):
    """Latencies before, meanwhile, and after; seconds that it took."""
    p.before(what)
    client = Client(p, opt)
    try:
        time.sleep(1 + opt.seconds)
        t0 = time.time() * 1000
        if what == "nothing":
            time.sleep(opt.seconds)
        else:
            p.cli(*p.command(what), "--wait")
        t1 = time.time() * 1000
        time.sleep(min(1, opt.seconds) + opt.seconds)
        rows = client.end()
    finally:
        client.p.kill()  # it would go on without its server, and write of each request that it fails
    p.after(what)
    before = [us for at, us in rows if t0 - opt.seconds * 1000 <= at < t0]
    during = [us for at, us in rows if t0 <= at <= t1]
    after = [us for at, us in rows if at > t1 + 1000 * min(1, opt.seconds)]
    if min(len(before), len(during), len(after)) < 100:
        raise Failed("%s: too few requests (%d before, %d meanwhile, %d after): let it move more" % (what, len(before), len(during), len(after)))
    return {"p99_before": p99(before), "p99_during": p99(during), "p99_after": p99(after), "worst_before": max(before),
            "worst_during": max(during), "n": [len(before), len(during), len(after)], "seconds": (t1 - t0) / 1000}


def ratio(r):
    return r["p99_during"] / max(r["p99_before"], r["p99_after"])


def table(results, opt, report, kind):
    print("\nClients while things move (4 KiB, 70 %% reads, %d/s, %d MiB, %s disks), medians of %d rounds\n" %
          (opt.rate, opt.size, kind, opt.rounds))
    head = "%-10s %8s %11s %11s %11s %8s %-30s %11s %11s"
    print(head % ("operation", "seconds", "p99 before", "meanwhile", "after", "ratio", " rounds", "worst", "meanwhile"))
    for what in opt.operations:
        v = results[what]
        mid = {k: statistics.median(r[k] for r in v) for k in v[0] if k != "n"}
        ratios = [ratio(r) for r in v]
        print(head % (what, "%.1f" % mid["seconds"], "%.0f us" % mid["p99_before"], "%.0f us" % mid["p99_during"], "%.0f us" % mid["p99_after"],
                      "%.2f" % statistics.median(ratios), " " + ", ".join("%.2f" % x for x in ratios),
                      "%.1f ms" % (max(r["worst_before"] for r in v) / 1000), "%.1f ms" % (max(r["worst_during"] for r in v) / 1000)))
        report.row("moves", operation=what, rounds=v, ratio=statistics.median(ratios), disks=kind)
        if what != "nothing":
            report.budget("clients' p99 during %s against before and after" % what, statistics.median(ratios), -2.0)
    sys.stdout.flush()


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build", help="where ashlar is")
    p.add_argument("--operations", default=",".join(OPERATIONS))
    p.add_argument("--size", type=int, default=256, help="MiB of the volume, all written")
    p.add_argument("--limit", type=int, default=250, help="MiB per second of each disk")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=3, help="of each measurement before")
    p.add_argument("--rate", type=int, default=1000, help="requests per second of the client")
    p.add_argument("--reactors", type=int, default=1, help="of `ashlar serve`")
    p.add_argument("--smoke", action="store_true", help="some seconds: does it run at all?")
    p.add_argument("--results", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "results"))
    opt = p.parse_args()
    opt.build = os.path.abspath(opt.build)
    opt.operations = opt.operations.split(",")
    if set(opt.operations) - set(OPERATIONS):
        p.error("operations are: " + ", ".join(OPERATIONS))
    if opt.smoke:
        opt.size, opt.rounds, opt.seconds = 32, 1, 0.3
    return opt


def main():
    opt = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    report, results = raid.Report(), {}
    disks = raid.limited_disks(opt) or raid.ram_disks()
    tmp, p = tempfile.mkdtemp(prefix="ashlar-bench-run."), None
    try:
        p = Pools(disks, opt, tmp)
        for i in range(opt.rounds):
            for what in opt.operations:
                r = round_once(p, what, opt)
                results.setdefault(what, []).append(r)
                note("%-10s %5.1f s, p99 %5.0f us before, %5.0f meanwhile, %5.0f after: %.2f" %
                     (what, r["seconds"], r["p99_before"], r["p99_during"], r["p99_after"], ratio(r)))
            note("round %d of %d done" % (i + 1, opt.rounds))
    except Failed as e:
        print("bench: %s" % e, file=sys.stderr)
        return 1
    finally:
        if p:
            p.stop()
        disks.remove()
        shutil.rmtree(tmp, ignore_errors=True)
    table(results, opt, report, disks.kind)
    report.end(opt, "moves")
    return 0


if __name__ == "__main__":
    sys.exit(main())
