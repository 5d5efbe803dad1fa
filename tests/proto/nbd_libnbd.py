#!/usr/bin/python3
"""nbd_libnbd.py SERVER: the NBD server against libnbd, as an ordinary client uses it."""
import errno
import os
import random
import sys

import nbd

sys.path.insert(0, os.path.dirname(__file__))
from nbd_rig import Server, run_tests  # noqa: E402

MIB = 1 << 20


def connect(server, export="mem", structured=True, contexts=True, strict=None):
    h = nbd.NBD()
    h.set_export_name(export)
    h.set_request_structured_replies(structured)
    h.set_full_info(True)
    if strict is not None:
        h.set_strict_mode(strict)
    if contexts and structured:
        h.add_meta_context("base:allocation")
    h.connect_unix(server.path)
    return h


def fails(code, f, *args, **kw):
    try:
        f(*args, **kw)
    except nbd.Error as e:
        assert e.errnum == code, "errno %s, not %s (%s)" % (e.errnum, code, e)
        return
    raise AssertionError("did not fail")


def extents(h, length, off, flags=0):
    out = []

    def each(ctx, at, ext, err):
        assert ctx == "base:allocation" and at == off
        out.extend(zip(ext[::2], ext[1::2]))
        return 0

    h.block_status(length, off, each, flags)
    return out


def read_write(server):
    for structured in (True, False):
        h = connect(server, structured=structured)
        assert h.get_structured_replies_negotiated() == structured
        rng = random.Random(structured)
        for n in (512, 4096, 65536, MIB, 5 * MIB, 32 * MIB):
            off = rng.randrange((64 * MIB - n) // 512 + 1) * 512
            data = rng.randbytes(n)
            h.pwrite(data, off)
            assert h.pread(n, off) == data
        h.shutdown()


def model(server):
    """Random asynchronous operations with many in flight against a bytearray."""
    h = connect(server)
    size, rng = 4 * MIB, random.Random(7)
    h.zero(size, 0)
    want = bytearray(size)
    for _ in range(30):
        todo, reads, used = [], [], []
        for _ in range(40):
            n = rng.choice((512, 1024, 4096, 65536, 200 * 512))
            off = rng.randrange((size - n) // 512) * 512
            if any(off < b and a < off + n for a, b in used):
                continue
            used.append((off, off + n))
            op = rng.randrange(4)
            if op == 0:
                data = rng.randbytes(n)
                todo.append(h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), off))
                want[off : off + n] = data
            elif op == 1:
                todo.append(h.aio_zero(n, off, flags=rng.choice((0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA))))
                want[off : off + n] = bytes(n)
            else:
                b = nbd.Buffer(n)
                todo.append(h.aio_pread(b, off))
                reads.append((b, off, n))
        for c in todo:
            while not h.aio_command_completed(c):
                h.poll(-1)
        for b, off, n in reads:
            assert b.to_bytearray() == want[off : off + n]
    assert h.pread(size, 0) == want
    h.shutdown()


def flags_and_sizes(server):
    h = connect(server)
    assert h.get_size() == 64 * MIB and not h.is_read_only()
    assert h.can_flush() and h.can_fua() and h.can_trim() and h.can_zero() and h.can_fast_zero() and h.can_cache()
    assert h.can_df() and h.can_multi_conn() and h.can_meta_context("base:allocation")
    assert h.get_block_size(nbd.SIZE_MINIMUM) == 512
    assert h.get_block_size(nbd.SIZE_PREFERRED) == 4096
    assert h.get_block_size(nbd.SIZE_MAXIMUM) == 32 * MIB
    assert h.get_canonical_export_name() == "mem" and h.get_export_description() == "plain memory"
    h.shutdown()
    h = connect(server, "block4k")
    assert h.get_block_size(nbd.SIZE_MINIMUM) == 4096 and h.get_block_size(nbd.SIZE_PREFERRED) == 65536
    h.shutdown()
    h = connect(server, "", contexts=False)
    assert h.get_size() == 64 * MIB and h.get_canonical_export_name() == "mem"
    h.shutdown()


def block_status(server):
    h = connect(server, "nofast")
    assert extents(h, 16 * MIB, 0) == [(16 * MIB, 3)]
    h.pwrite(b"x" * 4096, MIB)
    h.pwrite(b"x" * 4096, MIB + 4096)
    h.zero(8192, 2 * MIB, nbd.CMD_FLAG_NO_HOLE)
    assert extents(h, 16 * MIB, 0) == [(MIB, 3), (8192, 0), (MIB - 8192, 3), (8192, 0), (14 * MIB - 8192, 3)]
    assert extents(h, 512, MIB, nbd.CMD_FLAG_REQ_ONE) == [(512, 0)]
    assert extents(h, MIB, MIB, nbd.CMD_FLAG_REQ_ONE) == [(8192, 0)]
    h.zero(MIB, MIB)
    assert extents(h, 2 * MIB, 0) == [(2 * MIB, 3)]
    h.shutdown()


def fragmented_status(server):
    """More extents than fit into one reply: the client comes to the end by asking again."""
    h = connect(server)
    h.zero(64 * MIB, 0)
    for i in range(0, 8000, 2):
        h.pwrite(b"y" * 512, i * 4096)
    off, n = 0, 0
    while off < 64 * MIB:
        got = extents(h, 64 * MIB - off, off)
        off += sum(x[0] for x in got)
        n += len(got)
    assert off == 64 * MIB and 8000 <= n <= 8010, (off, n)
    h.zero(64 * MIB, 0)
    h.shutdown()


def trim_cache_flush_fua(server):
    h = connect(server)
    h.pwrite(b"z" * MIB, 0, nbd.CMD_FLAG_FUA)
    h.trim(65536, 0, nbd.CMD_FLAG_FUA)
    assert h.pread(65536, 0) == bytes(65536) and h.pread(512, 65536) == b"z" * 512
    h.cache(MIB, 0)
    h.cache(64 * MIB, 0)
    h.zero(64 * MIB, 0, nbd.CMD_FLAG_FAST_ZERO)
    assert h.pread(MIB, 0) == bytes(MIB)
    h.flush()
    h.shutdown()


def fast_zero_and_trim_refused(server):
    h = connect(server, "nofast", strict=0)
    fails(errno.ENOTSUP, h.zero, 4096, 0, nbd.CMD_FLAG_FAST_ZERO)
    h.zero(4096, 0)
    fails(errno.EINVAL, h.trim, 4096, 0)
    h.shutdown()


def structured_read(server):
    h = connect(server)
    h.pwrite(b"q" * 3 * MIB, 512)
    seen = []

    def chunk(buf, off, status, err):
        seen.append((len(buf), off, status))
        return 0

    assert h.pread_structured(3 * MIB, 512, chunk, nbd.CMD_FLAG_DF) == b"q" * 3 * MIB
    assert seen == [(3 * MIB, 512, nbd.READ_DATA)]
    h.shutdown()


def refusals(server):
    for structured in (True, False):
        h = connect(server, structured=structured, strict=0)
        end = 64 * MIB
        fails(errno.EINVAL, h.pread, 512, 1)
        fails(errno.EINVAL, h.pread, 511, 0)
        fails(errno.EINVAL, h.pread, 512, end)
        fails(errno.EINVAL, h.pread, 1024, end - 512)
        fails(errno.EINVAL, h.pread, 512, (1 << 63) - 512)
        fails(errno.ENOSPC, h.pwrite, bytes(512), end)
        fails(errno.ENOSPC, h.pwrite, bytes(1024), end - 512)
        fails(errno.EINVAL, h.pwrite, bytes(512), 8)
        fails(errno.EINVAL, h.pwrite, bytes(100), 0)
        fails(errno.ENOSPC, h.zero, 1024, end - 512)
        fails(errno.EINVAL, h.trim, 1024, end - 512)
        fails(errno.EINVAL, h.cache, 1024, end - 512)
        fails(errno.EOVERFLOW if structured else errno.EINVAL, h.pread, 33 * MIB, 0)
        fails(errno.EINVAL, h.pwrite, bytes(33 * MIB), 0)
        assert h.pread(512, end - 512) == bytes(512)
        h.shutdown()
    h = connect(server, "block4k", strict=0)
    fails(errno.EINVAL, h.pread, 512, 0)
    fails(errno.EINVAL, h.pwrite, bytes(4096), 512)
    h.pwrite(bytes(4096), 4096)
    h.shutdown()


def read_only(server):
    h = connect(server, "ro", strict=0)
    assert h.is_read_only() and not h.can_trim() and not h.can_zero()
    fails(errno.EPERM, h.pwrite, bytes(512), 0)
    fails(errno.EPERM, h.zero, 512, 0)
    fails(errno.EPERM, h.trim, 512, 0)
    assert h.pread(512, 0) == bytes(512)
    h.flush()
    h.shutdown()


def device_errors(server):
    h = connect(server, "faulty")
    fails(errno.EIO, h.pread, 4096, MIB)
    fails(errno.EIO, h.pwrite, bytes(4096), MIB)
    fails(errno.EIO, h.pread, 8 * MIB, 0)
    assert h.pread(4096, 0) == bytes(4096)
    h.shutdown()


def multi_conn(server):
    hs = [connect(server) for _ in range(8)]
    for i, h in enumerate(hs):
        h.pwrite(bytes([i]) * 4096, i * 4096)
    hs[0].flush()
    for i in range(8):
        for h in hs:
            assert h.pread(4096, i * 4096) == bytes([i]) * 4096
    for h in hs:
        h.shutdown()


def options(server):
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.set_full_info(True)
    h.add_meta_context("base:allocation")
    h.connect_unix(server.path)
    seen = []
    assert h.opt_list(lambda n, d: seen.append((n, d)) or 0) == 7
    assert seen[0] == ("mem", "plain memory") and [x[0] for x in seen] == ["mem", "ro", "block4k", "slow", "faulty", "nofast", "huge"]
    h.set_export_name("ro")
    h.opt_info()
    assert h.is_read_only() and h.get_size() == 64 * MIB
    h.set_export_name("none")
    fails(errno.ENOENT, h.opt_info)
    fails(errno.ENOENT, h.opt_go)
    ctx = []
    h.set_export_name("mem")
    assert h.opt_list_meta_context(lambda c: ctx.append(c) or 0) == 1 and ctx == ["base:allocation"]
    h.opt_go()
    assert h.pread(512, 0) is not None
    h.shutdown()
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.connect_unix(server.path)
    h.opt_abort()


def tls_is_not_offered(server):
    h = nbd.NBD()
    h.set_tls(nbd.TLS_ALLOW)
    h.connect_unix(server.path)
    assert not h.get_tls_negotiated()
    h.shutdown()


def disc_waits_for_what_is_in_flight(server):
    h = connect(server, "slow")
    bufs = [nbd.Buffer(4096) for _ in range(32)]
    cookies = [h.aio_pread(b, i * 4096) for i, b in enumerate(bufs)]
    h.shutdown()  # waits for the replies, then sends DISC
    assert all(h.aio_command_completed(c) for c in cookies)


def main():
    server = Server(sys.argv[1])
    tests = [read_write, model, flags_and_sizes, block_status, fragmented_status, trim_cache_flush_fua,
             fast_zero_and_trim_refused, structured_read, refusals, read_only, device_errors, multi_conn, options,
             tls_is_not_offered, disc_waits_for_what_is_in_flight]
    failed = run_tests(tests, server)
    server.stop()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
