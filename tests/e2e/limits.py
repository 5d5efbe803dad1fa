"""Clients that go to the limits and beyond, against the real daemon. Prints `ok NAME` and `not ok NAME` lines.

limits.py SCENE SOCKET EXPORT [DAEMON_PID]
"""
import errno
import os
import socket
import struct
import sys
import threading
import time

import nbd

READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZERO, STATUS = range(8)
EINVAL, ENOSPC, EOVERFLOW = 22, 28, 75
MIB = 1 << 20


def ok(cond, name):
    print(("ok " if cond else "not ok ") + name, flush=True)
    return cond


class Raw:
    """The smallest raw client: simple replies, every receive with a time limit."""

    def __init__(self, path, timeout=15):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(timeout)
        self.s.connect(path)
        self.cookie = 0

    def recv(self, n):
        out = bytearray()
        while len(out) < n:
            x = self.s.recv(min(n - len(out), MIB))
            if not x:
                raise EOFError
            out += x
        return bytes(out)

    def handshake(self):
        self.recv(18)
        self.s.sendall(struct.pack(">I", 3))
        return self

    def go(self, name):
        """0 or the error reply's type."""
        self.s.sendall(b"IHAVEOPT" + struct.pack(">III", 7, len(name) + 6, len(name)) + name + b"\0\0")
        while True:
            _, _, typ, n = struct.unpack(">QIII", self.recv(20))
            self.recv(n)
            if typ != 3:
                return 0 if typ == 1 else typ

    def request(self, cmd, off, length, payload=b"", flags=0):
        self.cookie += 1
        self.s.sendall(struct.pack(">IHHQQI", 0x25609513, flags, cmd, self.cookie, off, length) + payload)

    def reply(self):
        magic, error, cookie = struct.unpack(">IIQ", self.recv(16))
        assert magic == 0x67446698 and cookie == self.cookie, (hex(magic), cookie)
        return error

    def ask(self, *a, **k):
        self.request(*a, **k)
        return self.reply()

    def is_closed(self):
        try:
            while self.s.recv(MIB):
                pass
        except socket.timeout:
            return False
        except OSError:
            pass
        return True


def attached(path, name):
    c = Raw(path).handshake()
    assert c.go(name.encode()) == 0
    return c


def libnbd(path, export):
    h = nbd.NBD()
    h.set_export_name(export)
    h.connect_unix(path)
    return h


class GoodClient(threading.Thread):
    """Writes, reads back and compares until it is told to stop."""

    def __init__(self, path, export):
        super().__init__()
        self.h = libnbd(path, export)
        self.stopping = False
        self.n = 0
        self.slowest = 0.0
        self.error = None
        self.start()

    def run(self):
        try:
            while not self.stopping:
                start = time.monotonic()
                data = os.urandom(64) * 64
                off = (self.n % 1024) * 4096
                self.h.pwrite(data, off)
                if self.h.pread(4096, off) != data:
                    raise ValueError("wrong data")
                if self.n % 64 == 0:
                    self.h.flush()
                self.slowest = max(self.slowest, time.monotonic() - start)
                self.n += 1
        except Exception as e:  # noqa: whatever it is, the test fails and says so
            self.error = e

    def end(self, what):
        self.stopping = True
        self.join(60)
        print("%s: the good client did %d rounds, the slowest took %.2f s" % (what, self.n, self.slowest))
        return ok(not self.is_alive() and self.error is None and self.n > 20 and self.slowest < 8,
                  "a good client goes on: %s%s" % (what, ": %r" % self.error if self.error else ""))


def n_fds(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def rss_mib(pid):
    with open("/proc/%d/status" % pid) as f:
        return int([x for x in f if x.startswith("VmRSS")][0].split()[1]) / 1024


def crowd(path, export, pid):
    """10,000 attempts of clients that say nothing, half of it, or nonsense, many of them open at a time."""
    good = GoodClient(path, export)
    before = rss_mib(pid)
    kept, refused, made, most = [], 0, 0, 0
    for i in range(10000):
        s = socket.socket(socket.AF_UNIX)
        s.setblocking(False)
        try:
            s.connect(path)
            made += 1
            if i % 3 == 1:
                s.send(os.urandom(100))
            elif i % 3 == 2:
                s.send(struct.pack(">I", 3) + b"IHAVEOPT")
            kept.append(s)
        except OSError as e:
            refused += 1
            s.close()
            if e.errno == errno.EAGAIN:
                time.sleep(0.002)  # the line is full
        if len(kept) > 400:
            kept.pop(0).close()
        if i % 500 == 0:
            most = max(most, n_fds(pid))
    print("%d connected, %d refused, at most %d descriptors seen, %.0f MiB before, %.0f MiB after" %
          (made, refused, most, before, rss_mib(pid)))
    ok(most <= 64, "never more than 64 descriptors")
    ok(rss_mib(pid) < before * 1.5 + 64, "memory stays bounded")
    good.end("10,000 connections")
    for s in kept:
        s.close()
    end = time.monotonic() + 15
    while True:
        try:
            libnbd(path, export).shutdown()
            break
        except nbd.Error:
            if time.monotonic() > end:
                break
            time.sleep(0.1)
    ok(time.monotonic() < end, "a new client is served afterwards")


def stalled(path, export, pid):
    """One asks for gigabytes and does not read; one stops in the middle of a write's payload."""
    before = rss_mib(pid)
    deaf = attached(path, export)
    deaf.s.setblocking(False)
    n = 0
    try:
        for n in range(4000):
            deaf.request(READ, 0, MIB)
    except BlockingIOError:
        pass
    half = attached(path, export)
    half.request(WRITE, 8 * MIB, MIB, b"x" * 1000)
    good = GoodClient(path, export)
    time.sleep(3)
    print("%d requests of 1 MiB sent and not read, %.0f MiB before, %.0f MiB now" % (n, before, rss_mib(pid)))
    ok(n > 50, "the deaf client asked for much")
    ok(rss_mib(pid) < before + 300, "memory stays bounded")
    good.end("a client that does not read")
    h = libnbd(path, export)
    h.flush()
    h.shutdown()
    ok(True, "a new client and a flush")
    deaf.s.close()
    half.s.close()
    end = time.monotonic() + 20
    while rss_mib(pid) > before + 100 and time.monotonic() < end:
        time.sleep(0.2)
    print("%.0f MiB after they have gone" % rss_mib(pid))


def requests(path, export, pid):
    size = libnbd(path, export).get_size()
    c = attached(path, export)
    all_ones = (1 << 32) - 1
    for name, cmd, off, length, want in (
            ("read at the end", READ, size, 512, (EINVAL,)),
            ("read across the end", READ, size - 512, 1024, (EINVAL,)),
            ("write beyond", WRITE, size, 512, (ENOSPC,)),
            ("trim beyond", TRIM, size, 4096, (EINVAL, ENOSPC)),
            ("zero beyond", ZERO, size - 512, 4096, (ENOSPC,)),
            ("cache beyond", CACHE, size, 4096, (EINVAL,)),
            ("read at the last byte that a number can name", READ, (1 << 64) - 512, 512, (EINVAL,)),
            ("read whose end wraps", READ, (1 << 64) - 512, 4096, (EINVAL,)),
            ("write whose end wraps", WRITE, (1 << 64) - 512, 4096, (ENOSPC, EINVAL)),
            ("trim whose end wraps", TRIM, (1 << 64) - 512, all_ones - 511, (EINVAL, ENOSPC)),
            ("read of 2^32-1 bytes", READ, 0, all_ones, (EINVAL, EOVERFLOW)),
            ("trim of 2^32-1 bytes", TRIM, 0, all_ones, (EINVAL, ENOSPC)),
            ("zero of 2^32-1 bytes", ZERO, 0, all_ones, (EINVAL, ENOSPC)),
            ("cache of 2^32-1 bytes", CACHE, 0, all_ones, (EINVAL,)),
            ("unaligned read", READ, 1, 512, (EINVAL,)),
            ("read of one byte", READ, 0, 1, (EINVAL,)),
            ("unaligned write", WRITE, 511, 512, (EINVAL,)),
            ("write of one byte", WRITE, 0, 1, (EINVAL,)),
            ("unaligned trim", TRIM, 1, 4096, (EINVAL,)),
            ("unaligned zero", ZERO, 4096, 4097, (EINVAL,)),
            ("read of nothing", READ, 0, 0, (0, EINVAL)),
            ("flush with a range", FLUSH, 512, 512, (0, EINVAL)),
            ("status without a context", STATUS, 0, 4096, (EINVAL,)),
            ("a command that is none", 99, 0, 0, (EINVAL,)),
            ("a flag that is none", READ, 0, 512, (EINVAL,))):
        payload = b"x" * length if cmd == WRITE else b""
        try:
            got = c.ask(cmd, off, length, payload, 0x8000 if "flag" in name else 0)
            if got == 0 and cmd == READ:
                c.recv(length)
            ok(got in want, "%s (error %d)" % (name, got))
        except (EOFError, OSError) as e:
            ok(False, "%s (the connection was lost: %r)" % (name, e))
            c = attached(path, export)
    c.request(WRITE, 0, all_ones)
    ok(c.is_closed(), "a write of 2^32-1 bytes loses its connection")
    c = attached(path, export)
    c.request(READ, 0, 512)
    ok(c.reply() == 0 and len(c.recv(512)) == 512, "the next client is served")
    c.s.sendall(b"\xff" * 28)
    ok(c.is_closed(), "a wrong magic loses its connection")
    h = libnbd(path, export)
    h.set_strict_mode(0)
    for name, f in (("pread", lambda: h.pread(512, size)), ("pwrite", lambda: h.pwrite(b"x" * 512, size)),
                    ("unaligned pread", lambda: h.pread(100, 100)), ("zero", lambda: h.zero(size, 512)),
                    ("pread of 64 MiB", lambda: h.pread(64 * MIB, 0))):
        try:
            f()
            ok(False, "libnbd: %s beyond the limits" % name)
        except nbd.Error as e:
            ok(e.errnum in (errno.EINVAL, errno.ENOSPC, errno.EOVERFLOW, errno.ERANGE), "libnbd: %s beyond the limits: %s" % (name, e.errno))
    ok(len(h.pread(512, size - 512)) == 512, "the last sector, on the same connection")


def names(path, export, pid):
    c = Raw(path).handshake()
    for name in (b"demo/v1/", b"/demo/v1", b"demo//v1", b"demo/v1\0", b"demo\0/v1", b"demo/v1\n", b"..", b"demo/..", b"../demo/v1",
                 b"demo", b"\xff\xfe", b"x" * 4096, b"x" * 4097, b"x" * 60000, b"demo/%s%s%n"):
        try:
            got = c.go(name)
            ok(got >= 1 << 31, "name of %d bytes, %r, is refused" % (len(name), name[:12]))
        except (EOFError, OSError):
            # Too long a name may cost the connection, nothing else.
            ok(len(name) > 4096, "name of %d bytes, %r, ends the connection" % (len(name), name[:12]))
            c = Raw(path).handshake()
    ok(c.go(export.encode()) == 0, "then the right name, on the same connection")
    c = Raw(path).handshake()
    c.s.sendall(b"IHAVEOPT" + struct.pack(">II", 1, 8) + b"demo/..\n")
    ok(c.is_closed(), "EXPORT_NAME of a wrong name ends the connection")
    c = Raw(path).handshake()
    c.s.sendall(b"IHAVEOPT" + struct.pack(">II", 7, (1 << 32) - 1))
    ok(c.is_closed(), "an option of 2^32-1 bytes ends the connection")


def cut(path, export, pid):
    """Prints `attached`, then works until the volume is taken away."""
    h = libnbd(path, export)
    print("attached", flush=True)
    n = 0
    end = time.monotonic() + 20
    try:
        while time.monotonic() < end:
            h.pwrite(b"y" * 4096, (n % 1000) * 4096)
            n += 1
        ok(False, "the client was not cut")
    except nbd.Error:
        ok(n > 0, "a client of a volume that is deleted by force loses its connection")


if __name__ == "__main__":
    scenes = {f.__name__: f for f in (crowd, stalled, requests, names, cut)}
    scenes[sys.argv[1]](sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 0)
