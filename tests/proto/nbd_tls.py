#!/usr/bin/python3
"""nbd_tls.py SERVER: STARTTLS with certificates and pre-shared keys, by libnbd, QEMU and a client of our own that lies."""
import errno
import os
import random
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings

import nbd

sys.path.insert(0, os.path.dirname(__file__))
from nbd_hostile import Latency  # noqa: E402
from nbd_rig import DISC, OPT, READ, STATUS, WRITE, ZERO, Raw, Server, make_certificates, run_tests  # noqa: E402

MIB = 1 << 20
warnings.simplefilter("ignore", DeprecationWarning)  # the old version that is refused
TLS_REQD = 0x80000005
INVALID = 0x80000003
UNSUP = 0x80000001


class Keys:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="nbd-tls-")
        make_certificates(self.dir)
        self.psk = self.path("keys.psk")
        with open(self.psk, "w") as f:
            f.write("# who: key\nalice:%s\n\ncarol:00112233445566778899aabbccddeeff\n" % ("0123456789abcdef" * 4))

    def path(self, name):
        return os.path.join(self.dir, name)


keys = None


def connect(server, user="alice", export="mem", psk=False, tls=nbd.TLS_REQUIRE, verify=True):
    h = nbd.NBD()
    h.set_export_name(export)
    h.set_tls(tls)
    h.add_meta_context("base:allocation")
    if psk:
        h.set_tls_psk_file(keys.psk if psk is True else psk)
        h.set_tls_username(user)
    else:
        h.set_tls_certificates(keys.path(user))
        h.set_tls_verify_peer(verify)
        h.set_uri_allow_local_file(True)
    h.connect_unix(server.path) if not verify or psk else h.connect_uri(
        "nbds+unix://localhost/%s?socket=%s&tls-certificates=%s" % (export, server.path, keys.path(user)))
    return h


def refused(f, *args, **kw):
    try:
        f(*args, **kw).pread(512, 0)
    except nbd.Error:
        return
    raise AssertionError("was let in")


class Tls(Raw):
    """A raw client of our own behind STARTTLS."""

    def send_below(self, data):
        with socket.socket(fileno=os.dup(self.s.fileno())) as s:
            s.sendall(data)

    def __init__(self, server, user="alice", start=True, timeout=10, max_version=None):
        super().__init__(server, timeout=timeout)
        if start:
            self.option(OPT["STARTTLS"])
            assert self.option_reply()[0] == 1
            self.wrap(user, max_version=max_version)

    def wrap(self, user, max_version=None):
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        c.load_verify_locations(keys.path("ca/ca-cert.pem"))
        if max_version:
            c.maximum_version = max_version
        if user:
            c.load_cert_chain(keys.path(user + "/client-cert.pem"), keys.path(user + "/client-key.pem"))
        self.s = c.wrap_socket(self.s, server_hostname="localhost")


def read_write_model(server):
    """Sizes around those of records, many in flight, on two connections."""
    hs = [connect(server), connect(server, "bob")]
    assert all(h.get_tls_negotiated() and h.get_structured_replies_negotiated() for h in hs)
    rng = random.Random(11)
    size = 8 * MIB
    hs[0].zero(size, 0)
    want = bytearray(size)
    for h in hs * 3:
        for n in (512, 1024, 16384 - 512, 16384, 16384 + 512, 65536, MIB, 5 * MIB + 512):
            off = rng.randrange((size - n) // 512 + 1) * 512
            data = rng.randbytes(n)
            h.pwrite(data, off)
            want[off:off + n] = data
            assert h.pread(n, off) == data
        todo = []
        for i in range(60):
            n = rng.choice((512, 4096, 65536, MIB))
            off = rng.randrange((size - n) // 512 + 1) * 512
            b = nbd.Buffer(n)
            todo.append((h.aio_pread(b, off), b, off, n))
        while h.aio_in_flight():
            h.poll(-1)
        for cookie, b, off, n in todo:
            assert h.aio_command_completed(cookie) and b.to_bytearray() == want[off:off + n]
    hs[0].flush()
    assert hs[1].pread(size, 0) == want
    for h in hs:
        h.shutdown()


def big_transfers(server):
    h = connect(server)
    data = random.Random(3).randbytes(32 * MIB)
    h.pwrite(data, 32 * MIB)
    assert h.pread(32 * MIB, 32 * MIB) == data
    h.shutdown()


def both_versions(server):
    for v in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        c = Tls(server, max_version=v)
        assert c.s.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[v]
        c.go()
        c.request(WRITE, 0, 100 * 512, payload=b"v" * 51200)
        assert c.simple_reply() == (0, 1)
        c.request(READ, 0, 51200)
        assert c.simple_reply() == (0, 1) and c.recv(51200) == b"v" * 51200
        c.request(DISC)
        assert c.s.recv(1) == b"", "a farewell"
        c.close()
    try:
        Tls(server, max_version=ssl.TLSVersion.TLSv1_1)
    except (ssl.SSLError, OSError):
        return
    raise AssertionError("TLS 1.1")


def wrong_certificates_stay_out(server):
    refused(connect, server, "mallory", verify=False)
    c = Tls(server, start=False)
    c.option(OPT["STARTTLS"])
    assert c.option_reply()[0] == 1
    try:  # none at all: TLS 1.3 lets the client learn that only afterwards
        c.wrap(None)
        c.option(OPT["LIST"])
        c.option_reply()
        raise AssertionError("was let in")
    except (ssl.SSLError, OSError, EOFError):
        pass
    connect(server).shutdown()


def pre_shared_keys(server):
    for user in ("alice", "carol"):
        h = connect(server, user, psk=True)
        h.pwrite(b"k" * 4096, 4096)
        assert h.pread(4096, 4096) == b"k" * 4096
        h.shutdown()
    wrong = keys.path("wrong.psk")
    with open(wrong, "w") as f:
        f.write("alice:ffff456789abcdef\nnobody:0123456789abcdef\n")
    refused(connect, server, "alice", psk=wrong)
    refused(connect, server, "nobody", psk=wrong)


def exports_by_identity(server):
    """A guarded export is for alice, however she shows who she is; for others it does not exist."""
    for psk in (False, True):
        h = connect(server, "alice", "guarded", psk=psk)
        h.pwrite(b"a" * 512, 0)
        h.shutdown()
    refused(connect, server, "bob", "guarded")
    refused(connect, server, "carol", "guarded", psk=True)
    h = nbd.NBD()
    h.set_export_name("guarded")
    if not server.required:
        try:
            h.connect_unix(server.path)
            raise AssertionError("was let in")
        except nbd.Error as e:
            assert e.errnum == errno.ENOENT
    for user, sees in (("alice", True), ("bob", False)):
        c = Tls(server, user)
        c.option(OPT["LIST"])
        names = []
        while True:
            typ, data = c.option_reply()
            if typ == 1:
                break
            names.append(data[4:4 + struct.unpack(">I", data[:4])[0]])
        assert (b"guarded" in names) == sees and b"mem" in names, names
        for opt, body in ((OPT["INFO"], b"\0\0"), (OPT["LIST_META"], b"\0\0\0\0")):
            seen = []
            c.option(OPT["STRUCTURED"])
            c.option_reply()
            for name in (b"guarded", b"unheard"):
                c.option(opt, struct.pack(">I", len(name)) + name + body)
                while True:
                    typ, data = c.option_reply()
                    if typ == 1 or typ >> 31:
                        break
                seen.append((typ, data))
            assert (seen[0] != seen[1]) == sees, (user, seen)
        c.close()


def starttls_rules(server):
    c = Tls(server, start=False)
    c.option(OPT["STARTTLS"], b"data")
    assert c.option_reply()[0] == INVALID
    c.option(OPT["STRUCTURED"])
    first = c.option_reply()[0]
    c.option(OPT["STARTTLS"])
    assert c.option_reply()[0] == 1
    c.wrap("alice")
    c.option(OPT["STARTTLS"])
    assert c.option_reply()[0] == INVALID
    # What was agreed on before is forgotten: contexts need structured replies, which are not agreed on any more.
    c.option(OPT["SET_META"], b"\0\0\0\3mem\0\0\0\1\0\0\0\x0fbase:allocation")
    assert c.option_reply()[0] == INVALID
    c.go()
    c.request(READ, 0, 512)
    assert c.simple_reply() == (0, 1)
    c.close()
    assert first == (TLS_REQD if server.required else 1)


def nothing_but_starttls_where_it_is_required(server):
    c = Raw(server)
    for opt in list(range(2, 5)) + list(range(6, 14)) + [0x7FFFFFFF]:
        if opt == OPT["ABORT"]:
            continue
        c.option(opt, b"\0\0\0\0\0\0")
        assert c.option_reply()[0] == TLS_REQD, opt
    c.option(OPT["ABORT"])
    assert c.option_reply()[0] == 1 and c.closed()
    c = Raw(server)
    c.option(OPT["EXPORT_NAME"], b"mem")
    assert c.closed()
    h = nbd.NBD()
    try:
        h.connect_unix(server.path)
        raise AssertionError("was let in")
    except nbd.Error:
        pass


def plaintext_around_starttls(server):
    """An attacker on the way puts options into the clear, before, with and behind STARTTLS: none of it counts."""
    go = b"IHAVEOPT" + struct.pack(">II", OPT["GO"], 9) + b"\0\0\0\3mem\0\0"
    tls = b"IHAVEOPT" + struct.pack(">II", OPT["STARTTLS"], 0)
    structured = b"IHAVEOPT" + struct.pack(">II", OPT["STRUCTURED"], 0)
    for junk in (go, structured, b"\0", b"x" * 5000, structured * 100):
        c = Tls(server, start=False)
        c.send(tls + junk)
        assert c.option_reply()[0] == 1
        try:
            c.wrap("alice")
            c.go()
            raise AssertionError("the handshake took injected text")
        except (ssl.SSLError, OSError, EOFError):
            pass
        c.close()
    connect(server).shutdown()


def garbage_inside_tls(server):
    rng = random.Random(5)
    with Background(server):
        for i in range(60):
            c = Tls(server, timeout=5)
            try:
                if i % 3 == 0:  # nonsense, well encrypted
                    c.send(rng.randbytes(rng.randrange(20, 70000)))
                elif i % 3 == 1:  # ciphertext that is none, after good requests
                    c.go()
                    c.request(WRITE, 0, 4096, payload=b"g" * 4096)
                    c.send_below(rng.randbytes(rng.randrange(20, 3000)))
                else:  # a record of someone else's
                    c.go()
                    c.send_below(b"\x17\x03\x03\x01\x00" + rng.randbytes(256))
                assert c.closed()
            except OSError:
                pass
            c.close()


def half_open_handshakes(server):
    """Clients that begin TLS and say no more, in different places: they end in time, and others go on."""
    fds = server.n_fds()
    with Background(server):
        held = []
        for i in range(60):
            c = Raw(server, timeout=8)
            c.option(OPT["STARTTLS"])
            assert c.option_reply()[0] == 1
            if i % 3 == 1:
                c.send(b"\x16\x03\x01\x40\x00")
            elif i % 3 == 2:
                c.send(b"\x16\x03\x01\x00\xff\x01\x00\x00\xfb\x03\x03" + b"h" * 20)
            held.append(c)
        start = time.time()
        assert all(c.closed() for c in held) and time.time() - start < 7
        for c in held:
            c.close()
    time.sleep(0.3)
    assert server.n_fds() <= fds + 2, (fds, server.n_fds())


def byte_by_byte(server):
    """Records cut anywhere on their way."""
    a, b = socket.socketpair()
    plain = Raw(server)
    plain.option(OPT["STARTTLS"])
    assert plain.option_reply()[0] == 1
    end = threading.Event()

    def pump(src, dst, n):
        try:
            while not end.is_set():
                x = src.recv(n)
                if not x:
                    break
                dst.sendall(x)
        except OSError:
            pass

    ts = [threading.Thread(target=pump, args=(b, plain.s, 3)), threading.Thread(target=pump, args=(plain.s, b, 65536))]
    for t in ts:
        t.start()
    c = Raw.__new__(Raw)
    c.extended, c.s = False, a
    Tls.wrap(c, "alice")
    c.go(structured=True)
    c.request(WRITE, 0, 8192, payload=b"b" * 8192)
    assert c.simple_reply() == (0, 1)
    end.set()
    c.request(DISC)
    c.close()
    plain.s.close()
    b.close()
    for t in ts:
        t.join()


def reader_that_stops(server):
    rss = server.rss_kib()
    with Background(server):
        bad = []
        for _ in range(4):
            c = Tls(server).go()
            c.s.setblocking(False)
            try:
                for i in range(1024):
                    c.s.send(struct.pack(">IHHQQI", 0x25609513, 0, READ, i, 0, MIB))
            except OSError:
                pass
            bad.append(c)
        time.sleep(1)
        connect(server).shutdown()
        grown = server.rss_kib() - rss
        assert grown < (256 + 64) * 1024 * server.memory_factor(), grown
        for c in bad:
            c.close()


def last_reply_that_just_does_not_fit(server):
    """The socket is full in the middle of a reply, with none after it: all of it comes once the client reads."""
    c = Tls(server).go()
    for n in range(1, 48):
        for i in range(n):
            c.request(READ, 0, 60 * 1024, cookie=i)
            time.sleep(0.0003)
        time.sleep(0.002)
        for i in range(n):
            assert c.simple_reply() == (0, i) and len(c.recv(60 * 1024)) == 60 * 1024
    c.close()


def many_connections(server):
    """As many as are allowed: what one costs in memory is as the manual says."""
    rss = server.rss_kib()
    held = [Tls(server).go() for _ in range(100)]
    each = (server.rss_kib() - rss) / len(held)
    print("     %.0f KiB for a TLS connection" % each)
    assert each < 1024 * server.memory_factor(), each
    for c in held:
        c.request(READ, 0, 4096)
    for c in held:
        assert c.simple_reply() == (0, 1) and len(c.recv(4096)) == 4096
        c.close()


def handshakes_by_the_hundred(server):
    """Clients that come and go cost the others little, although the keys are counted on the reactor."""
    with Latency(server) as alone:
        time.sleep(1)
    limit = max(2 * alone.p99, 0.02)
    for _ in range(5):  # other programs disturb too
        with Latency(server) as crowded:
            for i in range(200):
                Tls(server).close()
        if crowded.p99 < limit:
            break
    print("     p99 %.2f ms alone, %.2f ms among handshakes" % (alone.p99 * 1e3, crowded.p99 * 1e3))
    assert crowded.p99 < limit, (alone.p99, crowded.p99)


def extended_through_tls(server):
    c = Tls(server).go(b"huge", extended=True, contexts=(b"base:allocation",))
    c.request(ZERO, 0, 6 << 30)
    assert c.reply(0)[0] == 0
    c.request(STATUS, 0, 6 << 30)
    assert c.reply(0)[2] == [(6, struct.pack(">IIQQ", 1, 1, 6 << 30, 3))]
    c.close()


def vanish_in_the_middle(server):
    rng = random.Random(8)
    fds = server.n_fds()
    with Background(server):
        for i in range(60):
            c = Tls(server).go(rng.choice((b"mem", b"slow")))
            for k in range(rng.randrange(20)):
                c.request(READ, rng.randrange(100) * 4096, 65536, cookie=k)
            c.request(WRITE, 0, MIB, payload=b"v" * rng.choice((1, 4096, 100000)))
            c.close()
    time.sleep(0.5)
    assert server.n_fds() <= fds + 2, (fds, server.n_fds())


class Background:
    """A TLS client that works all the time, beside whatever happens."""

    def __init__(self, server):
        self.server, self.end, self.error, self.n, self.worst = server, False, None, 0, 0.0
        self.t = threading.Thread(target=self.run)

    def run(self):
        try:
            c = Tls(self.server, "bob").go(b"nofast")
            while not self.end:
                start = time.time()
                c.request(WRITE, 8192, 4096, payload=bytes([self.n % 256]) * 4096)
                assert c.simple_reply() == (0, 1)
                c.request(READ, 8192, 4096)
                assert c.simple_reply() == (0, 1) and c.recv(4096) == bytes([self.n % 256]) * 4096
                self.worst = max(self.worst, time.time() - start)
                self.n += 1
                time.sleep(0.001)
            c.request(DISC)
        except Exception as e:  # noqa: reported at the end
            self.error = e

    def __enter__(self):
        self.t.start()
        return self

    def __exit__(self, kind, value, trace):
        self.end = True
        self.t.join()
        if not kind:
            assert not self.error, repr(self.error)
            assert self.n and self.worst < 2.0, (self.n, self.worst)


def by_qemu(server):
    if not shutil.which("qemu-img"):
        return
    for creds in ("tls-creds-x509,id=t,endpoint=client,dir=" + keys.path("alice"),
                  "tls-creds-psk,id=t,endpoint=client,username=alice,dir=" + keys.path("psk")):
        os.makedirs(keys.path("psk"), exist_ok=True)
        shutil.copy(keys.psk, keys.path("psk/keys.psk"))
        image = "driver=nbd,path=%s,export=mem,tls-creds=t,tls-hostname=localhost" % server.path
        out = subprocess.run(["qemu-io", "--object", creds, "--image-opts", image, "-c", "write -P 7 0 1M", "-c", "read -P 7 4k 64k"],
                             capture_output=True, text=True)
        assert out.returncode == 0 and "65536/65536" in out.stdout, (out.stdout, out.stderr)


def only_names_that_are_allowed(server):
    connect(server, "bob").shutdown()
    refused(connect, server, "alice", verify=False)
    refused(connect, server, "alice", psk=True)
    assert b"not among those that are allowed" in server.log_text()


def stop_with_clients_open(binary):
    """In the middle of TLS's handshake, idle, with requests on their way, and not reading."""
    server = Server(binary, "--tls-certificates", keys.path("server"), "--tls-verify")
    half = []
    for i in range(12):
        c = Raw(server)
        c.option(OPT["STARTTLS"])
        c.option_reply()
        c.send(b"\x16\x03\x01\x00\xff\x01"[: i % 6])
        half.append(c)
    keep = [Tls(server).go(b"slow") for _ in range(12)]
    for c in keep[:6]:
        for i in range(8):
            c.request(READ, i * MIB, MIB, cookie=i)
    keep[6].request(WRITE, 0, MIB, payload=b"half")
    server.stop()
    for c in half + keep:
        assert c.closed()
        c.close()


def bad_keys_are_refused(binary):
    """At the start, with a sentence."""
    bad = keys.path("bad")
    os.makedirs(bad)
    for name in ("server-cert.pem", "server-key.pem", "ca-cert.pem"):
        shutil.copy(keys.path("server/" + name), bad)

    def run(*options):
        p = subprocess.run([binary, "unix:" + keys.path("s"), *options], capture_output=True, text=True, timeout=20)
        assert p.returncode and "TLS" in p.stderr, (p.returncode, p.stderr)
        return p.stderr

    assert "cannot read" in run("--tls-certificates", keys.path("nowhere"))
    shutil.copy(keys.path("alice/client-key.pem"), bad + "/server-key.pem")
    assert "together" in run("--tls-certificates", bad)
    os.remove(bad + "/ca-cert.pem")
    shutil.copy(keys.path("server/server-key.pem"), bad)
    assert "ca-cert.pem" in run("--tls-certificates", bad, "--tls-verify")
    for text, word in (("", "no key"), ("alice", "line 1"), (":00", "line 1"), ("a:00\nb:0g\n", "line 2"), ("a:00\na:11", "two keys")):
        with open(keys.path("bad.psk"), "w") as f:
            f.write(text)
        assert word in run("--tls-psk", keys.path("bad.psk")), (text, word)


def main():
    global keys
    keys = Keys()
    binary = sys.argv[1]
    both = ["--tls-certificates", keys.path("server"), "--tls-psk", keys.psk, "--tls-verify", "--handshake-ms", "3000"]
    tests = [read_write_model, big_transfers, both_versions, wrong_certificates_stay_out, pre_shared_keys, exports_by_identity,
             starttls_rules, plaintext_around_starttls, garbage_inside_tls, half_open_handshakes, byte_by_byte, reader_that_stops,
             last_reply_that_just_does_not_fit, many_connections, handshakes_by_the_hundred, extended_through_tls, vanish_in_the_middle, by_qemu]
    failed = 0
    for required in (False, True):
        server = Server(binary, *both, *(["--tls-require"] if required else []))
        server.required = required
        if not required:
            failed += run_tests(tests, server)
        else:
            failed += run_tests([nothing_but_starttls_where_it_is_required, starttls_rules, exports_by_identity, pre_shared_keys], server)
        server.stop()
    server = Server(binary, *both, "--tls-allow", "bob@example.org", "--tls-allow", "dave")
    failed += run_tests([only_names_that_are_allowed], server)
    server.stop()
    failed += run_tests([stop_with_clients_open, bad_keys_are_refused], binary)
    shutil.rmtree(keys.dir)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
