"""A small iSCSI initiator for tests: it sends what it is told to, right or wrong, and takes apart what comes back."""
import hashlib
import os
import socket
import struct

CRC = []
for _n in range(256):
    _c = _n
    for _ in range(8):
        _c = _c >> 1 ^ (0x82F63B78 if _c & 1 else 0)
    CRC.append(_c)


def crc32c(data):
    c = 0xFFFFFFFF
    for b in data:
        c = CRC[(c ^ b) & 255] ^ c >> 8
    return struct.pack("<I", c ^ 0xFFFFFFFF)


NONE = 0xFFFFFFFF
HASHES = {"5": "md5", "6": "sha1", "7": "sha256", "8": "sha3_256"}


class Closed(Exception):
    pass


class Refused(Exception):
    def __init__(self, status):
        super().__init__("login status %04x" % status)
        self.status = status


class Pdu:
    def __init__(self, bhs, data):
        self.bhs, self.data = bhs, data
        self.opcode, self.flags = bhs[0] & 0x3F, bhs[1]
        self.itt, self.ttt = struct.unpack(">II", bhs[16:24])
        self.sn, self.exp, self.max = struct.unpack(">III", bhs[24:36])

    def text(self):
        return [tuple(kv.split("=", 1)) for kv in self.data.decode().split("\0") if kv]


class Initiator:
    def __init__(self, addr, name="iqn.2026-01.org.test:init", timeout=10, isid=None):
        self.sock = socket.create_connection(addr, timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.name = name
        self.isid = isid or b"\x80" + os.urandom(5)
        self.cmd_sn, self.stat_sn, self.itt = 1, 0, 0
        self.header_digest = self.data_digest = False
        self.keys = {}
        self.tsih = 0

    def close(self):
        self.sock.close()

    # ---- PDUs ----
    def send(self, bhs, data=b"", bad_header=False, bad_data=False):
        out = bytearray(bhs)
        out[5:8] = struct.pack(">I", len(data))[1:]
        if self.header_digest:
            d = crc32c(out)
            out += bytes([d[0] ^ 1]) + d[1:] if bad_header else d
        pad = b"\0" * (-len(data) % 4)
        out += data + pad
        if self.data_digest and data:
            d = crc32c(data + pad)
            out += bytes([d[0] ^ 1]) + d[1:] if bad_data else d
        self.sock.sendall(out)

    def exactly(self, n):
        out = b""
        while len(out) < n:
            part = self.sock.recv(n - len(out))
            if not part:
                raise Closed()
            out += part
        return out

    def recv(self):
        try:
            bhs = self.exactly(48)
            if self.header_digest and self.exactly(4) != crc32c(bhs):
                raise AssertionError("header digest")
            n = int.from_bytes(bhs[5:8], "big")
            data = self.exactly(n + -n % 4)
            if self.data_digest and n and self.exactly(4) != crc32c(data):
                raise AssertionError("data digest")
        except ConnectionError:
            raise Closed()
        return Pdu(bhs, data[:n])

    def next_itt(self):
        self.itt += 1
        return self.itt

    def bhs(self, opcode, flags, lun=0, itt=None, w20=0, immediate=False, cmd_sn=None, rest=b""):
        b = bytearray(48)
        b[0] = opcode | (0x40 if immediate else 0)
        b[1] = flags
        if lun < 256:
            b[9] = lun
        else:
            b[8:10] = struct.pack(">H", 0x4000 | lun)
        itt = self.next_itt() if itt is None else itt
        b[16:24] = struct.pack(">II", itt, w20)
        b[24:32] = struct.pack(">II", self.cmd_sn if cmd_sn is None else cmd_sn, self.stat_sn)
        b[32:32 + len(rest)] = rest
        if not immediate and cmd_sn is None and opcode != 5:
            self.cmd_sn = (self.cmd_sn + 1) & NONE
        return b

    # ---- login ----
    def login_bhs(self, flags, version=0):
        b = bytearray(48)
        b[0], b[1], b[2], b[3] = 0x43, flags, version, version
        b[8:14] = self.isid
        b[14:16] = struct.pack(">H", self.tsih)
        b[16:20] = struct.pack(">I", 1)
        b[24:32] = struct.pack(">II", self.cmd_sn, self.stat_sn)
        return b

    def login_step(self, csg, nsg, keys, transit=True, cont=False):
        """keys: list of pairs. Returns (transit, pairs)."""
        text = b"".join(("%s=%s" % kv).encode() + b"\0" for kv in keys)
        self.send(self.login_bhs((0x80 if transit else 0) | (0x40 if cont else 0) | csg << 2 | nsg), text)
        p = self.recv()
        assert p.opcode == 0x23, hex(p.opcode)
        status = int.from_bytes(p.bhs[36:38], "big")
        if status:
            raise Refused(status)
        self.stat_sn = p.sn + 1
        self.tsih_new = int.from_bytes(p.bhs[14:16], "big")
        return bool(p.flags & 0x80), p.text()

    def names(self, target):
        first = [("InitiatorName", self.name)]
        return first + ([("SessionType", "Normal"), ("TargetName", target)] if target else [("SessionType", "Discovery")])

    def chap(self, target, user, secret, mutual=None, algorithms="7,5", tamper=lambda keys: keys):
        _, got = self.login_step(0, 1, self.names(target) + [("AuthMethod", "CHAP,None")], transit=False)
        assert dict(got)["AuthMethod"] == "CHAP", got
        _, got = self.login_step(0, 1, [("CHAP_A", algorithms)], transit=False)
        got = dict(got)
        algorithm = HASHES[got["CHAP_A"]]
        self.challenge = bytes.fromhex(got["CHAP_C"][2:])
        answer = hashlib.new(algorithm, bytes([int(got["CHAP_I"])]) + secret.encode() + self.challenge).hexdigest()
        keys = [("CHAP_N", user), ("CHAP_R", "0x" + answer)]
        mine = os.urandom(16)
        if mutual:
            keys += [("CHAP_I", "77"), ("CHAP_C", "0x" + mine.hex())]
        transit, got = self.login_step(0, 1, tamper(keys))
        assert transit
        if mutual:
            got = dict(got)
            want = hashlib.new(algorithm, bytes([77]) + mutual[1].encode() + mine).hexdigest()
            assert got["CHAP_N"] == mutual[0] and int(got["CHAP_R"], 16) == int(want, 16), got

    def login(self, target, keys=(), user=None, secret=None, mutual=None, algorithms="7,5", security=True):
        """A whole login; what was agreed upon is in self.keys."""
        if user:
            self.chap(target, user, secret, mutual, algorithms)
            first = []
        elif security:
            self.login_step(0, 1, self.names(target) + [("AuthMethod", "None")])
            first = []
        else:
            first = self.names(target)
        done, got = self.login_step(1, 3, first + list(keys))
        assert done, got
        self.keys = dict(got)
        self.tsih = self.tsih_new
        self.header_digest = self.keys.get("HeaderDigest") == "CRC32C"
        self.data_digest = self.keys.get("DataDigest") == "CRC32C"
        return self

    # ---- full feature phase ----
    def command(self, cdb, read=0, write=b"", lun=0, immediate=True, edtl=None):
        """Sends a command and serves its data. Returns (status, data, sense, flags, residual)."""
        flags = 0x80 | (0x40 if read else 0) | (0x20 if write else 0) | 1
        edtl = (len(write) or read) if edtl is None else edtl
        now = write[:65536] if immediate else b""
        b = self.bhs(1, flags, lun, w20=edtl, rest=bytes(cdb).ljust(16, b"\0"))
        itt = int.from_bytes(b[16:20], "big")
        self.send(b, now)
        return self.finish(itt, write)

    def finish(self, itt, write=b""):
        data = bytearray()
        while True:
            p = self.recv()
            if p.opcode == 0x20 and p.ttt != NONE:
                self.pong(p)
                continue
            if p.itt != itt:
                continue
            if p.opcode == 0x31:
                off, n = struct.unpack(">II", p.bhs[40:48])
                self.data_out(itt, p.ttt, off, write[off:off + n])
            elif p.opcode == 0x25:
                off = int.from_bytes(p.bhs[40:44], "big")
                assert off == len(data)
                data += p.data
                if p.flags & 1:
                    self.stat_sn = p.sn + 1
                    return p.bhs[3], bytes(data), b"", p.flags & 6, int.from_bytes(p.bhs[44:48], "big")
            elif p.opcode == 0x21:
                self.stat_sn = p.sn + 1
                return p.bhs[3], bytes(data), p.data[2:], p.flags & 6, int.from_bytes(p.bhs[44:48], "big")
            else:
                raise AssertionError("opcode %02x" % p.opcode)

    def data_out(self, itt, ttt, off, data, piece=65536):
        for sn, at in enumerate(range(0, len(data), piece)):
            part = data[at:at + piece]
            rest = b"\0\0\0\0" + struct.pack(">II", sn, off + at)
            self.send(self.bhs(5, 0x80 if at + len(part) == len(data) else 0, itt=itt, w20=ttt, rest=rest), part)

    def pong(self, p):
        b = self.bhs(0, 0x80, itt=NONE, w20=p.ttt, immediate=True)
        self.send(b)

    def tmf(self, function, lun=0, ref=0, ref_sn=0):
        b = self.bhs(2, 0x80 | function, lun, w20=ref, immediate=True, rest=struct.pack(">I", ref_sn))
        self.send(b)
        itt = int.from_bytes(b[16:20], "big")
        while True:
            p = self.recv()
            if p.opcode == 0x22 and p.itt == itt:
                return p.bhs[2]

    def logout(self, reason=0):
        self.send(self.bhs(6, 0x80 | reason, immediate=True))
        while True:
            p = self.recv()
            if p.opcode == 0x26:
                return p.bhs[2]

    def send_targets(self, what="All"):
        out, ttt, text = b"", NONE, ("SendTargets=%s" % what).encode() + b"\0"
        while True:
            self.send(self.bhs(4, 0x80, w20=ttt, immediate=True), text)
            p = self.recv()
            assert p.opcode == 0x24, hex(p.opcode)
            out += p.data
            if p.flags & 0x80:
                return [tuple(kv.split("=", 1)) for kv in out.decode().split("\0") if kv]
            ttt, text = p.ttt, b""

    def ready(self, lun=0):
        """Takes unit attentions."""
        for _ in range(4):
            if self.command([0] * 6, lun=lun)[0] == 0:
                return True
        return False


def read10(lba, n):
    return struct.pack(">BBIBHB", 0x28, 0, lba, 0, n, 0)


def write10(lba, n):
    return struct.pack(">BBIBHB", 0x2A, 0, lba, 0, n, 0)
