"""What walk.py knows of volumes, and the clients that write to them.

A volume is blocks of 4 KiB; each write of a client has a number of its own, with which it fills its blocks (0: zeros). Of every
block the model has the set of numbers that it may hold: one, as a rule; several while a write is under way, or after a kill, when
all since the last flush may be there or not. Clients of one volume have blocks of their own, so that the order of writes to a
block is known.
"""
import array
import random
import threading
import time

import nbd

BLOCK = 4096
WORDS = BLOCK // 8     # 64-bit numbers in a block
SECTOR_WORDS = 512 // 8


def sectors(data, block):
    """The numbers at both ends of each sector of a block."""
    at = range(block * WORDS, (block + 1) * WORDS, SECTOR_WORDS)
    return {data[i] for i in at} | {data[i + SECTOR_WORDS - 1] for i in at}


def numbers(raw):
    data = array.array("Q")
    data.frombytes(raw)
    return data


class Wrong(Exception):
    """A client has read what it must not."""


class Numbers:
    """Each write's own."""

    def __init__(self):
        self.last = 0
        self.lock = threading.Lock()

    def next(self):
        with self.lock:
            self.last += 1
            return self.last


class Volume:
    def __init__(self, name, pool, n_blocks, content=None):
        self.name, self.pool, self.n_blocks = name, pool, n_blocks
        self.lock = threading.Lock()
        self.now = content or [{0} for _ in range(n_blocks)]  # what a read may find
        self.durable = [set(x) for x in self.now]             # and after a kill
        self.under_way = {}                                   # block -> number
        self.window = None                                    # what blocks may have held at some moment since it was opened
        self.writers = []
        self.is_fuzzy = False                                 # it is being rolled back under its clients

    def full(self):
        return self.pool + "/" + self.name

    def open_window(self):
        """A snapshot may be of any moment from here to close_window()."""
        with self.lock:
            self.window = [set(x) for x in self.now]
            for block, number in self.under_way.items():
                self.window[block].add(number)

    def close_window(self):
        with self.lock:
            window, self.window = self.window, None
            return window

    def crash(self):
        self.under_way = {}
        self.now = [x | y for x, y in zip(self.now, self.durable)]

    def begin(self, blocks, number):
        with self.lock:
            for b in blocks:
                self.durable[b].add(number)
                self.under_way[b] = number
                self.now[b] = self.now[b] | {number}
                if self.window:
                    self.window[b].add(number)

    def end(self, blocks, number, is_done):
        with self.lock:
            for b in blocks:
                if is_done and not self.is_fuzzy:
                    self.now[b] = {number}
                self.under_way.pop(b, None)

    def flushed(self, blocks):
        with self.lock:
            if self.is_fuzzy:
                return False
            for b in blocks:
                self.durable[b] = set(self.now[b])
            return True


class Writer(threading.Thread):
    """One connection: random requests to every n-th run of four blocks, until it is told to stop or has an error."""

    def __init__(self, volume, turn, n, uri, numbers_of, seed):
        super().__init__(daemon=True)
        self.volume, self.turn, self.n, self.numbers = volume, turn, n, numbers_of
        self.random = random.Random(seed)
        self.stop = False
        self.error = None          # a sentence
        self.is_wrong = False      # it has read what it must not
        self.since = None          # when the request under way began
        self.unflushed = set()
        self.nbd = nbd.NBD()
        self.nbd.connect_uri(uri)

    def pick(self):
        """A run of blocks, within one of ours."""
        count = self.random.choice([1, 1, 1, 2, 3, 4])
        group = self.random.randrange((self.volume.n_blocks // 4) // self.n) * self.n + self.turn
        first = group * 4 + self.random.randrange(5 - count)
        return range(first, first + count)

    def read(self, blocks):
        v = self.volume
        data = numbers(self.nbd.pread(len(blocks) * BLOCK, blocks[0] * BLOCK))
        for i, b in enumerate(blocks):
            found = sectors(data, i)
            if not v.is_fuzzy and not found <= v.now[b]:
                raise Wrong("block %d has %s, and not of %s" % (b, found, v.now[b]))

    def flush(self):
        was_fuzzy = self.volume.is_fuzzy
        self.nbd.flush()
        if not was_fuzzy and self.volume.flushed(self.unflushed):
            self.unflushed = set()

    def change(self, blocks, clear):
        number = 0 if clear else self.numbers.next()
        self.volume.begin(blocks, number)
        self.unflushed |= set(blocks)
        off, length = blocks[0] * BLOCK, len(blocks) * BLOCK
        is_done = True
        try:
            if clear:
                clear(length, off)
            else:
                self.nbd.pwrite(array.array("Q", [number] * (length // 8)).tobytes(), off)
        except nbd.Error as e:
            if "No space" not in str(e):
                raise
            is_done = False
        self.volume.end(blocks, number, is_done)

    def one(self):
        blocks = self.pick()
        kind = self.random.random()
        self.since = time.time()
        if kind < .25:
            self.read(blocks)
        elif kind < .30:
            self.flush()
        else:
            self.change(blocks, self.nbd.zero if kind < .35 else self.nbd.trim if kind < .40 else None)
        self.since = None

    def run(self):
        try:
            while not self.stop:
                self.one()
                if self.random.random() < .3:
                    time.sleep(self.random.random() * .004)
            self.flush()
            self.nbd.shutdown()
        except Wrong as e:
            self.error, self.is_wrong = str(e), True
        except nbd.Error as e:
            self.error = str(e)


def difference(uri, model, narrow):
    """Reads all of an export: a sentence if it is not of the model; narrow: from now on it is what has been found."""
    try:
        h = nbd.NBD()
        h.connect_uri(uri)
        size = h.get_size()
        raw = b"".join(h.pread(min(1 << 20, size - off), off) for off in range(0, size, 1 << 20))
        h.shutdown()
    except nbd.Error as e:
        return "cannot be read: %s" % e
    if size != len(model) * BLOCK:
        return "has %d bytes, and not %d" % (size, len(model) * BLOCK)
    data = numbers(raw)
    for b, may in enumerate(model):
        found = sectors(data, b)
        if not found <= may:
            return "block %d has %s, and not of %s" % (b, found, may)
        if narrow and len(found) < len(may):
            model[b] = found
    return None
