"""A client that knows what was completed: what a daemon that is killed has promised, seen from outside.

stamp.py write URI STATE SECONDS SEED    random requests until the server dies or the time is over; keeps its knowledge in STATE
stamp.py check URI STATE                 reads everything back: each sector must be as the last completed request left it, or
                                         as one that was under way; twice the same; then what was read is the new base
stamp.py self                            does it know what it claims to know?

Every 512-byte sector carries its own number and that of the request that wrote it. Two connections; no two requests in
flight touch the same 4 KiB block, so the order of writes to a sector is known.
"""
import pickle
import random
import sys
import time

import nbd

SECTOR = 512
BLOCK = 4096
SPAN = 96 << 20  # of the volume that is used
ZERO = 0
MAX_IN_FLIGHT = 24


def stamp(sector, version):
    if version == ZERO:
        return bytes(SECTOR)
    head = b"ASHL" + sector.to_bytes(6, "little") + version.to_bytes(6, "little")
    return head * (SECTOR // 16)


def version_of(sector, data):
    """The version that the sector carries, None if it is not one of ours."""
    if data == bytes(SECTOR):
        return ZERO
    v = int.from_bytes(data[10:16], "little")
    return v if data == stamp(sector, v) else None


class State:
    def __init__(self):
        self.version = 0
        self.base = {}     # sector -> version that must be there; not there: zeros
        self.newer = {}    # sector -> versions written since, in order
        self.zeros = set() # versions that are zeros on the disk: of zeroing and trimming, which have numbers like any other request
        self.flushes = 0

    def allowed(self, sector):
        """What may be read there: the last that is durable, and what was written since."""
        return [ZERO if v in self.zeros else v for v in [self.base.get(sector, ZERO)] + self.newer.get(sector, [])]

    def save(self, path):
        with open(path, "wb") as f:
            pickle.dump(self, f)


def load(path):
    try:
        with open(path, "rb") as f:
            return pickle.load(f)
    except FileNotFoundError:
        return State()


def connect(uri):
    h = nbd.NBD()
    h.connect_uri(uri)
    return h


class Request:
    def __init__(self, kind, first, n, fua):
        self.kind, self.first, self.n, self.fua = kind, first, n, fua
        self.blocks = set(range(first * SECTOR // BLOCK, (first + n - 1) * SECTOR // BLOCK + 1))
        self.version = None
        self.buf = None


class Writer:
    def __init__(self, uri, st, seed):
        self.h = [connect(uri), connect(uri)]
        self.st = st
        self.rng = random.Random(seed)
        self.busy = set()      # blocks with a request in flight
        self.flight = {}       # (connection, cookie) -> Request
        self.completed = []    # writes completed, not yet covered by a completed flush
        self.n = 0

    def pick(self):
        r = self.rng
        kind = r.choices(["write", "zero", "trim"], [90, 5, 5])[0]
        n = r.choice([1, 2, 7, 8, 8, 8, 8, 8, 16, 33, 128, 256] if kind == "write" else [8, 16, 128, 512])
        hot = r.random() < 0.5  # half of all requests meet in a small area: overwrites
        span = (4 << 20 if hot else SPAN) // SECTOR
        first = r.randrange(span - n)
        # A trim leaves what is less than a block as it was.
        if kind == "trim" or (n >= 8 and r.random() < 0.8):
            first &= ~7
        return kind, first, n

    def enter(self, req):
        """From now on it may be there."""
        st = self.st
        st.version += 1
        req.version = st.version
        if req.kind != "write":
            st.zeros.add(req.version)
        for s in range(req.first, req.first + req.n):
            st.newer.setdefault(s, []).append(req.version)
        return req

    def submit(self):
        kind, first, n = self.pick()
        req = Request(kind, first, n, False)
        if req.blocks & self.busy:
            return
        req.fua = self.rng.random() < 0.05
        self.busy |= req.blocks
        v = self.enter(req).version
        c = self.rng.randrange(len(self.h))
        h = self.h[c]
        flags = nbd.CMD_FLAG_FUA if req.fua else 0
        if kind == "write":
            req.buf = nbd.Buffer.from_bytearray(bytearray(b"".join(stamp(s, v) for s in range(first, first + n))))
            cookie = h.aio_pwrite(req.buf, first * SECTOR, flags=flags)
        elif kind == "zero":
            cookie = h.aio_zero(n * SECTOR, first * SECTOR, flags=flags)
        else:
            cookie = h.aio_trim(n * SECTOR, first * SECTOR, flags=flags)
        self.flight[c, cookie] = req
        self.n += 1

    def reap(self):
        for (c, cookie), req in list(self.flight.items()):
            if not self.h[c].aio_command_completed(cookie):
                continue
            del self.flight[c, cookie]
            self.busy -= req.blocks
            (self.settle([req]) if req.fua else self.completed.append(req))

    def settle(self, reqs):
        """These are durable: what lies before them can no longer come back."""
        st = self.st
        for q in reqs:
            for s in range(q.first, q.first + q.n):
                newer = st.newer.get(s)
                if newer is None or q.version not in newer: # a later one was durable before
                    continue
                i = newer.index(q.version)
                st.base[s] = q.version
                del newer[:i + 1]
                if not newer:
                    del st.newer[s]

    def flush(self):
        """A flush on one connection covers what completed on both; others go on meanwhile."""
        covered = self.completed
        self.completed = []
        h = self.h[self.rng.randrange(len(self.h))]
        cookie = h.aio_flush()
        while not h.aio_command_completed(cookie):
            self.poll()
        self.settle(covered)
        self.st.flushes += 1

    def poll(self):
        for h in self.h:
            h.poll(0)
        self.reap()

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while len(self.flight) < MAX_IN_FLIGHT:
                self.submit()
            self.h[0].poll(1)
            self.poll()
            if self.rng.random() < 0.02:
                self.flush()
        while self.flight:
            self.poll()
        self.flush()


def do_write(uri, path, seconds, seed):
    st = load(path)
    w = Writer(uri, st, seed)
    try:
        w.run(seconds)
        end = "the time was over"
    except nbd.Error:
        end = "the server was gone"
    w.settle(w.completed)  # the machine has not lost its power
    st.save(path)
    print("%d requests, %d in flight, %d flushes so far; %s" % (w.n, len(w.flight), st.flushes, end))


def read_all(h):
    out = []
    step = 1 << 20
    for off in range(0, SPAN, step):
        out.append(bytes(h.pread(step, off)))
    return b"".join(out)


def do_check(uri, path):
    st = load(path)
    h = connect(uri)
    data = read_all(h)
    zero = bytes(SECTOR)
    bad = 0
    touched = 0
    seen = {}
    for s in range(SPAN // SECTOR):
        d = data[s * SECTOR:(s + 1) * SECTOR]
        allowed = st.allowed(s)
        if d == zero and allowed[0] == ZERO:
            v = ZERO
        else:
            v = version_of(s, d)
        touched += allowed != [ZERO]
        if v not in allowed:
            bad += 1
            if bad <= 5:
                print("sector %d: has %s, completed is %d, under way %s; starts %s" % (s, v, allowed[0], allowed[1:], d[:16].hex()))
        elif v != ZERO:
            seen[s] = v
    if read_all(h) != data:
        print("a second read differs")
        bad += 1
    h.flush()
    st.base = seen
    st.newer = {}
    st.zeros = set()
    st.save(path)
    print("%d sectors touched, %d wrong" % (touched, bad))
    return 1 if bad else 0


def do_self():
    """Zeros that are not flushed, a FUA write over them, and zeros again that are under way when the server dies."""
    w = Writer.__new__(Writer)
    w.st = State()
    old, write, new = [w.enter(Request(kind, 8, 8, fua)) for kind, fua in (("zero", False), ("write", True), ("trim", False))]
    w.settle([write])
    w.settle([old])
    ok = w.st.allowed(8) == [write.version, ZERO]
    w.settle([new])
    ok = ok and w.st.allowed(8) == [ZERO]
    print("ok" if ok else "wrong")
    return 0 if ok else 1


def main():
    if sys.argv[1:] == ["self"]:
        return do_self()
    cmd, uri, path = sys.argv[1:4]
    if cmd == "write":
        do_write(uri, path, float(sys.argv[4]), int(sys.argv[5]))
        return 0
    return do_check(uri, path)


sys.exit(main())
