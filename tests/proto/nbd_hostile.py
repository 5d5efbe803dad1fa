#!/usr/bin/python3
"""nbd_hostile.py SERVER: clients that send nonsense or nothing. The server lives, others go on, memory stays bounded."""
import os
import random
import resource
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from nbd_rig import CACHE, DISC, FLUSH, OPT, PAYLOAD_LEN, READ, STATUS, TRIM, WRITE, ZERO, Raw, Server, run_tests  # noqa: E402,F401

MIB = 1 << 20


def good(server, within=1.0):
    """A good client connects, writes, reads, and all of it quickly."""
    start = time.time()
    c = Raw(server).go()
    c.request(WRITE, 0, 512, payload=b"g" * 512)
    assert c.simple_reply() == (0, 1)
    c.request(READ, 0, 512)
    assert c.simple_reply() == (0, 1) and c.recv(512) == b"g" * 512
    c.request(DISC)
    c.close()
    assert time.time() - start < within, "a good client waited %.2f s" % (time.time() - start)


class Background:
    """A client that works all the time, beside whatever happens."""

    def __init__(self, server, export=b"mem"):
        self.export, self.server, self.n, self.worst, self.error, self.end = export, server, 0, 0.0, None, False
        self.t = threading.Thread(target=self.run)
        self.t.start()

    def run(self):
        try:
            c = Raw(self.server).go(self.export)
            while not self.end:
                start = time.time()
                c.request(WRITE, 8192, 4096, cookie=self.n, payload=bytes([self.n % 256]) * 4096)
                assert c.simple_reply() == (0, self.n)
                c.request(READ, 8192, 4096, cookie=self.n)
                assert c.simple_reply() == (0, self.n)
                assert c.recv(4096) == bytes([self.n % 256]) * 4096
                self.worst = max(self.worst, time.time() - start)
                self.n += 1
                time.sleep(0.001)
            c.request(DISC)
        except Exception as e:  # noqa: reported by stop()
            self.error = e

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.end = True
        self.t.join()
        if kind:
            return
        assert not self.error, repr(self.error)
        assert self.n > 0 and self.worst < 2.0, (self.n, self.worst)


def garbage_before_the_handshake(server):
    rng = random.Random(1)
    for n in (0, 1, 3, 4, 17, 100, 5000):
        c = Raw(server, flags=None)
        try:
            c.send(rng.randbytes(n))
            c.s.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        assert c.closed()
        c.close()
    c = Raw(server, flags=None)
    try:
        c.send(b"GET / HTTP/1.0\r\n\r\n")
    except OSError:
        pass
    assert c.closed()
    good(server)


def malformed_options(server):
    """Each option with each kind of wrong data; the answer is an error or an end, never silence."""
    rng = random.Random(2)
    datas = [b"", b"\0", b"\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\3mem", b"\0\0\0\3mem\0", b"\0\0\0\3mem\xff\xff",
             b"\0\0\0\3mem\0\0\0\0\0", b"\0\0\0\3mem\xff\xff\xff\xff", b"\0\0\0\3mem\0\0\0\1\xff\xff\xff\xff",
             b"\0\0\0\4\0\0\0\0\0\0", b"\0\0\0\3../\0\0", b"\0\0\0\2\n\x1b\0\0", struct.pack(">I", 4097) + b"a" * 4097 + b"\0\0",
             struct.pack(">I", 4096) + b"a" * 4096 + b"\0\0", rng.randbytes(16384), rng.randbytes(16385), rng.randbytes(65536)]
    for opt in list(range(0, 15)) + [0x7FFFFFFF, 0xFFFFFFFF]:
        c = None
        for data in datas:
            if c is None:
                c = Raw(server)
                c.option(OPT["STRUCTURED"])
                c.option_reply()
            try:
                c.option(opt, data)
                if opt == OPT["EXPORT_NAME"]:  # knows no error reply: transmission, or the end
                    assert data == b"" or c.closed()
                    c = None
                    continue
                typ, _ = c.option_reply()
                while typ in (2, 3, 4):
                    typ, _ = c.option_reply()
                if opt == OPT["GO"] and typ == 1:
                    c = None
            except (EOFError, OSError) as e:
                assert not isinstance(e, socket.timeout), (opt, data[:20])
                c = None
    good(server)


def option_lengths_that_lie(server):
    for length in (65537, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF):
        c = Raw(server)
        try:
            c.option(OPT["GO"], b"x" * 100, length)
        except OSError:
            pass
        assert c.closed()
    good(server)


def option_flood(server):
    c = Raw(server)
    try:
        for _ in range(10000):
            c.option(99)
    except OSError:
        pass
    assert c.closed()
    good(server)


def garbage_after_the_handshake(server):
    rng = random.Random(3)
    for n in (1, 27, 28, 29, 1000, 100000):
        c = Raw(server).go()
        try:
            c.send(rng.randbytes(n))
            c.s.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        assert c.closed()
    good(server)


def huge_lengths(server):
    rss = server.rss_kib()
    for cmd in range(0, 12):
        for off in (0, 1 << 40, (1 << 64) - 512, (1 << 64) - 1):
            for structured in (False, True):
                c = Raw(server).go(structured=structured)
                c.request(cmd, off, 0xFFFFFFFF)
                if cmd in (WRITE, DISC):
                    assert c.closed(), cmd
                else:
                    head = c.recv(16)
                    assert head[:4] in (b"\x67\x44\x66\x98", b"\x66\x8e\x33\xef")
                c.close()
    assert server.rss_kib() - rss < 64 * 1024 * server.memory_factor(), (rss, server.rss_kib())
    good(server)


def extended_lengths_at_every_limit(server):
    """Each command with each length, with and without a payload of that length: an error or an end, soon, in bounded memory."""
    rss = server.rss_kib()
    limits = (0, 1, 511, 512, 513, 32 * MIB - 512, 32 * MIB, 32 * MIB + 512, 64 * MIB, 64 * MIB + 1, (1 << 32) - 512, 1 << 32,
              (1 << 63) - 1, 1 << 63, (1 << 64) - 512, (1 << 64) - 1)
    for cmd in list(range(0, 9)) + [0xFFFF]:
        c = None
        for n in limits:
            for off in (0, 512, 64 * MIB - 512, 64 * MIB, (1 << 64) - 512):
                if c is None:
                    c = Raw(server).go(extended=True, contexts=(b"base:allocation",))
                c.request(cmd, off, n)
                if cmd in (WRITE, DISC):  # a write without the length of its payload cannot be told from its data
                    assert c.closed(), (cmd, n)
                    c = None
                    continue
                error, cookie, chunks = c.reply(off)
                assert error in (0, 22, 28, 75) and (error or cmd not in (READ, TRIM, ZERO, STATUS) or off + n <= 64 * MIB), (cmd, n, off, error)
        for n in limits:
            if cmd == DISC or n == 0:
                continue
            c = c or Raw(server).go(extended=True, contexts=(b"base:allocation",))
            if n > 64 * MIB:
                c.request(cmd, 0, n, PAYLOAD_LEN)
                assert c.closed(), (cmd, n)
                c = None
            elif n < 1024:
                c.request(cmd, 0, n, payload=b"p" * n)
                error = c.reply(0)[0]
                assert error == (0 if cmd == WRITE and n == 512 else 22), (cmd, n, error)
    assert server.rss_kib() - rss < 64 * 1024 * server.memory_factor(), (rss, server.rss_kib())
    good(server)


def terabytes_of_zeroes(server):
    """Requests over more than 4 GiB, and clients that do not wait for their end."""
    with Background(server):
        c = Raw(server).go(b"huge", extended=True, contexts=(b"base:allocation",))
        for cmd in (ZERO, TRIM, CACHE):
            c.request(cmd, 0, 6 << 30, cookie=cmd)
            assert c.reply(0)[:2] == (0, cmd)
        c.request(STATUS, 512, (6 << 30) - 512)
        error, _, chunks = c.reply(512)
        assert not error and chunks == [(6, struct.pack(">IIQQ", 1, 1, (6 << 30) - 512, 3))], (error, chunks)
        for _ in range(20):
            x = Raw(server).go(b"huge", extended=True)
            for i in range(100):
                x.request(ZERO, 0, 6 << 30, cookie=i)
            x.close()
    good(server)


def oversized_write_is_drained(server):
    c = Raw(server, timeout=30).go()
    c.request(WRITE, 0, 33 * MIB, cookie=5, payload=b"o" * (33 * MIB))
    assert c.simple_reply() == (22, 5)
    c.request(READ, 0, 512, cookie=6)
    assert c.simple_reply() == (0, 6)
    c.close()


def half_open_by_the_hundred(server):
    with Background(server):
        socks = []
        for i in range(600):
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect(server.path)
                if i % 3 == 1:
                    s.sendall(b"\0\0")
                elif i % 3 == 2:
                    s.sendall(b"\0\0\0\3IHAVEOPT\0\0\0\7\0\0\0\x50")
                socks.append(s)
            except OSError:
                s.close()
            if i % 50 == 0:
                good(server)
        good(server)
        assert server.n_fds() < 350, server.n_fds()
    for s in socks:
        s.close()


def silent_handshake_ends(server):
    c = Raw(server, flags=None, timeout=8)
    c.recv(18)
    start = time.time()
    assert c.closed() and time.time() - start < 6


def slow_loris(server):
    with Background(server):
        slow = [Raw(server, flags=None) for _ in range(20)]
        start = time.time()
        data = struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 99, 1000) + bytes(1000)
        for i in range(30):
            for c in slow:
                try:
                    c.send(data[i : i + 1])
                except OSError:
                    pass
            time.sleep(0.2)
        for c in slow:
            c.s.settimeout(3)
            assert c.closed()
        assert time.time() - start < 12
    good(server)


def reader_that_stops(server):
    """Asks for a gigabyte and reads nothing: bounded memory, and nobody else waits."""
    rss = server.rss_kib()
    with Background(server):
        bad = []
        for _ in range(4):
            c = Raw(server).go()
            c.s.setblocking(False)
            try:
                for i in range(1024):
                    c.s.send(struct.pack(">IHHQQI", 0x25609513, 0, READ, i, 0, MIB))
            except BlockingIOError:
                pass
            bad.append(c)
        time.sleep(1)
        for _ in range(5):
            good(server)
        grown = server.rss_kib() - rss
        assert grown < (256 + 64) * 1024 * server.memory_factor(), grown
        for c in bad:
            c.close()


def never_finishes_its_payload(server):
    rss = server.rss_kib()
    with Background(server):
        bad = []
        for _ in range(40):
            c = Raw(server).go()
            c.request(WRITE, 0, 32 * MIB, payload=b"p" * 1000)
            bad.append(c)
        for _ in range(5):
            good(server)
        assert server.rss_kib() - rss < 64 * 1024 * server.memory_factor()
    for c in bad:
        c.close()


def vanish_in_the_middle(server):
    rng = random.Random(4)
    fds = server.n_fds()
    with Background(server):
        for i in range(200):
            c = Raw(server).go(rng.choice((b"mem", b"slow", b"ro", b"faulty")), structured=i % 2)
            for k in range(rng.randrange(20)):
                c.request(READ, rng.randrange(100) * 4096, 4096, cookie=k)
            c.request(WRITE, 0, MIB, payload=b"v" * rng.choice((0, 1, 4096, 100000)))
            c.close()
    time.sleep(0.5)
    assert server.n_fds() <= fds + 2, (fds, server.n_fds())
    good(server)


def random_conversations(server):
    rng = random.Random(5)
    with Background(server, b"slow"):  # the others are written to
        for i in range(300):
            c = Raw(server, timeout=5).go(rng.choice((b"mem", b"ro", b"faulty", b"nofast", b"block4k")), structured=i % 3 and i % 2, extended=i % 3 == 0)
            c.s.settimeout(0.002)
            try:
                for k in range(rng.randrange(1, 30)):
                    cmd = rng.randrange(0, 9)
                    n = rng.choice((0, 1, 511, 512, 4096, 65536, MIB, 0xFFFFFFFF, 0x80000000))
                    if cmd == WRITE:
                        n = min(n, 65536)
                    off = rng.choice((0, 512, 4096, 64 * MIB - 512, 64 * MIB, 1 << 63, (1 << 64) - 1, rng.randrange(1 << 64)))
                    c.request(cmd, off, n, rng.choice((0, 0, 0, 1, 2, 4, 8, 16, 0xFFFF)), k, b"r" * n if cmd == WRITE else b"")
                    if rng.randrange(3) == 0:
                        c.s.recv(1 << 16)
            except OSError:
                pass
            c.close()
    good(server)


def more_connections_than_allowed(server):
    held, refused = [], 0
    for _ in range(400):
        try:
            held.append(Raw(server).go())
        except (EOFError, OSError):
            refused += 1
    assert refused >= 90 and len(held) >= 250, (refused, len(held))
    held[0].request(READ, 0, 512)
    assert held[0].simple_reply() == (0, 1)
    for c in held:
        c.close()
    time.sleep(0.5)
    good(server)


def names_do_not_reach_the_log(server):
    for name in (b"\x1b[2J\nowned", b"../../etc/passwd", b"%s%n", "gr\u00fcn".encode(), b"\xff\xfe"):
        c = Raw(server)
        c.option(OPT["INFO"], struct.pack(">I", len(name)) + name + b"\0\0")
        assert c.option_reply()[0] & 0x80000000
        c.close()
    text = server.log_text()
    assert b"\x1b" not in text and b"\nowned" not in text
    assert all(32 <= b < 127 or b == 10 for b in text)


def out_of_descriptors(binary):
    """With 64 descriptors: connections beyond them wait or fail, those that exist go on, and closing frees all."""
    server = Server(binary)
    resource.prlimit(server.p.pid, resource.RLIMIT_NOFILE, (64, 64))
    first = Raw(server).go()
    socks = []
    for _ in range(120):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(1)
        try:
            s.connect(server.path)
            socks.append(s)
        except OSError:
            s.close()
    for i in range(100):
        first.request(READ, 0, 512, cookie=i)
        assert first.simple_reply() == (0, i) and len(first.recv(512)) == 512
    for s in socks:
        s.close()
    good(server, within=5)
    first.close()
    server.stop()


class Latency:
    """p99 of a client's small requests, one after the other, while the block runs."""

    def __init__(self, server, export=b"mem"):
        self.server, self.export, self.end, self.times = server, export, False, []
        self.t = threading.Thread(target=self.run)

    def run(self):
        c = Raw(self.server).go(self.export)
        while not self.end or len(self.times) < 500:
            start = time.perf_counter()
            c.request(READ, 8192, 4096)
            assert c.simple_reply() == (0, 1) and len(c.recv(4096)) == 4096
            self.times.append(time.perf_counter() - start)
            time.sleep(0.0005)
        c.close()

    def __enter__(self):
        self.t.start()
        return self

    def __exit__(self, *exc):
        self.end = True
        self.t.join()
        self.p99 = sorted(self.times)[len(self.times) * 99 // 100]


def thousands_of_connections(binary):
    """As many as the limits of this process allow, idle and half open: what one costs is bounded, and others do not feel them."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    n = min(3000, hard - 200)
    server = Server(binary, "--max-connections", str(n + 50), "--max-half-open", "100", "--handshake-ms", "60000")
    with Latency(server) as alone:
        time.sleep(1)
    rss = server.rss_kib()
    held = [Raw(server, timeout=30).go() for _ in range(n)]
    each = (server.rss_kib() - rss) / n
    for _ in range(80):
        held.append(Raw(server, flags=None, timeout=30))
    for _ in range(3):  # other programs disturb too
        with Latency(server) as crowded:
            for i in range(0, n, 7):  # some of them wake up
                held[i].request(READ, 0, 512)
            time.sleep(1)
        for i in range(0, n, 7):
            assert held[i].simple_reply() == (0, 1) and len(held[i].recv(512)) == 512
        if crowded.p99 < max(2 * alone.p99, 0.005):
            break
    print("     %d connections, %.0f KiB each; p99 %.2f ms alone, %.2f ms among them" % (n, each, alone.p99 * 1e3, crowded.p99 * 1e3))
    assert each < 1024, each
    assert crowded.p99 < max(2 * alone.p99, 0.005), (alone.p99, crowded.p99)
    good(server, within=5)
    for c in held:
        c.close()
    server.stop()


def stop_with_clients_open(binary):
    server = Server(binary)
    keep = [Raw(server).go(b"slow") for _ in range(20)]
    for c in keep[:10]:
        for i in range(8):
            c.request(READ, i * 4096, 4096, cookie=i)
    keep[10].request(WRITE, 0, MIB, payload=b"half")
    half = [Raw(server, flags=None) for _ in range(10)]
    server.stop()
    for c in keep + half:
        assert c.closed()


def main():
    server = Server(sys.argv[1], "--handshake-ms", "3000", "--max-connections", "300", "--max-half-open", "64")
    tests = [garbage_before_the_handshake, malformed_options, option_lengths_that_lie, option_flood,
             garbage_after_the_handshake, huge_lengths, extended_lengths_at_every_limit, terabytes_of_zeroes, oversized_write_is_drained, half_open_by_the_hundred,
             silent_handshake_ends, slow_loris, reader_that_stops, never_finishes_its_payload, vanish_in_the_middle,
             random_conversations, more_connections_than_allowed, names_do_not_reach_the_log]
    failed = run_tests(tests, server)
    text = server.stop()
    assert text.count(b"\n") < 2000, "the log was flooded"
    failed += run_tests([out_of_descriptors, thousands_of_connections, stop_with_clients_open], sys.argv[1])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
