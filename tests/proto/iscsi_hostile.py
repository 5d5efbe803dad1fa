#!/usr/bin/python3
"""What an iSCSI target has to bear: text keys of all kinds, CHAP with wrong proofs, PDUs that are out of place, data that is out of order,
task management, other tenants, half-open logins by the thousand. Against a daemon set up by tests/e2e/iscsi.sh:
  open target, LUN 0: demo/v;  secret target (chap alice, mutual bob), LUN 0: demo/a
  shared target, LUN 1: demo/a for iqn.2026-01.org.test:a alone, LUN 2: demo/b for ...:b alone
  mixed target, LUN 0: demo/a (chap alice), LUN 1: demo/v for everybody;  many target: demo/v, demo/b, demo/cu
usage: iscsi_hostile.py HOST PORT PID ASHLAR (the daemon's, and the command)"""
import os
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from iscsi_rig import NONE, Closed, Initiator, Refused, read10, write10

ADDR = (sys.argv[1], int(sys.argv[2]))
OPEN, SECRET, SHARED = "iqn.2026-01.org.test:open", "iqn.2026-01.org.test:secret", "iqn.2026-01.org.test:shared"
MIXED, MANY = "iqn.2026-01.org.test:mixed", "iqn.2026-01.org.test:many"
A, B = "iqn.2026-01.org.test:a", "iqn.2026-01.org.test:b"
USER, PASS, MUTUAL = "alice", "alice-secret-12", ("bob", "bob-secret-3456")
passed = failed = 0


def test(fn):
    global passed, failed
    try:
        fn()
        passed += 1
    except Exception as e:  # noqa: BLE001
        failed += 1
        print("iscsi_hostile: %s: %s: %s" % (fn.__name__, type(e).__name__, e))
    return fn


def session(target=OPEN, name="iqn.2026-01.org.test:init", isid=None, **kw):
    return Initiator(ADDR, name, isid=isid).login(target, **kw)


def refused(status, fn):
    try:
        fn()
    except Refused as e:
        assert e.status == status, "status %04x, not %04x" % (e.status, status)
        return
    raise AssertionError("it was let in")


def closed(i):
    """The target ends the connection, after whatever it still says."""
    try:
        while True:
            i.recv()
    except Closed:
        return


def report_luns(i):
    st, data, _, _, _ = i.command(struct.pack(">BB8xIBB", 0xA0, 0, 4096, 0, 0)[:1] + bytes(5) + struct.pack(">I", 4096) + bytes(2), read=4096)
    assert st == 0
    n = int.from_bytes(data[:4], "big") // 8
    return sorted(data[8 + 8 * k + 1] for k in range(n))


# ---- login ----
@test
def every_key_is_answered_as_it_should_be():
    offered = [("HeaderDigest", "None,CRC32C"), ("DataDigest", "X-foo,CRC32C,None"), ("MaxConnections", "8"), ("InitialR2T", "Yes"),
               ("ImmediateData", "No"), ("MaxRecvDataSegmentLength", "4096"), ("MaxBurstLength", "0x2000"), ("FirstBurstLength", "1024"),
               ("DefaultTime2Wait", "7"), ("DefaultTime2Retain", "99"), ("MaxOutstandingR2T", "3"), ("DataPDUInOrder", "No"),
               ("DataSequenceInOrder", "No"), ("ErrorRecoveryLevel", "2"), ("IFMarker", "Yes"), ("OFMarkInt", "1~2"),
               ("TaskReporting", "FastAbort,RFC3720"), ("iSCSIProtocolLevel", "2"), ("X-org.test.what", "ever"), ("Nonsense", "1"),
               ("NodeArchitecture", "pdp11")]
    got = session(keys=offered).keys
    want = {"HeaderDigest": "None", "DataDigest": "CRC32C", "MaxConnections": "1", "InitialR2T": "Yes", "ImmediateData": "No",
            "MaxBurstLength": "8192", "FirstBurstLength": "1024", "DefaultTime2Wait": "7", "DefaultTime2Retain": "0",
            "MaxOutstandingR2T": "3", "DataPDUInOrder": "Yes", "DataSequenceInOrder": "Yes", "ErrorRecoveryLevel": "0", "IFMarker": "No",
            "OFMarkInt": "Irrelevant", "TaskReporting": "RFC3720", "iSCSIProtocolLevel": "1", "X-org.test.what": "NotUnderstood",
            "Nonsense": "NotUnderstood"}
    for k, v in want.items():
        assert got.get(k) == v, "%s: %s, not %s" % (k, got.get(k), v)
    assert int(got["MaxRecvDataSegmentLength"]) >= 8192 and "NodeArchitecture" not in got


@test
def values_that_make_no_sense_are_rejected():
    got = session(keys=[("MaxBurstLength", "12"), ("InitialR2T", "Perhaps"), ("HeaderDigest", "MD5"), ("ErrorRecoveryLevel", "9"),
                        ("FirstBurstLength", "")]).keys
    for k in ("MaxBurstLength", "InitialR2T", "HeaderDigest", "ErrorRecoveryLevel", "FirstBurstLength"):
        assert got[k] == "Reject", got


@test
def keys_may_come_in_pieces():
    i = Initiator(ADDR)
    text = ("InitiatorName=%s\0SessionType=Normal\0TargetName=%s\0AuthMethod=None\0" % (i.name, OPEN)).encode()
    for at in range(0, len(text) - 20, 20):
        i.send(i.login_bhs(0x40), text[at:at + 20])
        p = i.recv()
        assert p.opcode == 0x23 and not p.data and not p.flags & 0xC0, p.flags
        at += 20
    i.send(i.login_bhs(0x81), text[at:])
    p = i.recv()
    assert p.flags & 0x80 and ("AuthMethod", "None") in p.text() and ("TargetPortalGroupTag", "1") in p.text(), p.text()
    assert i.login_step(1, 3, [])[0]
    assert i.ready()


@test
def a_discovery_session_needs_no_parameters_of_sessions():
    i = Initiator(ADDR).login(None, keys=[("MaxConnections", "1"), ("MaxBurstLength", "8192"), ("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C")])
    assert i.keys["MaxConnections"] == i.keys["MaxBurstLength"] == "Irrelevant", i.keys
    names = [v for k, v in i.send_targets() if k == "TargetName"]
    assert OPEN in names and SECRET in names and SHARED not in names, names
    assert [v for k, v in i.send_targets(OPEN)][0] == OPEN
    assert i.send_targets("iqn.2026-01.org.test:nothing") == []
    i.send(i.bhs(1, 0x80))
    assert i.recv().opcode == 0x3F
    assert i.logout() == 0
    closed(i)


@test
def wrong_logins_are_refused_with_their_status():
    refused(0x0203, lambda: session("iqn.2026-01.org.test:nothing"))
    refused(0x0203, lambda: session(SHARED))  # it is there, but not for this initiator
    refused(0x0203, lambda: session("not a name"))
    refused(0x0207, lambda: Initiator(ADDR).login_step(0, 1, [("SessionType", "Normal")]))
    refused(0x0207, lambda: Initiator(ADDR).login_step(0, 1, [("InitiatorName", "iqn.2026-01.org.test:init")]))
    refused(0x0209, lambda: Initiator(ADDR).login_step(0, 1, [("InitiatorName", A), ("SessionType", "Odd"), ("TargetName", OPEN)]))
    refused(0x0200, lambda: Initiator(ADDR, "Nobody").login_step(0, 1, Initiator(ADDR, "Nobody").names(OPEN)))
    refused(0x0200, lambda: session(keys=[("MaxBurstLength", "8192"), ("MaxBurstLength", "8192")]))
    refused(0x0201, lambda: session(OPEN, security=True) and session(SECRET))
    refused(0x0201, lambda: session(SECRET, security=False))

    def other_session():
        i = Initiator(ADDR)
        i.tsih = 77
        i.login(OPEN)
    refused(0x020A, other_session)

    def version():
        i = Initiator(ADDR)
        i.send(i.login_bhs(0x81, version=1), b"InitiatorName=x\0")
        raise Refused(int.from_bytes(i.recv().bhs[36:38], "big"))
    refused(0x0205, version)


@test
def what_is_no_login_ends_the_connection():
    for junk in (b"GET / HTTP/1.0\r\n\r\n" + b"x" * 100, bytes(48), b"\xff" * 4096):
        i = Initiator(ADDR)
        i.sock.sendall(junk)
        closed(i)
    i = Initiator(ADDR)
    for flags in (0xC1, 0x8A, 0x84):  # T and C; to a stage that is none; backwards
        i = Initiator(ADDR)
        i.send(i.login_bhs(flags), b"InitiatorName=iqn.2026-01.org.test:init\0")
        assert i.recv().bhs[36] == 2
        closed(i)
    i = Initiator(ADDR)
    i.send(i.login_bhs(0x40), b"A" * 8192)
    for _ in range(5):
        if i.recv().bhs[36]:
            break
        i.send(i.login_bhs(0x40), b"A" * 8192)
    else:
        raise AssertionError("text without end")
    closed(i)


# ---- CHAP ----
@test
def chap_lets_in_who_knows_the_secret():
    for algorithm in ("5", "6", "7", "8", "99,7,5"):
        i = session(SECRET, user=USER, secret=PASS, algorithms=algorithm)
        assert i.ready()
        i.logout()
    i = session(SECRET, user=USER, secret=PASS, mutual=MUTUAL)
    assert i.ready()


@test
def chap_lets_nobody_else_in():
    refused(0x0201, lambda: session(SECRET, user=USER, secret="alice-secret-13"))
    refused(0x0201, lambda: session(SECRET, user="mallory", secret=PASS))
    refused(0x0201, lambda: session(SECRET, user=USER, secret=PASS, algorithms="1,2"))
    for drop in ("CHAP_N", "CHAP_R"):
        refused(0x0201, lambda: Initiator(ADDR).chap(SECRET, USER, PASS, tamper=lambda keys: [kv for kv in keys if kv[0] != drop]))
    refused(0x0201, lambda: Initiator(ADDR).chap(SECRET, USER, PASS, tamper=lambda keys: [(k, "0x") if k == "CHAP_R" else (k, v) for k, v in keys]))
    refused(0x0201, lambda: Initiator(ADDR).chap(SECRET, USER, PASS, tamper=lambda keys: [(k, v[:-2]) if k == "CHAP_R" else (k, v) for k, v in keys]))
    i = Initiator(ADDR)
    refused(0x0201, lambda: i.login_step(0, 1, i.names(SECRET) + [("AuthMethod", "None")]))
    j = Initiator(ADDR)
    j.login_step(0, 1, j.names(SECRET) + [("AuthMethod", "CHAP")], transit=False)
    refused(0x0200, lambda: (j.login_step(0, 3, [], transit=True), j.login_step(1, 3, [])))


@test
def what_asks_for_a_secret_is_not_for_who_shows_none():
    for how in ({"security": True}, {"security": False}):
        i = session(MIXED, **how)
        assert report_luns(i) == [1] and i.ready(1)
        st, _, sense, _, _ = i.command(read10(0, 1), read=512, lun=0)
        assert st == 2 and sense[12] == 0x25, (st, sense.hex())
    i = session(MIXED, user=USER, secret=PASS)
    assert report_luns(i) == [0, 1] and i.ready(0)


@test
def a_login_that_takes_its_time_has_the_rights_of_its_end():
    i = Initiator(ADDR, A)
    i.login_step(0, 1, i.names(SHARED) + [("AuthMethod", "None")])
    export = [sys.argv[4], "export", "add", "demo/a", "--iscsi", "--iqn", SHARED, "--lun", "1", "--initiator"]
    subprocess.run([sys.argv[4], "export", "remove", "demo/a", "--iscsi", "--iqn", SHARED], check=True, stdout=subprocess.DEVNULL)
    refused(0x0301, lambda: i.login_step(1, 3, []))
    subprocess.run(export + [A], check=True, stdout=subprocess.DEVNULL)
    assert session(SHARED, name=A).ready(1)


@test
def a_challenge_sent_back_is_refused():
    i = Initiator(ADDR)
    refused(0x0201, lambda: i.chap(SECRET, USER, PASS, tamper=lambda keys: keys + [("CHAP_I", "1"), ("CHAP_C", "0x" + i.challenge.hex())]))


@test
def challenges_never_come_twice():
    seen = set()
    for _ in range(20):
        i = Initiator(ADDR)
        i.login_step(0, 1, i.names(SECRET) + [("AuthMethod", "CHAP")], transit=False)
        seen.add(dict(i.login_step(0, 1, [("CHAP_A", "7")], transit=False)[1])["CHAP_C"])
        i.close()
    assert len(seen) == 20


# ---- data ----
def pattern(n, seed):
    return bytes((k * 7 + (k >> 9) * 13 + seed) & 255 for k in range(n))


@test
def data_goes_both_ways_by_every_way():
    for keys in ([], [("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C")], [("InitialR2T", "Yes"), ("ImmediateData", "No")],
                 [("MaxBurstLength", "4096"), ("FirstBurstLength", "512"), ("MaxRecvDataSegmentLength", "1024"), ("MaxOutstandingR2T", "1")]):
        i = session(keys=keys)
        assert i.ready()
        immediate = i.keys.get("ImmediateData", "Yes") == "Yes" and int(i.keys.get("FirstBurstLength", 65536)) >= 65536
        for blocks in (1, 8, 300):
            if not immediate and blocks == 300:
                continue
            data = pattern(512 * blocks, blocks)
            if blocks == 300 and i.data_digest:
                data = pattern(512 * 40, 3)
            n = len(data) // 512
            st, _, sense, flags, _ = i.command(write10(64, n), write=data, immediate=immediate)
            assert st == 0 and not flags, (st, sense)
            st, back, sense, flags, _ = i.command(read10(64, n), read=len(data))
            assert st == 0 and back == data and not flags, (keys, blocks, st, sense)
        i.logout()


@test
def unsolicited_data_may_follow_the_command():
    i = session(keys=[("InitialR2T", "No")])
    assert i.ready()
    data = pattern(512 * 64, 5)
    b = i.bhs(1, 0x20 | 1, w20=len(data), rest=write10(0, 64).ljust(16, b"\0"))
    itt = int.from_bytes(b[16:20], "big")
    i.send(b, data[:512])
    i.data_out(itt, NONE, 512, data[512:20480], piece=4096)
    assert i.finish(itt, data)[0] == 0
    assert i.command(read10(0, 64), read=len(data))[1] == data


@test
def residuals_say_what_was_not_moved():
    i = session()
    assert i.ready()
    st, data, _, flags, residual = i.command(read10(0, 1), read=1024)
    assert st == 0 and len(data) == 512 and flags == 2 and residual == 512, (st, len(data), flags, residual)
    st, data, _, flags, residual = i.command(read10(0, 4), read=512)
    assert st == 0 and len(data) == 512 and flags == 4 and residual == 1536, (st, len(data), flags, residual)
    st, data, _, flags, residual = i.command([0x12, 0, 0, 0, 255, 0], read=255)
    assert st == 0 and flags == 2 and residual == 255 - len(data)


@test
def data_out_of_order_fails_its_command_alone():
    def start(i):
        b = i.bhs(1, 0x80 | 0x20 | 1, w20=8192, rest=write10(0, 16).ljust(16, b"\0"))
        i.send(b)
        while True:
            p = i.recv()
            if p.opcode == 0x31:
                return p
    i = session()
    assert i.ready()
    for sn, off, n, flags in ((1, 0, 8192, 0x80), (0, 512, 8192, 0x80), (0, 0, 4096, 0x80), (0, 0, 8192, 0)):
        r2t = start(i)
        i.send(i.bhs(5, flags, itt=r2t.itt, w20=r2t.ttt, rest=b"\0\0\0\0" + struct.pack(">II", sn, off)), b"x" * n)
        assert i.finish(r2t.itt)[0] == 2
    r2t = start(i)
    i.send(i.bhs(5, 0x80, itt=r2t.itt, w20=r2t.ttt ^ 0x5555, rest=bytes(12)), b"x" * 512)
    assert i.finish(r2t.itt)[0] == 2
    i.send(i.bhs(5, 0x80, itt=r2t.itt, w20=r2t.ttt, rest=bytes(12)), b"x" * 8192)  # of a command that has ended
    assert i.ready()


@test
def broken_agreements_end_the_session():
    def one(send, **kw):
        i = session(**kw)
        assert i.ready()
        send(i)
        closed(i)
    one(lambda i: i.send(i.bhs(1, 0x80 | 0x20, w20=512, rest=write10(0, 1).ljust(16, b"\0")), b"x" * 512), keys=[("ImmediateData", "No")])
    one(lambda i: i.send(i.bhs(1, 0x80 | 0x20, w20=512, rest=write10(0, 1).ljust(16, b"\0")), b"x" * 1024))
    one(lambda i: i.send(i.bhs(1, 0x20, w20=8192, rest=write10(0, 16).ljust(16, b"\0"))), keys=[("InitialR2T", "Yes")])
    one(lambda i: i.send(i.bhs(1, 0x80, w20=512, rest=read10(0, 1).ljust(16, b"\0")), b"x" * 512))
    one(lambda i: i.send(i.bhs(0, 0x80, immediate=True), b"", bad_header=True), keys=[("HeaderDigest", "CRC32C")])
    one(lambda i: i.send(i.bhs(0, 0x80, immediate=True), b"ping", bad_data=True), keys=[("DataDigest", "CRC32C")])
    one(lambda i: i.sock.sendall(bytes([0, 0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF]) + bytes(40)))
    one(lambda i: i.send(i.login_bhs(0x81)))


@test
def tags_in_use_are_not_taken_twice():
    i = session()
    assert i.ready()
    b = i.bhs(1, 0x80 | 0x20, w20=65536 * 4, rest=write10(0, 512).ljust(16, b"\0"))
    i.send(b)
    i.send(i.bhs(1, 0x80 | 0x40, itt=int.from_bytes(b[16:20], "big"), w20=512, rest=read10(0, 1).ljust(16, b"\0")))
    closed(i)


# ---- order ----
@test
def commands_wait_for_those_before_them():
    i = session()
    assert i.ready()
    first = i.cmd_sn
    late = [i.bhs(1, 0x80 | 0x40 | 1, w20=512, cmd_sn=first + k, rest=read10(0, 1).ljust(16, b"\0")) for k in (2, 1)]
    for b in late:
        i.send(b)
    i.send(i.bhs(0, 0x80, immediate=True, w20=NONE), b"still there?")
    p = i.recv()
    assert p.opcode == 0x20 and p.data == b"still there?" and p.exp == first, (hex(p.opcode), p.exp, first)
    i.send(i.bhs(1, 0x80 | 0x40 | 1, w20=512, cmd_sn=first, rest=read10(0, 1).ljust(16, b"\0")))
    got = [i.recv() for _ in range(3)]
    assert [p.opcode for p in got] == [0x25] * 3 and got[-1].exp == first + 3


@test
def numbers_out_of_the_window_are_ignored():
    i = session()
    assert i.ready()
    for sn in (i.cmd_sn - 1, i.cmd_sn + 5000, i.cmd_sn + 128):
        i.send(i.bhs(1, 0x80 | 0x40 | 1, w20=512, cmd_sn=sn & NONE, rest=read10(0, 1).ljust(16, b"\0")))
    i.send(i.bhs(0, 0x80, immediate=True, w20=NONE))
    assert i.recv().opcode == 0x20
    assert i.ready()


@test
def the_window_holds_what_it_promises():
    i = session()
    assert i.ready()
    for _ in range(400):
        i.send(i.bhs(1, 0x80 | 0x40 | 1, w20=4096, rest=read10(0, 8).ljust(16, b"\0")))
        p = i.recv()
        assert p.opcode == 0x25 and len(p.data) == 4096
        assert p.max - p.exp == 127, (p.max, p.exp)
    tags = set()
    for _ in range(128):
        b = i.bhs(1, 0x80 | 0x40 | 1, w20=4096, rest=read10(0, 8).ljust(16, b"\0"))
        tags.add(int.from_bytes(b[16:20], "big"))
        i.send(b)
    while tags:
        tags.remove(i.recv().itt)


# ---- task management ----
@test
def task_management_ends_what_it_names():
    i = session()
    assert i.ready()
    b = i.bhs(1, 0x80 | 0x20, w20=65536 * 2, rest=write10(0, 256).ljust(16, b"\0"))
    itt, sn = int.from_bytes(b[16:20], "big"), int.from_bytes(b[24:28], "big")
    i.send(b)
    while True:
        p = i.recv()
        if p.opcode == 0x31:
            break
    assert i.tmf(1, ref=itt, ref_sn=sn) == 0
    i.data_out(itt, p.ttt, 0, b"x" * 131072)  # nobody wants it any more
    assert i.ready()
    assert i.tmf(1, ref=itt, ref_sn=sn) == 1
    assert i.tmf(5) == 0
    assert i.ready()
    assert i.tmf(2) == 0 and i.tmf(4) == 0
    assert i.tmf(5, lun=9) == 2
    assert i.tmf(8, ref=1) == 4
    assert i.tmf(3) == 5 and i.tmf(99) == 5
    assert i.ready()
    assert i.tmf(6) == 0
    assert i.ready()
    assert i.tmf(7) == 0
    closed(i)


@test
def a_session_takes_the_place_of_its_own_ghost():
    isid = b"\x80\1\2\3\4\5"
    i = session(isid=isid)
    assert i.ready()
    j = session(isid=isid)
    closed(i)
    assert j.ready()
    k = session(isid=b"\x80\1\2\3\4\6")
    assert k.ready() and j.ready()


@test
def ghosts_take_each_others_place_all_the_time():
    end, hung = time.time() + 2, []

    def storm(k):
        while time.time() < end:
            try:
                i = session(MANY, isid=b"\x80\1\2\3\4" + bytes([k % 2]), security=False)
                for lun in range(3):
                    i.send(i.bhs(1, 0x80 | 0x40 | 1, lun, w20=4096, rest=read10(0, 8).ljust(16, b"\0")))
                i.close()
            except socket.timeout:
                hung.append(k)
            except (Refused, Closed, OSError):
                pass
    threads = [threading.Thread(target=storm, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not hung and session(MANY).ready(), hung


@test
def logouts_are_answered():
    i = session()
    assert i.logout(2) == 2
    i.send(i.bhs(6, 0x81, immediate=True, w20=0x00070000))
    while True:
        p = i.recv()
        if p.opcode == 0x26:
            break
    assert p.bhs[2] == 1
    assert i.logout(1) == 0
    closed(i)


@test
def odd_pdus_are_rejected_and_the_session_goes_on():
    i = session()
    assert i.ready()
    for opcode in (0x10, 0x07, 0x1C, 0x3E, 0x20):
        i.send(i.bhs(opcode, 0x80, immediate=True))
        p = i.recv()
        assert p.opcode == 0x3F, hex(p.opcode)
    for text in (b"no equals\0", b"=x\0", b"key=without end", b"bad key=1\0", b"\xff\xfe=1\0"):
        i.send(i.bhs(4, 0x80, w20=NONE, immediate=True), text)
        assert i.recv().opcode == 0x3F, text
    i.send(i.bhs(4, 0x80, w20=NONE, immediate=True), b"MaxBurstLength=512\0X-a=b\0SendTargets=\0")
    got = dict(i.recv().text())
    assert got["MaxBurstLength"] == "Reject" and got["X-a"] == "NotUnderstood" and got["TargetName"] == OPEN, got
    i.send(i.bhs(0, 0x80, w20=NONE, immediate=True), b"p" * 5000)
    assert i.recv().data == b"p" * 5000
    assert i.ready()


def rss_kib():
    return int(next(line for line in open("/proc/%s/status" % sys.argv[3]) if line.startswith("VmRSS")).split()[1])


@test
def who_asks_and_does_not_read_holds_little_memory():
    """Pings as long as may be, from a discovery session, which needs no proof, that takes answers of 512 bytes, and from one that takes all."""
    before, held = rss_kib(), []
    for k in range(16):
        i = Initiator(ADDR).login(None, keys=[("MaxRecvDataSegmentLength", "512" if k % 2 else "262144")])
        i.sock.settimeout(0.3)
        held.append(i)
        try:
            for _ in range(200):
                i.send(i.bhs(0, 0x80, w20=NONE, immediate=True), b"p" * 262144)
        except socket.timeout:
            continue
    assert rss_kib() - before < 16 * 2 * 1024 + 8 * 1024, (before, rss_kib())
    for i in held:
        i.close()


# ---- others ----
@test
def a_tenant_reaches_nothing_of_the_other():
    a, b = session(SHARED, name=A), session(SHARED, name=B)
    assert report_luns(a) == [1] and report_luns(b) == [2]
    assert a.ready(1) and b.ready(2)
    mark = pattern(512, 9)
    assert b.command(write10(0, 1), write=mark, lun=2)[0] == 0
    for opcode in range(256):
        size = 6 if opcode < 0x20 else 10 if opcode < 0x60 else 16 if opcode < 0xA0 else 12
        cdb = bytes([opcode]) + bytes(size - 1)
        for lun in (2, 0, 255, 257):
            for kw in ({}, {"read": 512}, {"write": b"Z" * 512}):
                st, data, sense, _, _ = a.command(cdb, lun=lun, **kw)
                if opcode in (0x12, 0xA0, 0x03) and st == 0:
                    assert mark[:16] not in data
                    assert opcode != 0x12 or not data or data[0] == 0x7F
                    continue
                assert st == 2 and sense[2] & 15 == 5 and sense[12] in (0x25, 0x24, 0x20), (hex(opcode), lun, st, sense.hex())
    for function in (1, 2, 4, 5):
        assert a.tmf(function, lun=2) in (1, 2)
    assert b.command(read10(0, 1), read=512, lun=2)[1] == mark
    assert a.ready(1)
    assert session(SHARED, name=B).ready(2)


@test
def half_open_logins_keep_nobody_out():
    dead = []
    for k in range(1000):
        s = socket.create_connection(ADDR, 10)
        if k % 3:
            s.sendall(b"\x43\x81" + bytes(k % 40))
        dead.append(s)
        if k % 200 == 199:
            start = time.time()
            i = session(name="iqn.2026-01.org.test:good%d" % k)
            assert i.ready()
            i.logout()
            assert time.time() - start < 5
    for s in dead:
        s.close()
    assert session().ready()


@test
def discovery_sessions_keep_nobody_out():
    idle = []
    for k in range(300):
        idle.append(Initiator(ADDR).login(None))
    assert session().ready()
    closed(idle[0])
    assert idle[-1].send_targets(OPEN)
    for i in idle:
        i.close()


print("%d passed, %d failed" % (passed, failed))
sys.exit(failed != 0)
