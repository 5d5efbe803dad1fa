#!/usr/bin/env python3
"""Compares iSCSI targets by one initiator (bench/iscsi_load.c, by libiscsi), alternating in one run.

Targets:
  ashlar       a thin volume, fully written, on a pool of one disk
  tgt-aio      tgt with --bstype aio: direct I/O by Linux AIO; the peer
  tgt-rdwr     tgt as it comes: threads and the page cache. It has no disk I/O to do, so it is a floor, not a rival

Each has a disk of its own of the same kind and size: zram, or loop devices over a tmpfs, or files there. All talk TCP over the loopback,
one session, no digests; 4 KiB at random, and 1 MiB one after the other. In each round every job runs on every target in turn; figures are medians over the rounds,
ratios medians of the ratios of each round. CPU is the target's user and system time. What is written is one byte over and over.

Then EXTENDED COPY of a whole volume, fully written, to another of the pool: how long it takes, and that the copy reads as it should.
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
from snapshot import ExactCpu  # noqa: E402

TARGETS = ("ashlar", "tgt-aio", "tgt-rdwr")
JOBS = [("randread qd1", "randread", 4096, 1), ("randwrite qd1", "randwrite", 4096, 1), ("randread qd32", "randread", 4096, 32),
        ("randwrite qd32", "randwrite", 4096, 32), ("read 1M qd8", "read", MIB, 8), ("write 1M qd8", "write", MIB, 8)]
PEER = "tgt-aio"
IQN = "iqn.2026-01.org.ashlar.bench:"
COPY_SECONDS = 1.0


def free_port():
    with socket.socket() as k:
        k.bind(("127.0.0.1", 0))
        return k.getsockname()[1]


class Ashlar(ExactCpu, raid.Pool):
    lun = 0

    def __init__(self, name, disk_bytes, disks, opt, tmp):
        self.portal = "127.0.0.1:%d" % free_port()
        self.iqn = IQN + name
        super().__init__(name, "single", 1, disk_bytes, disks, opt, tmp, serve=["--iscsi", self.portal])

    def export(self, name, size, lun=0):
        self.volume(name, size)
        self.cli("export", "add", "bench/" + name, "--iscsi", "--iqn", self.iqn, "--lun", str(lun))


class Tgt(ExactCpu, base.Server):
    lun = 1  # 0 is tgt's controller

    def __init__(self, name, size, disks, tmp):
        self.name, self.iqn = name, IQN + name
        port = free_port()
        self.portal, self.control = "127.0.0.1:%d" % port, str(port % 30000 + 1)
        self.log = open(os.path.join(tmp, name + ".log"), "w+")
        self.p = subprocess.Popen(["tgtd", "-f", "-C", self.control, "--iscsi", "portal=" + self.portal], stdout=self.log, stderr=self.log,
                                  stdin=subprocess.DEVNULL)
        try:
            self.begin(disks.make(size), name.split("-")[1])
        except Failed:
            self.stop()
            raise

    def admin(self, *args):
        return run("tgtadm", "-C", self.control, "--lld", "iscsi", *args)

    def begin(self, dev, store):
        end = time.monotonic() + 20
        while True:
            try:
                self.admin("--mode", "sys", "--op", "show")
                break
            except Failed:
                if time.monotonic() > end or self.p.poll() is not None:
                    raise
                time.sleep(0.1)
        self.admin("--mode", "target", "--op", "new", "--tid", "1", "-T", self.iqn)
        self.admin("--mode", "logicalunit", "--op", "new", "--tid", "1", "--lun", "1", "--bstype", store, "-b", dev)
        self.admin("--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL")

    def stop(self):
        """Not by SIGTERM: it does not end while it remembers a session."""
        self.p.kill()
        self.p.wait()
        self.log.close()


def load(opt, server, what, *args, lun=None):
    url = "iscsi://%s/%s/%d" % (server.portal, server.iqn, server.lun if lun is None else lun)
    before = server.cpu_us()
    j = json.loads(run(os.path.join(opt.build, "bench/iscsi_load"), what, url, *(str(x) for x in args)))
    return {"iops": j["ios"] / j["seconds"], "seconds": j["seconds"], "cpu": (server.cpu_us() - before) / j["ios"], "p99": j["p99"]}


def begin(name, disks, opt, tmp):
    if name != "ashlar":
        return Tgt(name, opt.size * MIB, disks, tmp)
    p = Ashlar(name, (2 * opt.size + 256) * MIB, disks, opt, tmp)
    try:
        p.export("vol", opt.size * MIB)
    except Failed:
        p.stop()
        raise
    return p


def ratios(results, job, name, figure):
    """Of each round, against the peer."""
    pairs = zip(results.get((name, job), []), results.get((PEER, job), []))
    return [a[figure] / b[figure] for a, b in pairs if b[figure]]


def table(results, names, opt, report, kind):
    print("\nTargets (TCP over the loopback, %s), medians of %d rounds of %g s\n" % (kind, opt.rounds, opt.seconds))
    head = "%-16s %-10s %9s %9s %10s %12s %12s"
    print(head % ("job", "target", "IOPS", "p99 us", "CPU us/IO", "IOPS/tgt-aio", "CPU/tgt-aio"))
    for job, *_ in JOBS:
        for name in names:
            v = results.get((name, job))
            if not v:
                continue
            mid = {k: statistics.median(r[k] for r in v) for k in v[0]}
            by = [statistics.median(x) if x else None for x in (ratios(results, job, name, "iops"), ratios(results, job, name, "cpu"))]
            print(head % (job, name, "%.0f" % mid["iops"], "%.0f" % mid["p99"], "%.2f" % mid["cpu"], *(base.shown(x, "%.2f") for x in by)))
            report.row("targets", job=job, target=name, disks=kind, rounds=v, iops_by_peer=by[0], cpu_by_peer=by[1])
            if name == "ashlar" and by[0] is not None:
                report.budget("IOPS against %s, %s" % (PEER, job), by[0], +1.0)
                report.budget("CPU per I/O against %s, %s" % (PEER, job), by[1], -1.0)
    sys.stdout.flush()


def targets(opt, report):
    disks, tmp, servers, results = base.ram(), tempfile.mkdtemp(prefix="ashlar-bench-run."), [], {}
    try:
        for name in opt.targets:
            if name.startswith("tgt") and not shutil.which("tgtd"):
                note("%s is left out: there is no tgtd" % name)
                continue
            servers.append(begin(name, disks, opt, tmp))
        for s in servers:
            load(opt, s, "fill")
        for i in range(opt.rounds):
            for job, what, size, depth in JOBS:
                for s in rotate(servers, i):
                    results.setdefault((s.name, job), []).append(load(opt, s, what, size, depth, opt.seconds))
            note("round %d of %d done" % (i + 1, opt.rounds))
    finally:
        for s in servers:
            s.stop()
        disks.remove()
        shutil.rmtree(tmp, ignore_errors=True)
    table(results, [s.name for s in servers], opt, report, disks.kind)


def copy(opt, report):
    disks, tmp, p = base.ram(), tempfile.mkdtemp(prefix="ashlar-bench-run."), None
    size = opt.copy * MIB
    try:
        p = Ashlar("copy", size + size // 8 + 256 * MIB, disks, opt, tmp)
        p.export("from", size)
        p.export("to", size, 1)
        load(opt, p, "fill")
        used = p.show()["used_bytes"]
        r = load(opt, p, "copy", 1)
        grown = p.show()["used_bytes"] - used
        load(opt, p, "check", lun=1)
    finally:
        if p:
            p.stop()
        disks.remove()
        shutil.rmtree(tmp, ignore_errors=True)
    print("\nEXTENDED COPY of %g GiB that are all written, on %s: %.3f s; the pool holds %.1f MiB more\n" %
          (opt.copy / 1024, disks.kind, r["seconds"], grown / MIB))
    report.row("copy", bytes=size, seconds=r["seconds"], grown=grown, disks=disks.kind)
    report.budget("seconds of a copy of %g GiB" % (opt.copy / 1024), r["seconds"], -COPY_SECONDS)


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build", help="where ashlar and bench/iscsi_load are")
    p.add_argument("--sections", default="targets,copy")
    p.add_argument("--targets", default=",".join(TARGETS))
    p.add_argument("--size", type=int, default=1024, help="MiB of each LUN")
    p.add_argument("--copy", type=int, default=10240, help="MiB to copy")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=3, help="of each job in each round")
    p.add_argument("--reactors", type=int, default=1, help="of `ashlar serve`")
    p.add_argument("--smoke", action="store_true", help="some seconds: does it run at all?")
    p.add_argument("--results", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "results"))
    opt = p.parse_args()
    opt.build = os.path.abspath(opt.build)
    opt.targets, opt.sections = opt.targets.split(","), opt.sections.split(",")
    if set(opt.targets) - set(TARGETS) or set(opt.sections) - {"targets", "copy"}:
        p.error("targets are: %s; sections are: targets, copy" % ", ".join(TARGETS))
    if opt.smoke:
        opt.size, opt.rounds, opt.seconds, opt.copy = 32, 1, 0.2, 256
    return opt


def main():
    opt = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    report = raid.Report()
    if not os.path.exists(os.path.join(opt.build, "bench/iscsi_load")):
        note("iSCSI is left out: bench/iscsi_load is not built (it needs libiscsi-dev)")
        return 0
    try:
        if "targets" in opt.sections:
            targets(opt, report)
        if "copy" in opt.sections:
            copy(opt, report)
    except Failed as e:
        print("bench: %s" % e, file=sys.stderr)
        return 1
    report.end(opt, "iscsi")
    return 0


if __name__ == "__main__":
    sys.exit(main())
