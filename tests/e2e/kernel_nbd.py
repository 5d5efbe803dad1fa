#!/usr/bin/python3
"""kernel_nbd.py connect|reconnect INDEX CONNECTIONS HOST PORT EXPORT: gives the kernel's NBD driver connections to an export, as nbd-client
does, but so that requests wait while there is no server (a time limit for dead connections), and new connections can be put in the place
of dead ones (reconnect, which waits for the server). Runs in the guest."""
import socket
import struct
import sys
import time

CONNECT, RECONFIGURE = 1, 3
REQUEST_SECONDS, DEAD_SECONDS = 15, 200


def handshake(host, port, export):
    """A socket in transmission, the size, the flags."""
    s = socket.create_connection((host, port), timeout=20)
    f = s.makefile("rwb")
    assert f.read(18)[:16] == b"NBDMAGICIHAVEOPT"
    name = export.encode()
    data = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
    f.write(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 7, len(data)) + data)
    f.flush()
    size = flags = None
    while True:
        _, _, kind, n = struct.unpack(">QIII", f.read(20))
        data = f.read(n)
        if kind == 1:
            break
        assert kind == 3, kind
        if data[:2] == b"\0\0":
            size, flags = struct.unpack(">QH", data[2:])
    s.settimeout(None)
    return s, size, flags


def attr(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def call(nl, family, command, attrs):
    """An answer's attributes, or b"" for an acknowledgement."""
    msg = struct.pack("=BBH", command, 1, 0) + attrs
    nl.send(struct.pack("=IHHII", 16 + len(msg), family, 5, 1, 0) + msg)
    answer = b""
    while True:
        got = nl.recv(65536)
        kind = struct.unpack_from("=H", got, 4)[0]
        if kind == 2:
            error = struct.unpack_from("=i", got, 16)[0]
            if error:
                raise OSError(-error, "netlink")
            return answer
        answer = got[20:]


def family_of(nl, name):
    data = call(nl, 16, 3, attr(2, name + b"\0"))
    while data:
        n, kind = struct.unpack_from("=HH", data)
        if kind == 1:
            return struct.unpack_from("=H", data, 4)[0]
        data = data[(n + 3) & ~3:]


def all_connected(n, *where):
    until = time.monotonic() + 120
    while True:
        try:
            return [handshake(*where) for _ in range(n)]
        except (OSError, AssertionError, struct.error):
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


what, index, n, host, port, export = sys.argv[1:]
held = all_connected(int(n), host, int(port), export)
sockets = b"".join(attr(1, attr(1, struct.pack("=I", s.fileno()))) for s, _, _ in held)
attrs = attr(1, struct.pack("=I", int(index))) + attr(7, sockets)
if what == "connect":
    for kind, value in (2, held[0][1]), (3, 4096), (4, REQUEST_SECONDS), (5, held[0][2]), (8, DEAD_SECONDS):
        attrs += attr(kind, struct.pack("=Q", value))
nl = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
nl.bind((0, 0))
call(nl, family_of(nl, b"nbd"), CONNECT if what == "connect" else RECONFIGURE, attrs)
