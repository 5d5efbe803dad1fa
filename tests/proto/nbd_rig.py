"""Starts and stops nbd_mem_server for the protocol tests; the smallest raw NBD client."""
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time


class Server:
    def __init__(self, binary, *options):
        self.dir = tempfile.mkdtemp(prefix="nbd-test-")
        self.path = os.path.join(self.dir, "sock")
        with open(binary, "rb") as f:
            self.tsan = b"__tsan_init" in f.read()
        self.log = open(os.path.join(self.dir, "log"), "w+b")
        self.p = subprocess.Popen([binary, "unix:" + self.path, *options], stdout=subprocess.PIPE, stderr=self.log)
        line = self.p.stdout.readline()
        assert line.startswith(b"ready"), line

    def uri(self, export):
        return "nbd+unix:///%s?socket=%s" % (export, self.path)

    def rss_kib(self):
        with open("/proc/%d/status" % self.p.pid) as f:
            return int([x for x in f if x.startswith("VmRSS")][0].split()[1])

    def memory_factor(self):
        """Sanitizers have shadows."""
        with open("/proc/%d/maps" % self.p.pid) as f:
            maps = f.read()
        return 8 if "libtsan" in maps or self.tsan else 3 if "libasan" in maps else 1

    def n_fds(self):
        return len(os.listdir("/proc/%d/fd" % self.p.pid))

    def log_text(self):
        self.log.flush()
        with open(self.log.name, "rb") as f:
            return f.read()

    def stop(self):
        """Orderly end: everything detached, exit status 0."""
        assert self.p.poll() is None, "the server died: %s" % self.log_text()[-2000:].decode(errors="replace")
        self.p.send_signal(signal.SIGTERM)
        try:
            out = self.p.communicate(timeout=30)[0]
        except subprocess.TimeoutExpired:
            self.p.kill()
            raise AssertionError("the server does not end")
        text = self.log_text()
        assert self.p.returncode == 0, (self.p.returncode, text[-3000:].decode(errors="replace"))
        assert b"attached 0" in out, out
        shutil.rmtree(self.dir)
        return text


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make_certificates(where, clients=("alice", "bob")):
    """An authority, a server's directory, one for each client, and one of a client that another authority has signed."""
    def cert(ca, out, name, cn, alt):
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        os.makedirs(os.path.join(where, out), exist_ok=True)
        path = os.path.join(where, out, name)
        openssl("req", "-x509", *key, "-subj", "/CN=" + cn, "-CA", os.path.join(where, ca, "ca-cert.pem"), "-CAkey",
                os.path.join(where, ca, "ca-key.pem"), "-addext", "basicConstraints=critical,CA:FALSE", "-addext",
                "subjectAltName=" + alt, "-keyout", path + "-key.pem", "-out", path + "-cert.pem")
        with open(os.path.join(where, ca, "ca-cert.pem")) as a, open(os.path.join(where, out, "ca-cert.pem"), "w") as b:
            b.write(a.read())
    for ca in ("ca", "other-ca"):
        os.makedirs(os.path.join(where, ca))
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=" + ca,
                "-keyout", os.path.join(where, ca, "ca-key.pem"), "-out", os.path.join(where, ca, "ca-cert.pem"))
    cert("ca", "server", "server", "localhost", "DNS:localhost,IP:127.0.0.1")
    for c in clients:
        cert("ca", c, "client", c, "DNS:%s.example,email:%s@example.org" % (c, c))
    cert("other-ca", "mallory", "client", "alice", "DNS:alice.example")


OPT = {"EXPORT_NAME": 1, "ABORT": 2, "LIST": 3, "STARTTLS": 5, "INFO": 6, "GO": 7, "STRUCTURED": 8, "LIST_META": 9, "SET_META": 10,
       "EXTENDED": 11}
PAYLOAD_LEN = 32
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZERO, STATUS = range(8)


class Raw:
    """A raw connection; every receive has a time limit."""

    def __init__(self, server, flags=3, timeout=10):
        self.extended = False
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(timeout)
        self.s.connect(server.path)
        if flags is not None:
            self.recv(18)
            self.send(struct.pack(">I", flags))

    def send(self, data):
        self.s.sendall(data)

    def recv(self, n):
        out = b""
        while len(out) < n:
            x = self.s.recv(n - len(out))
            if not x:
                raise EOFError("closed after %d of %d bytes" % (len(out), n))
            out += x
        return out

    def closed(self):
        """Reads what is left until the server closes; False if it does not within the limit."""
        try:
            while self.s.recv(1 << 16):
                pass
        except socket.timeout:
            return False
        except OSError:
            pass
        return True

    def option(self, opt, data=b"", length=None):
        self.send(b"IHAVEOPT" + struct.pack(">II", opt, len(data) if length is None else length) + data)

    def option_reply(self):
        magic, opt, typ, n = struct.unpack(">QIII", self.recv(20))
        assert magic == 0x3E889045565A9
        return typ, self.recv(n)

    def go(self, name=b"mem", structured=False, extended=False, contexts=()):
        if extended:
            self.option(OPT["EXTENDED"])
            assert self.option_reply()[0] == 1
            self.extended = True
        if structured:
            self.option(OPT["STRUCTURED"])
            assert self.option_reply()[0] == 1
        if contexts:
            data = struct.pack(">I", len(name)) + name + struct.pack(">I", len(contexts))
            self.option(OPT["SET_META"], data + b"".join(struct.pack(">I", len(c)) + c for c in contexts))
            while self.option_reply()[0] == 4:
                pass
        self.option(OPT["GO"], struct.pack(">I", len(name)) + name + b"\0\0")
        while True:
            typ, _ = self.option_reply()
            if typ == 1:
                return self
            assert typ == 3, hex(typ)

    def request(self, cmd, off=0, length=0, flags=0, cookie=1, payload=b"", magic=0x25609513):
        if self.extended:
            flags |= PAYLOAD_LEN if payload else 0
            self.send(struct.pack(">IHHQQQ", 0x21E41C71, flags, cmd, cookie, off, length) + payload)
            return
        self.send(struct.pack(">IHHQQI", magic, flags, cmd, cookie, off, length) + payload)

    def simple_reply(self):
        magic, error, cookie = struct.unpack(">IIQ", self.recv(16))
        assert magic == 0x67446698, hex(magic)
        return error, cookie

    def reply(self, off=None):
        """One reply with extended headers: (error, cookie, chunks of (type, payload))."""
        chunks, error, done = [], 0, 0
        while not done:
            magic, done, typ, cookie, at, n = struct.unpack(">IHHQQQ", self.recv(32))
            assert magic == 0x6E8A278C and n < 1 << 26 and (off is None or at == off), (hex(magic), n, at)
            body = self.recv(n)
            if typ == 0x8001:
                error = struct.unpack_from(">I", body)[0]
            chunks.append((typ, body))
        return error, cookie, chunks

    def close(self):
        self.s.close()


def run_tests(tests, *args):
    failed = 0
    for t in tests:
        start = time.time()
        try:
            t(*args)
            print("ok   %-50s %.1f s" % (t.__name__, time.time() - start))
        except Exception as e:  # noqa: any failure of one test is one line and the run goes on
            failed += 1
            import traceback

            traceback.print_exc()
            print("FAIL %s: %r" % (t.__name__, e))
        sys.stdout.flush()
    return failed
