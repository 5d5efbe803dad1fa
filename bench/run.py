#!/usr/bin/env python3
"""Compares NBD servers by fio, alternating in one run.

Servers:
  thin         Ashlar, a thin volume, fully written, on a pool of one disk
  thin-aio     the same without io_uring: epoll and Linux AIO
  bare         the same NBD server and the same disk layer on a raw disk (bench/raw_server.c)
  qemu-uring   qemu-nbd --cache=none --aio=io_uring, raw
  qemu-native  qemu-nbd --cache=none --aio=native, raw
  qsd-uring    qemu-storage-daemon, cache.direct=on, aio=io_uring (in its main loop: with an I/O thread, 7.2 ends
               itself when a client leaves)
  qsd-native   the same, aio=native
  nbdkit       nbdkit's file plugin, nbdkit-mem its memory plugin, nbd-server as it comes: they answer from the page cache, without
               disk I/O, so they are the floor, not rivals

Each has a disk of its own of the same kind and size. In each round every job runs on every server in turn, so that what
else the machine does falls on all alike; figures are medians over the rounds, ratios medians of the ratios of each round. The best
peer is the one with the worst median ratio for us. What is written is one byte over and over, so that a zram has nothing to compress.
CPU is the server's user and system time, threads, children and kernel workers of its own included; work that the kernel does for it
elsewhere (write-back, loop devices) is not. "x4": four connections, each with that depth.
"""
import argparse
import glob
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

# name, fio's rw, block size, queue depth, connections, more arguments
KINDS = [
    ("randread qd1", "randread", "4k", 1, []),
    ("randread qd32", "randread", "4k", 32, []),
    ("randwrite qd1", "randwrite", "4k", 1, []),
    ("randwrite qd32", "randwrite", "4k", 32, []),
    ("70/30 qd32", "randrw", "4k", 32, ["--rwmixread=70"]),
    ("read 1M qd8", "read", "1m", 8, []),
    ("write 1M qd8", "write", "1m", 8, []),
]
JOBS = [(name + (" x%d" % n if n > 1 else ""), rw, bs, depth, n, more) for n in (1, 4) for name, rw, bs, depth, more in KINDS]
SMOKE_JOBS = ("randread qd32", "randwrite qd32 x4")
SERVERS = ("thin", "thin-aio", "bare", "qemu-uring", "qemu-native", "qsd-uring", "qsd-native", "nbdkit", "nbdkit-mem", "nbd-server")
THIN = ("thin", "thin-aio")
QEMU = ("qemu-uring", "qemu-native", "qsd-uring", "qsd-native") # the peers
PROGRAMS = {"qemu": "qemu-nbd", "qsd": "qemu-storage-daemon", "nbdkit": "nbdkit", "nbd": "nbd-server"}
QD32 = tuple(j[0] for j in JOBS if j[3] == 32)
BUDGETS = [  # numerator, denominator, figure, jobs, at least (+) or at most (-)
    ("thin", "qemu", "iops", QD32, +1.3),
    ("thin", "qemu", "cpu", QD32, -0.7),
    ("thin", "qemu", "iops", tuple(j[0] for j in JOBS if j[3] != 32), +1.0),
    ("thin", "qemu", "cpu", tuple(j[0] for j in JOBS if j[3] != 32), -1.0),
    ("thin", "bare", "iops", None, +0.95),
]
TICK = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    pass


def note(text):
    print("# " + text, flush=True)


def run(*cmd, **kw):
    r = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, **kw)
    if r.returncode:
        raise Failed("%s: exit status %d: %s" % (" ".join(cmd), r.returncode, r.stderr.decode(errors="replace").strip()[-500:]))
    return r.stdout


# ---- disks ----

class Zram:
    """RAM-backed block devices, one each."""
    kind = "zram"

    def __init__(self):
        self.numbers = []

    def make(self, size):
        with open("/sys/class/zram-control/hot_add") as f:
            n = int(f.read())
        self.numbers.append(n)
        try:  # the cheapest at finding out that random data cannot be compressed
            with open("/sys/block/zram%d/comp_algorithm" % n, "w") as f:
                f.write("lz4")
        except OSError:
            pass
        with open("/sys/block/zram%d/disksize" % n, "w") as f:
            f.write(str(size))
        return "/dev/zram%d" % n

    def remove(self):
        for n in self.numbers:
            for what, path in (("1", "/sys/block/zram%d/reset" % n), (str(n), "/sys/class/zram-control/hot_remove")):
                try:
                    with open(path, "w") as f:
                        f.write(what)
                except OSError as e:
                    note("zram%d is left over: %s" % (n, e))
        self.numbers = []


class Loop:
    """Loop devices over files in a tmpfs."""
    kind = "loop on tmpfs"

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="ashlar-bench.", dir="/dev/shm")
        self.devs = []

    def make(self, size):
        path = os.path.join(self.dir, str(len(self.devs)))
        with open(path, "wb") as f:
            f.truncate(size)
        dev = run("losetup", "--find", "--show", path).decode().strip()
        self.devs.append(dev)
        return dev

    def remove(self):
        for dev in self.devs:
            subprocess.run(["losetup", "--detach", dev], check=False)
        shutil.rmtree(self.dir, ignore_errors=True)


class Files:
    def __init__(self, where, kind):
        self.dir = tempfile.mkdtemp(prefix="ashlar-bench.", dir=where)
        self.kind = kind
        self.n = 0

    def make(self, size):
        path = os.path.join(self.dir, "disk%d" % self.n)
        self.n += 1
        # Written once, so that no server has to allocate in the file system.
        with open(path, "wb") as f:
            for _ in range(0, size, 1 << 22):
                f.write(b"\x5a" * (1 << 22))
            f.truncate(size)
            os.fsync(f.fileno())
        return path

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)


def ram():
    """The best of what this machine lets us have."""
    is_root = os.geteuid() == 0
    if is_root and os.path.exists("/sys/class/zram-control/hot_add"):
        return Zram()
    if is_root and os.path.exists("/dev/loop-control"):
        return Loop()
    return Files("/dev/shm", "file on tmpfs (block devices need root)")


def disk(where):
    os.makedirs(where, exist_ok=True)
    fstype = run("findmnt", "-n", "-o", "FSTYPE", "-T", where).decode().strip()
    return Files(where, "file on " + fstype)


# ---- servers ----

def stat_ticks(pid):
    """User and system time, and those of children that have ended."""
    try:
        with open("/proc/%s/stat" % pid) as f:
            return [int(x) for x in f.read().rsplit(")", 1)[1].split()[11:15]]
    except OSError:
        return [0]


class Server:
    forked = None  # the process that serves, if it is not the one that was started

    @property
    def pid(self):
        return self.forked or self.p.pid

    def __init__(self, name, opt, disks, tmp):
        self.name = name
        self.sock = os.path.join(tmp, name + ".sock")
        self.uri = "nbd+unix:///%s?socket=%s" % ("bench/vol" if name in THIN else "disk" if not name.startswith("nbdkit") else "",
                                                 self.sock)
        self.log = open(os.path.join(tmp, name + ".log"), "w+")
        size = opt.size << 20
        dev = disks.make(2 * size if name in THIN else size)
        cmd = getattr(self, "cmd_" + name.replace("-", "_"))(opt, dev, tmp, size)
        self.p = subprocess.Popen(cmd, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while not self.ready():
            if self.p.poll() or time.monotonic() > end:
                self.log.seek(0)
                raise Failed("%s did not start: %s" % (name, self.log.read()[-500:]))
            time.sleep(0.05)
        if name == "nbd-server":
            with open(os.path.join(tmp, "nbd-server.pid")) as f:
                self.forked = int(f.read())

    def ready(self):
        if self.name in THIN + ("bare",):
            with open(self.log.name) as f:
                return "ready\n" in f.read()
        return os.path.exists(self.sock) and not subprocess.run(["nbdinfo", "--size", self.uri], stdout=subprocess.DEVNULL,
                                                                stderr=subprocess.DEVNULL, check=False).returncode

    def thin(self, opt, dev, tmp, size, io):
        ashlar = os.path.join(opt.build, "ashlar")
        env = dict(os.environ, ASHLAR_CONTROL=os.path.join(tmp, "control-" + io), ASHLAR_DISKS=dev)
        run(ashlar, "pool", "create", "bench", "--force", "--layout", "single", dev, env=env)
        run(ashlar, "volume", "create", "bench/vol", "--size", str(size), env=env)
        return [ashlar, "serve", "--control", env["ASHLAR_CONTROL"], "--nbd", "unix:" + self.sock,
                "--reactors", str(opt.reactors), "--io", io, dev]

    def cmd_thin(self, opt, dev, tmp, size):
        return self.thin(opt, dev, tmp, size, "uring")

    def cmd_thin_aio(self, opt, dev, tmp, size):
        return self.thin(opt, dev, tmp, size, "aio")

    def cmd_bare(self, opt, dev, tmp, size):
        return [os.path.join(opt.build, "bench/raw_server"), "unix:" + self.sock, dev]

    def qemu(self, dev, aio):
        return ["qemu-nbd", "-f", "raw", "-x", "disk", "-t", "--shared=16", "--cache=none", "--aio=" + aio, "--discard=unmap",
                "-k", self.sock, dev]

    def cmd_qemu_uring(self, opt, dev, tmp, size):
        return self.qemu(dev, "io_uring")

    def cmd_qemu_native(self, opt, dev, tmp, size):
        return self.qemu(dev, "native")

    def cmd_nbdkit(self, opt, dev, tmp, size):
        return ["nbdkit", "-f", "-U", self.sock, "file", dev]

    def cmd_nbdkit_mem(self, opt, dev, tmp, size):
        return ["nbdkit", "-f", "-U", self.sock, "memory", str(size), "allocator=malloc"]

    def qsd(self, dev, aio):
        what = "host_device" if dev.startswith("/dev/") and not dev.startswith("/dev/shm/") else "file"
        return ["qemu-storage-daemon", "--blockdev", "driver=%s,node-name=disk,filename=%s,cache.direct=on,aio=%s,discard=unmap" % (what, dev, aio),
                "--nbd-server", "addr.type=unix,addr.path=%s,max-connections=16" % self.sock,
                "--export", "type=nbd,id=disk,node-name=disk,name=disk,writable=on"]

    def cmd_qsd_uring(self, opt, dev, tmp, size):
        return self.qsd(dev, "io_uring")

    def cmd_qsd_native(self, opt, dev, tmp, size):
        return self.qsd(dev, "native")

    def cmd_nbd_server(self, opt, dev, tmp, size):
        conf = os.path.join(tmp, "nbd-server.conf")
        with socket.socket() as k: # it will have a TCP port, too
            k.bind(("127.0.0.1", 0))
            port = k.getsockname()[1]
        with open(conf, "w") as f:
            f.write("[generic]\n\tunixsock = %s\n\tlistenaddr = 127.0.0.1\n\tport = %d\n\tallowlist = true\n"
                    "[disk]\n\texportname = %s\n\tfilesize = %d\n\tflush = true\n\tfua = true\n" % (self.sock, port, dev, size))
        return ["nbd-server", "-C", conf, "-p", os.path.join(tmp, "nbd-server.pid")]

    def cpu_us(self):
        """nbd-server has a child for each connection."""
        ticks = 0
        for task in glob.glob("/proc/%d/task/*/children" % self.pid):
            with open(task) as f:
                ticks += sum(sum(stat_ticks(pid)[:2]) for pid in f.read().split())
        return (ticks + sum(stat_ticks(self.pid))) * 1e6 / TICK

    def stop(self):
        if self.forked:
            os.kill(self.forked, signal.SIGTERM)
        if self.p.poll() is None:
            self.p.send_signal(signal.SIGTERM)
            try:
                self.p.wait(20)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        self.log.close()


def fio(server, rw, bs, depth, more, tmp, connections=1):
    cmd = ["fio", "--name=bench", "--ioengine=nbd", "--uri=" + server.uri, "--rw=" + rw, "--bs=" + bs, "--iodepth=%d" % depth,
           "--randrepeat=0", "--norandommap", "--thread", "--buffer_pattern=0x5a", "--numjobs=%d" % connections, "--group_reporting", "--output-format=json", *more]
    before = server.cpu_us()
    out = run(*cmd, cwd=tmp).decode()
    cpu = server.cpu_us() - before
    j = json.loads(out[out.index("{"):])["jobs"][0]
    n = j["read"]["total_ios"] + j["write"]["total_ios"]
    if j["error"] or not n:
        raise Failed("%s: fio %s: error %d, %d requests" % (server.name, rw, j["error"], n))
    ways = [j[w] for w in ("read", "write") if j[w]["total_ios"]]
    return {"iops": sum(w["iops"] for w in ways), "cpu": cpu / n, "n": n,
            "p99": max(w["clat_ns"].get("percentile", {}).get("99.000000", 0) for w in ways) / 1000}


# ---- figures ----

def median(results, server, job, figure):
    v = [r[figure] for r in results.get((server, job), [])]
    return statistics.median(v) if v else None


def ratio(results, job, a, b, figure):
    """Median over the rounds of a's figure by b's; b may be "qemu": the peer that is best by this."""
    if b == "qemu":
        v = [x for x in (ratio(results, job, a, peer, figure) for peer in QEMU) if x is not None]
        return (min(v) if figure == "iops" else max(v)) if v else None
    v = [x[figure] / y[figure] for x, y in zip(results.get((a, job), []), results.get((b, job), [])) if y[figure]]
    return statistics.median(v) if v else None


def shown(v, form):
    return form % v if v is not None else "-"


def table(results, jobs, servers):
    head = "%-18s %-12s %9s %9s %9s %9s | %9s %9s %9s %9s"
    print(head % ("job", "server", "IOPS", "MiB/s", "p99 us", "CPU us/IO", "IOPS/qemu", "CPU/qemu", "IOPS/bare", "CPU/bare"))
    for name, _, bs, *_ in jobs:
        for s in servers:
            iops = median(results, s, name, "iops")
            if iops is None:
                continue
            mib = iops * (1 if bs == "1m" else 1 / 256)
            print(head % (name, s, "%.0f" % iops, "%.0f" % mib, "%.0f" % median(results, s, name, "p99"),
                          "%.2f" % median(results, s, name, "cpu"), shown(ratio(results, name, s, "qemu", "iops"), "%.2f"),
                          shown(ratio(results, name, s, "qemu", "cpu"), "%.2f"), shown(ratio(results, name, s, "bare", "iops"), "%.2f"),
                          shown(ratio(results, name, s, "bare", "cpu"), "%.2f")))
        print()


def budgets(results, jobs):
    for a, b, figure, only, limit in BUDGETS:
        for name, *_ in jobs:
            if only and name not in only:
                continue
            r = ratio(results, name, a, b, figure)
            if r is None:
                continue
            met = r >= limit if limit > 0 else r <= -limit
            print("%-7s %s against %s, %s, %s: %.2f (budget: %s %.2f)" %
                  ("met" if met else "NOT MET", a, b, name, "IOPS" if figure == "iops" else "CPU per I/O", r,
                   "at least" if limit > 0 else "at most", abs(limit)))


# ---- a backend ----

def prepare(servers, opt, tmp):
    """Everything is written once, by the server itself."""
    for s in servers:
        fio(s, "write", "1m", 8, ["--size=%dm" % opt.size, "--end_fsync=1"], tmp)


def measure(servers, jobs, opt, tmp):
    results = {}
    order = list(servers)
    for i in range(opt.rounds):
        for name, rw, bs, depth, connections, more in jobs:
            part = connections if bs == "1m" else 1 # each its own part of the disk
            for s in order:
                extra = ["--size=%dm" % (opt.size // part), "--time_based", "--runtime=%g" % opt.seconds, *more]
                if part > 1:
                    extra.append("--offset_increment=%dm" % (opt.size // part))
                if "read" != rw and "randread" != rw:
                    extra.append("--end_fsync=1")
                results.setdefault((s.name, name), []).append(fio(s, rw, bs, depth, extra, tmp, connections))
            order = order[1:] + order[:1]  # nobody is always first
        note("round %d of %d done" % (i + 1, opt.rounds))
    return results


def backend(disks, jobs, opt):
    tmp = tempfile.mkdtemp(prefix="ashlar-bench-run.")
    servers = []
    try:
        for name in opt.servers:
            program = PROGRAMS.get(name.split("-")[0])
            if program and not shutil.which(program):
                note("%s is left out: there is no %s" % (name, program))
                continue
            servers.append(Server(name, opt, disks, tmp))
        note("on %s, %d MiB each, %d rounds of %g s" % (disks.kind, opt.size, opt.rounds, opt.seconds))
        prepare(servers, opt, tmp)
        results = measure(servers, jobs, opt, tmp)
    finally:
        for s in servers:
            s.stop()
        disks.remove()
        shutil.rmtree(tmp, ignore_errors=True)
    print("\nBackend: %s\n" % disks.kind)
    table(results, jobs, [s.name for s in servers])
    budgets(results, jobs)
    print(flush=True)
    return {"backend": disks.kind, "size_mib": opt.size, "rounds": opt.rounds, "seconds": opt.seconds,
            "results": [{"server": s, "job": j, "rounds": r} for (s, j), r in results.items()],
            "ratios": [{"job": n, "server": s.name, "iops_by_qemu": ratio(results, n, s.name, "qemu", "iops"),
                        "cpu_by_qemu": ratio(results, n, s.name, "qemu", "cpu"),
                        "iops_by_bare": ratio(results, n, s.name, "bare", "iops"),
                        "cpu_by_bare": ratio(results, n, s.name, "bare", "cpu")} for n, *_ in jobs for s in servers]}


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default="build", help="where ashlar and bench/raw_server are")
    p.add_argument("--backend", default="ram,disk", help="ram, disk or both")
    p.add_argument("--dir", help="for the disk backend's files; default: BUILD/bench-disk")
    p.add_argument("--size", type=int, default=1024, help="MiB of each volume or disk")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=2, help="of each job in each round")
    p.add_argument("--reactors", type=int, default=1, help="of `ashlar serve`")
    p.add_argument("--jobs", help="only those whose names contain this; several separated by commas")
    p.add_argument("--servers", default=",".join(SERVERS))
    p.add_argument("--smoke", action="store_true", help="less than a minute: does it run at all?")
    p.add_argument("--results", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "results"))
    opt = p.parse_args()
    opt.build = os.path.abspath(opt.build)
    opt.servers = opt.servers.split(",")
    if set(opt.servers) - set(SERVERS):
        p.error("servers are: " + ", ".join(SERVERS))
    if opt.smoke:
        opt.size, opt.rounds, opt.seconds, opt.backend = 128, 1, 1, "ram"
    return opt


def main():
    opt = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    jobs = [j for j in JOBS if not opt.jobs or any(x in j[0] for x in opt.jobs.split(","))]
    if opt.smoke:
        jobs = [j for j in jobs if j[0] in SMOKE_JOBS]
    report = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "kernel": platform.release(), "cpus": os.cpu_count(),
              "load": os.getloadavg(), "backends": []}
    try:
        for b in opt.backend.split(","):
            disks = ram() if b == "ram" else disk(opt.dir or os.path.join(opt.build, "bench-disk"))
            report["backends"].append(backend(disks, jobs, opt))
    except Failed as e:
        print("bench: %s" % e, file=sys.stderr)
        return 1
    os.makedirs(opt.results, exist_ok=True)
    path = os.path.join(opt.results, time.strftime("%Y%m%d-%H%M%S.json"))
    with open(path, "w") as f:
        json.dump(report, f, indent=1)
    print("written to %s" % os.path.relpath(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
