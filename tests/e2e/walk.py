#!/usr/bin/python3
"""walk.py BUILD [--seconds N] [--seed N] [--no-damage] [--no-kill]: random commands on two pools, with a model.

One daemon serves two pools of files. Clients write to every volume all the time (walk_model.py), while commands come in random
order: snapshots, clones, rollbacks, streams, volumes that move to other layouts and between the pools, disks that join and leave.
Now and then the daemon is killed in the middle of one, or ended; while it is away disks come to harm, as many as the pool has said
that it can lose. After each start every volume and snapshot is read and compared with the model; from time to time all must heal,
all jobs end, scrub and check find nothing, and an idle daemon must be idle.

The seed decides on the commands, not on how threads and processes take turns: a run cannot be repeated exactly. What was done is in
the directory that is kept when something is wrong: `log`, `err` (the daemon's), `gdb.out` (where its threads stood, if it hung).
"""
import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import nbd

from walk_model import BLOCK, Numbers, Volume, Writer, difference

LAYOUTS = ["raid1", "raid5", "raid6", "raid10", "raid1-3"]
OVER = ("done", "failed", "stopped")
POOLS = "ab"
HANG = 90         # seconds: longer than anything may take that is not a job
QUIET = 150       # until all jobs have ended, at full speed


class Killed(Exception):
    """The daemon was killed while it was asked."""


class Walk:
    def __init__(self, options):
        self.options = options
        self.ashlar = os.path.abspath(os.path.join(options.build, "ashlar"))
        self.random = random.Random(options.seed)
        self.dir = tempfile.mkdtemp(prefix="ashlar-walk.")
        os.chdir(self.dir)
        os.mkdir("disks")
        os.mkdir("limbo")
        self.env = dict(os.environ, ASHLAR_CONTROL=self.dir + "/c.sock", ASHLAR_DISKS=self.dir + "/disks",
                        ASAN_OPTIONS="detect_leaks=0:detect_stack_use_after_return=0")
        self.began = time.time()
        self.log_file = open("log", "w")
        self.children = []            # commands that run
        self.daemon = self.killer = None
        self.lives = self.n_disks = self.n_volumes = self.n_snapshots = self.n_kills = 0
        self.numbers = Numbers()
        self.volumes = {}             # name -> Volume
        self.snapshots = {}           # "volume@snapshot" -> what it may hold
        self.pending = []             # what has become of commands is to be seen
        self.broken = []              # disks that were emptied in service
        self.may_lose = {}            # pool -> disks one of which it can lose

    # ---- telling ----

    def log(self, *what):
        print("%8.3f" % (time.time() - self.began), *what, file=self.log_file, flush=True)

    def fail(self, sentence):
        """Any thread."""
        self.log("FAIL", sentence)
        print("not ok - seed %d: %s (%s)" % (self.options.seed, sentence, self.dir), flush=True)
        for child in list(self.children):
            child.kill()
        if self.daemon and self.daemon.poll() is None:
            with open("gdb.out", "w") as out:
                if shutil.which("gdb"):
                    subprocess.run(["gdb", "-p", str(self.daemon.pid), "-batch", "-ex", "thread apply all bt 12"], stdout=out,
                                   stderr=subprocess.DEVNULL, timeout=60, check=False)
            self.daemon.kill()
        os._exit(1)

    # ---- commands ----

    def wait_for(self, child, name):
        """What it has printed. Without its daemon a command goes on alone: it is ended then."""
        began = time.time()
        while True:
            try:
                return child.communicate(timeout=1)
            except subprocess.TimeoutExpired:
                if self.killer and self.daemon.poll() is not None and time.time() - began > 8:
                    self.log("goes on without a daemon, ended:", name)
                    child.kill()
                elif time.time() - began > HANG:
                    self.fail("%s hangs" % name)

    def command(self, *args, quiet=False):
        child = subprocess.Popen([self.ashlar, *args], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.children.append(child)
        out, err = self.wait_for(child, " ".join(args))
        self.children.remove(child)
        status = 1 if child.returncode == -signal.SIGKILL else child.returncode
        if not quiet:
            self.log("$", " ".join(args), "->", status, (out + err).strip().replace("\n", " | ")[:300])
        if status not in (0, 1):
            self.fail("%s: exit status %d: %s%s" % (" ".join(args), status, out, err))
        return status == 0, out, err

    def done(self, *args):
        return self.command(*args)[0]

    def must(self, *args):
        ok, out, err = self.command(*args)
        if not ok:
            self.fail("%s: %s%s" % (" ".join(args), out, err))

    def ask(self, *args):
        ok, out, err = self.command(*args, "--json", quiet=True)
        if ok:
            return json.loads(out)
        if self.killer or self.daemon.poll() is not None:
            raise Killed
        return self.fail("%s: %s" % (" ".join(args), err))

    def dry(self, chance):
        return ["--dry-run"] if self.random.random() < chance else []

    def pool(self):
        return self.random.choice(POOLS)

    def jobs(self):
        return [x for x in self.ask("job", "list") if x["state"] not in OVER]

    def disks(self, pool):
        return self.ask("disk", "list", pool)

    def new_disk(self, mib=None):
        self.n_disks += 1
        path = "disks/d%d.img" % self.n_disks
        with open(path, "wb") as f:
            f.truncate((mib or self.random.choice([192, 256, 384])) << 20)
        return path

    # ---- the daemon ----

    def serve(self):
        self.lives += 1
        with open("out", "w") as out, open("err", "a") as err:
            print("--- life", self.lives, file=err, flush=True)
            self.daemon = subprocess.Popen([self.ashlar, "serve", "--nbd", "unix:n.sock", "--reactors", self.random.choice("12"), "disks"],
                                           env=self.env, stdout=out, stderr=err)
        end = time.time() + 60
        while time.time() < end:
            with open("out") as out:
                text = out.read()
            if "ready" in text:
                self.log("daemon", self.lives, text.replace("\n", " | "))
                return
            if self.daemon.poll() is not None:
                self.died("at its start")
            time.sleep(.02)
        self.fail("the daemon is not ready")

    def died(self, when):
        with open("err") as err:
            self.fail("the daemon died %s: %s: %s" % (when, self.daemon.returncode, err.read()[-1500:]))

    def maybe_kill(self, chance):
        """Somewhere in the middle of the command that comes next."""
        if self.options.no_kill or self.random.random() > chance:
            return False
        after = self.random.choice([.01, .05, .2, .6]) * self.random.random()
        self.killer = threading.Timer(after, lambda: self.daemon.send_signal(signal.SIGKILL))
        self.killer.start()
        return True

    def end_daemon(self):
        self.daemon.terminate()
        try:
            self.daemon.wait(60)
        except subprocess.TimeoutExpired:
            self.fail("the daemon does not end")
        if self.daemon.returncode:
            self.died("when it was to end")

    def seconds_of_cpu(self):
        with open("/proc/%d/stat" % self.daemon.pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # ---- clients ----

    def uri(self, export):
        return "nbd+unix:///%s?socket=%s/n.sock" % (export, self.dir)

    def exports(self):
        """By volume or snapshot, without the pool: it may be another one by now."""
        return {x["volume"].split("/", 1)[1]: x["name"] for x in self.ask("export", "list")}

    def start_writers(self, v):
        n = self.random.choice([1, 2, 3])
        for turn in range(n):
            try:
                export = self.exports()[v.name]
                w = Writer(v, turn, n, self.uri(export), self.numbers, self.random.random())
            except (nbd.Error, KeyError) as e:
                self.fail("no client can come to %s: %s" % (v.full(), e))
            v.writers.append(w)
            w.start()

    def stop_writers(self, v, is_away=False):
        for w in v.writers:
            w.stop = True
        for w in v.writers:
            w.join(75)
            if w.is_alive():
                self.fail("a client of %s has waited for %.0f s" % (v.full(), time.time() - (w.since or 0)))
            if w.error and (w.is_wrong or not is_away):
                self.fail("a client of %s: %s" % (v.full(), w.error))
        v.writers = []

    def writers_are_well(self):
        for v in self.volumes.values():
            for w in v.writers:
                since = w.since
                if w.error:
                    self.fail("a client of %s: %s" % (v.full(), w.error))
                if since and time.time() - since > 70:
                    self.fail("a client of %s has waited for %.0f s" % (v.full(), time.time() - since))

    def verify_all(self, when):
        exports = self.exports()
        for name, model in [(n, v.now) for n, v in self.volumes.items()] + list(self.snapshots.items()):
            wrong = difference(self.uri(exports[name]), model, True)
            if wrong:
                self.fail("%s: %s: %s" % (when, exports[name], wrong))

    # ---- what has become of commands ----

    def where(self):
        """Volumes by name: each is in one pool."""
        found = {}
        for x in self.ask("volume", "list"):
            if x["volume"] in found:
                self.fail("volume %s is in two pools" % x["volume"])
            found[x["volume"]] = x
        return found

    def follow(self):
        found = self.where()
        if set(found) != set(self.volumes):
            self.fail("there are volumes %s, and not %s" % (sorted(found), sorted(self.volumes)))
        for name, x in found.items():
            self.volumes[name].pool = x["pool"]

    def settle_rollback(self, name, content, is_done, is_killed):
        snapshot, window = content
        v = self.volumes[name]
        with v.lock:
            for b in range(v.n_blocks):
                more = self.snapshots[snapshot][b] | window[b] if is_done else self.snapshots[snapshot][b] if is_killed else set()
                v.now[b] = v.now[b] | more
                v.durable[b] = v.durable[b] | more
            v.is_fuzzy = False

    def settle_one(self, kind, name, content, is_done, found):
        """Of those that leave something, or take it away. Acknowledged: it must be so; else it may."""
        is_there = name in found
        if is_done and is_there == (kind in ("delete-snapshot", "delete-volume")):
            self.fail("%s %s is acknowledged, and has not been done" % (kind, name))
        if kind == "snapshot" and is_there:
            self.snapshots[name] = content
        elif kind == "delete-snapshot" and not is_there:
            del self.snapshots[name]
        elif kind == "delete-volume" and not is_there:
            del self.volumes[name]
            self.snapshots = {k: x for k, x in self.snapshots.items() if not k.startswith(name + "@")}
        elif kind in ("clone", "receive") and is_there:
            of = self.snapshots[content]
            self.volumes[name] = Volume(name, found[name], len(of), [set(x) for x in of])
            if kind == "receive":
                self.snapshots[name + "@" + content.split("@")[1]] = [set(x) for x in of]

    def settle(self, is_killed):
        found = {n: x["pool"] for n, x in self.where().items()}
        snapshots = {x["name"].split("/", 1)[1] for x in self.ask("snapshot", "list")}
        found.update((s, None) for s in snapshots)
        for kind, name, content, is_done in self.pending:
            if kind == "rollback":
                self.settle_rollback(name, content, is_done, is_killed)
            else:
                self.settle_one(kind, name, content, is_done, found)
        self.pending.clear()
        if snapshots != set(self.snapshots):
            self.fail("other snapshots than there should be: %s" % (snapshots ^ set(self.snapshots)))
        self.follow()

    # ---- operations: volumes ----

    def any_volume(self):
        return self.random.choice(list(self.volumes.values()))

    def any_snapshot(self):
        """Its name, and its volume; or nothing."""
        if not self.snapshots:
            return None, None
        name = self.random.choice(list(self.snapshots))
        return name, self.volumes[name.split("@")[0]]

    def new_volume(self):
        self.n_volumes += 1
        name, pool, n_blocks = "v%d" % self.n_volumes, self.pool(), self.random.choice([512, 1024, 2048])
        wait = ["--full-wait", "5s"] if self.random.random() < .2 else []
        if self.done("volume", "create", pool + "/" + name, "--size", str(n_blocks * BLOCK), "--layout", self.random.choice(LAYOUTS), *wait):
            v = self.volumes[name] = Volume(name, pool, n_blocks)
            self.start_writers(v)

    def op_snapshot(self, is_killed):
        self.n_snapshots += 1
        name = "@s%d" % self.n_snapshots
        some = self.random.sample(list(self.volumes.values()), min(len(self.volumes), self.random.choice([1, 1, 2])))
        some = [v for v in some if v.pool == some[0].pool]
        for v in some:
            v.open_window()
        is_done = self.done("snapshot", "create", *[v.full() + name for v in some])
        for v in some:
            window = v.close_window()
            if is_killed:
                window = [x | y for x, y in zip(window, v.durable)]
            if is_done or is_killed:
                self.pending.append(("snapshot", v.name + name, window, is_done))

    def op_delete_snapshot(self, is_killed):
        name, v = self.any_snapshot()
        if name:
            is_done = self.done("snapshot", "delete", v.pool + "/" + name)
            if is_done or is_killed:
                self.pending.append(("delete-snapshot", name, None, is_done))

    def op_clone(self, is_killed):
        name, v = self.any_snapshot()
        if not name or len(self.volumes) > 7:
            return
        self.n_volumes += 1
        clone = "c%d" % self.n_volumes
        is_done = self.done("clone", v.pool + "/" + name, clone)
        if is_done or is_killed:
            self.pending.append(("clone", clone, name, is_done))

    def op_rollback(self, is_killed):
        name, v = self.any_snapshot()
        if not name:
            return
        is_quiet = self.random.random() < .5
        if is_quiet:
            self.stop_writers(v, True)
        else:
            v.is_fuzzy = True
            time.sleep(.02)
        v.open_window()
        is_done = self.done("snapshot", "rollback", "--force", v.pool + "/" + name)
        window = v.close_window()
        if is_quiet and is_done:
            window = [set() for _ in window]
            v.now, v.durable = [set() for _ in window], [set() for _ in window]
        self.pending.append(("rollback", v.name, (name, window), is_done))

    def op_delete_volume(self, is_killed):
        if len(self.volumes) < 4:
            return
        v = self.any_volume()
        self.stop_writers(v, is_killed)
        is_done = self.done("volume", "delete", v.full(), "--snapshots")
        if is_done or is_killed:
            self.pending.append(("delete-volume", v.name, None, is_done))

    def op_move(self, is_killed):
        v = self.any_volume()
        layout = ["--layout", self.random.choice(LAYOUTS)] if self.random.random() < .3 else []
        self.done("volume", "move", v.full(), "b" if v.pool == "a" else "a", *layout, *self.dry(.1))

    def op_layout(self, is_killed):
        self.done("volume", "set", self.any_volume().full(), "--layout", self.random.choice(LAYOUTS), *self.dry(.1))

    def op_pool_layout(self, is_killed):
        self.done("pool", "set", self.pool(), "--layout", self.random.choice(LAYOUTS), *self.dry(.1))

    def op_send(self, is_killed):
        name, v = self.any_snapshot()
        if not name or len(self.volumes) > 7:
            return
        self.n_volumes += 1
        to = "r%d" % self.n_volumes
        send = subprocess.Popen([self.ashlar, "send", v.pool + "/" + name], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        receive = subprocess.Popen([self.ashlar, "receive", self.pool() + "/" + to, "--no-resume"], env=self.env, stdin=send.stdout,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        send.stdout.close()
        self.children += [send, receive]
        out, err = self.wait_for(receive, "send and receive of " + name)
        if self.killer:
            send.kill()
        send.wait(HANG)
        self.children.remove(send)
        self.children.remove(receive)
        self.log("$ send", v.pool + "/" + name, "| receive", to, "->", receive.returncode, send.returncode, out, err, send.stderr.read())
        if receive.returncode == 0 or is_killed:
            self.pending.append(("receive", to, name, receive.returncode == 0))

    # ---- operations: the rest ----

    def op_job(self, is_killed):
        jobs = self.jobs()
        if jobs:
            x = self.random.choice(jobs)
            self.done("job", self.random.choice(["pause", "resume", "stop"]), x["pool"], str(x["job"]))

    def op_rebalance(self, is_killed):
        self.done("pool", "rebalance", self.pool(), *self.dry(.2))

    def op_disk(self, is_killed):
        pool = self.pool()
        disks = self.disks(pool)
        name, kind, dry = os.path.basename(self.random.choice(disks)["path"]), self.random.random(), self.dry(.15)
        if kind < .2 and len(disks) < 9:
            self.done("disk", "add", pool, self.new_disk(), *dry)
        elif kind < .4:
            self.done("disk", "evacuate", pool, name, *dry)
        elif kind < .55 and len(disks) > 4:
            self.done("disk", "remove", pool, name, *dry)
        elif kind < .75:
            self.done("disk", "replace", pool, name, self.new_disk(), *dry)
        elif kind < .85:
            self.done("disk", "online", pool, name)
        elif not self.options.no_damage and self.ask("pool", "show", pool)["redundancy"] >= 1:
            self.done("disk", "fail", pool, name, *dry)

    def op_empty_disk(self, is_killed):
        """In service."""
        pool = self.pool()
        disks = self.disks(pool)
        path = self.random.choice(disks)["path"]
        if self.options.no_damage or self.ask("pool", "show", pool)["redundancy"] < 1 or any(d["state"] != "online" for d in disks):
            return
        self.log("emptied:", path)
        os.truncate(path, 0)
        self.broken.append(path)

    def op_pace(self, is_killed):
        self.done("pool", "set", self.pool(), "pace-ceiling=" + self.random.choice(["2M", "8M", "64M", "0"]),
                  "pace-floor=" + self.random.choice(["1M", "8M"]))

    def op_check(self, is_killed):
        ok, out, err = self.command("pool", "check", self.pool(), *(["--data"] if self.random.random() < .5 else []))
        if not ok and not is_killed:
            self.fail("pool check: %s%s" % (out, err))

    def op_look(self, is_killed):
        for what in ("job list", "pool show " + self.pool(), "volume list", "disk list", "export list", "snapshot list", "daemon status",
                     "connection list"):
            self.command(*what.split(), quiet=True)

    OPERATIONS = ((op_snapshot, 6), (op_delete_snapshot, 3), (op_clone, 3), (op_rollback, 2), (op_delete_volume, 1), (op_move, 8),
                  (op_layout, 5), (op_pool_layout, 1), (op_job, 4), (op_rebalance, 2), (op_disk, 6), (op_empty_disk, 1), (op_pace, 3),
                  (op_check, 1), (op_look, 1), (op_send, 2))

    # ---- harm, and healing ----

    def survey(self):
        """What may come to harm if the daemon is killed now."""
        self.may_lose = {}
        for pool in POOLS:
            info, disks = self.ask("pool", "show", pool), self.disks(pool)
            if info["redundancy"] >= 1 and not info["groups_degraded"] and all(d["state"] == "online" and d["path"] not in self.broken
                                                                               for d in disks):
                self.may_lose[pool] = [d["path"] for d in disks]

    def harm(self):
        for pool, paths in self.may_lose.items():
            path = self.random.choice(paths)
            if self.random.random() < .5 or not os.path.exists(path):
                continue
            how, size = self.random.choice(["delete", "empty", "half", "half of zeros", "zeros", "rename", "away", "noise"]), os.path.getsize(path)
            self.log("harm:", pool, path, how)
            if how == "delete":
                os.unlink(path)
            elif how == "rename":
                os.rename(path, self.new_disk(16))
            elif how == "away":
                os.rename(path, "limbo/" + os.path.basename(path))
            elif how == "noise":
                with open(path, "wb") as f:
                    f.write(os.urandom(4 << 20))
                    f.truncate(size)
            else:
                os.truncate(path, size // 2 // 4096 * 4096 if "half" in how else 0)
                if "zeros" in how:
                    os.truncate(path, size)

    def come_back(self):
        for name in os.listdir("limbo"):
            if self.random.random() < .5:
                self.log("back:", name)
                os.rename("limbo/" + name, "disks/" + name)

    def heal_pool(self, pool):
        """One step; True: there is nothing to do."""
        disks = self.disks(pool)
        bad = [d for d in disks if d["path"] in self.broken or d["state"] in ("absent", "failed")]
        if not bad:
            return True
        d = bad[0]
        if d["path"] not in self.broken and self.random.random() < .3 and self.done("disk", "online", pool, d["uuid"]):
            return True
        is_done = len(disks) > 5 and self.random.random() < .3 and self.done("disk", "remove", pool, d["uuid"])
        is_done = is_done or self.done("disk", "replace", pool, d["uuid"], self.new_disk(384))
        if d["path"] in self.broken:
            self.broken.remove(d["path"])
        return is_done

    def heal(self):
        end = time.time() + 30
        for pool in POOLS:
            while not self.heal_pool(pool) and time.time() < end:
                time.sleep(.5)

    def is_whole(self):
        if self.jobs() or any(x["moving"] for x in self.where().values()):
            return False
        infos = [self.ask("pool", "show", pool) for pool in POOLS]
        return not any(i["groups_degraded"] or i["rebuild_left_bytes"] for i in infos)

    def wait_until_whole(self):
        end, said = time.time() + QUIET, 0
        while not self.is_whole():
            self.writers_are_well()
            for x in self.jobs():
                if x["state"] == "paused":
                    self.done("job", "resume", x["pool"], str(x["job"]))
            if time.time() - said > 5:
                said = time.time()
                self.log("waiting for", [(x["pool"], x["job"], x["kind"], x["what"], x["state"], x["result"]) for x in self.jobs()])
                self.heal()
            if time.time() > end:
                self.fail("jobs do not end: %s" % self.jobs())
            time.sleep(.3)

    def quiesce(self):
        """Everything heals, everything is right, nobody is busy."""
        self.log("quiesce")
        for pool in POOLS:
            self.must("pool", "set", pool, "pace-ceiling=0", "pace-floor=64M")
        self.wait_until_whole()
        self.follow()
        for v in self.volumes.values():
            self.stop_writers(v)
        self.verify_all("when all is quiet")
        for v in self.volumes.values():
            v.durable = [set(x) for x in v.now]
        for pool in POOLS:
            self.must("pool", "scrub", pool, "--wait")
            self.must("pool", "check", pool, "--data")
        before = self.seconds_of_cpu()
        time.sleep(1.5)
        if self.seconds_of_cpu() - before > .4:
            self.fail("an idle daemon takes %.1f s of 1.5; jobs: %s" % (self.seconds_of_cpu() - before, self.jobs()))

    def restart(self, is_killed):
        for v in self.volumes.values():
            self.stop_writers(v, True)
            if is_killed:
                v.crash()
        if not self.options.no_damage and self.random.random() < .5:
            self.harm()
        elif self.random.random() < .3:
            self.come_back()
        for pool in POOLS:
            self.must("pool", "check", pool)
        self.serve()
        self.settle(is_killed)
        self.verify_all("after start %d" % self.lives)
        for v in self.volumes.values():
            v.durable = [set(x) for x in v.now]

    # ---- the whole ----

    def begin(self):
        for pool, layout in zip(POOLS, ("raid1", "raid5")):
            self.must("pool", "create", pool, "--layout", layout, "--group", "4M",
                      *[self.new_disk() for _ in range(self.random.choice([5, 6]))])
        self.serve()
        for pool in POOLS:
            self.must("pool", "set", pool, "rebuild-delay=" + self.random.choice(["1s", "10s"]))
        for _ in range(3):
            self.new_volume()

    def tidy(self):
        """Before the next one: not too few volumes, not too many snapshots."""
        if len(self.volumes) < 3:
            self.new_volume()
        if self.broken and self.random.random() < .1:
            self.heal()
        if len(self.snapshots) > 25:
            for name in self.random.sample(list(self.snapshots), 8):
                if self.done("snapshot", "delete", self.volumes[name.split("@")[0]].pool + "/" + name):
                    del self.snapshots[name]
        self.survey()
        self.follow()

    def step(self):
        self.tidy()
        operation = self.random.choices(*zip(*self.OPERATIONS))[0]
        is_killed = self.maybe_kill(.12)
        self.log("operation", operation.__name__, "kill" if is_killed else "")
        try:
            operation(self, is_killed)
        except Killed:
            pass
        if is_killed:
            self.killer.join()
            self.killer = None
            self.daemon.wait()
            self.n_kills += 1
            self.restart(True)
        elif self.daemon.poll() is not None:
            self.died("in service")
        else:
            self.settle(False)
            self.writers_are_well()
            self.rest()
        for v in self.volumes.values():
            if not v.writers:
                self.start_writers(v)

    def rest(self):
        time.sleep(self.random.choice([0, 0, .05, .3, 1]) * self.random.random())
        if self.random.random() < .03:
            self.log("ended and started")
            self.end_daemon()
            self.restart(True)
        elif self.random.random() < .04:
            self.quiesce()

    def end(self):
        self.quiesce()
        for v in self.volumes.values():
            self.must("volume", "delete", v.full(), "--snapshots")
        end = time.time() + 30
        while any(self.ask("pool", "show", pool)["used_bytes"] for pool in POOLS):
            if time.time() > end:
                self.fail("without volumes space is still in use")
            time.sleep(.2)
        for pool in POOLS:
            self.must("pool", "check", pool, "--data")
        self.end_daemon()

    def run(self):
        n, end = 0, self.began + self.options.seconds
        self.begin()
        while time.time() < end:
            self.step()
            n += 1
        self.end()
        print("ok - seed %d: %d commands, %d kills, %d starts, %d writes" % (self.options.seed, n, self.n_kills, self.lives, self.numbers.last))
        os.chdir("/")
        shutil.rmtree(self.dir)


def main():
    p = argparse.ArgumentParser(description="random commands on two pools, with a model")
    p.add_argument("build")
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--seed", type=int, default=int(time.time()))
    p.add_argument("--no-damage", action="store_true")
    p.add_argument("--no-kill", action="store_true")
    walk = Walk(p.parse_args())
    try:
        walk.run()
    except Exception as e:  # ours: the daemon is not to be left behind
        walk.fail("walk.py: %s: %s" % (type(e).__name__, e))


if __name__ == "__main__":
    sys.exit(main())
