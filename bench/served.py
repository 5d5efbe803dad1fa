"""A pool of one disk, served by a daemon on a unix socket in a directory of its own, with volumes that have been written: what benches of one
daemon alone begin with (fair.py, evacuate.py)."""
import argparse
import os
import subprocess
import sys

MIB = 1 << 20


def fail(text):
    sys.exit("%s: %s" % (os.path.basename(sys.argv[0]).replace(".py", ""), text))


def run(*args, **kw):
    p = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, check=False, **kw)
    if p.returncode:
        fail("%s: %s" % (" ".join(args[:4]), p.stderr.strip() or p.stdout.strip()))
    return p.stdout


def options(doc, size, unit):
    a = argparse.ArgumentParser(description=doc.splitlines()[0])
    a.add_argument("--build", default="build")
    a.add_argument("--dir", default=None, help="where the files are; default: the temporary directory")
    a.add_argument("--size", type=int, default=size, help=unit)
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--smoke", action="store_true", help="once, little")
    return a


class Pool:
    def __init__(self, build, where, disk, volumes, data, serve=(), scan=None):
        """disk: a file or a URI. Each volume has so many bytes of data, and is written in full. scan: ASHLAR_DISKS, default: where."""
        self.dir, self.ashlar, self.data = where, os.path.abspath(build) + "/ashlar", data
        self.env = dict(os.environ, ASHLAR_DISKS=scan or where, ASHLAR_CONTROL=where + "/control.sock")
        self.cmd("pool", "create", "bench", "--layout", "single", "--force", disk)
        for v in volumes:
            self.cmd("volume", "create", "bench/" + v, "--size", str(data))
        self.daemon = subprocess.Popen([self.ashlar, "serve", *serve, "--nbd", "unix:%s/nbd.sock" % where, disk], env=self.env,
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, universal_newlines=True)
        for line in self.daemon.stdout:
            if line.strip() == "ready":
                break
        else:
            fail("the daemon does not start")
        for v in volumes:
            run(*self.fio(v, ["--rw=write", "--bs=1m", "--iodepth=8", "--end_fsync=1"]), cwd=where)

    def cmd(self, *args):
        return run(self.ashlar, *args, env=self.env)

    def fio(self, volume, opts):
        return ["fio", "--name=x", "--ioengine=nbd", "--uri=nbd+unix:///bench/%s?socket=%s/nbd.sock" % (volume, self.dir),
                "--size=%d" % self.data, "--output-format=json", "--group_reporting"] + opts

    def close(self):
        self.daemon.terminate()
        self.daemon.wait()
