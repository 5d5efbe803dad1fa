#!/usr/bin/python3
"""activate.py STATE ADDR... -- COMMAND...: starts the command as systemd would: with sockets that listen already, told when it is
ready, starts it again when it is killed, and ends with it when it ends by itself. STATE gets a line for each thing that happens."""
import os
import select
import signal
import socket
import sys

split = sys.argv.index("--")
state, addrs, command = open(sys.argv[1], "a", buffering=1), sys.argv[2:split], sys.argv[split + 1:]
notify_path = os.path.abspath(sys.argv[1] + ".notify")
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.bind(notify_path)
listening = []
for a in addrs:
    if a.startswith("unix:"):
        s = socket.socket(socket.AF_UNIX)
        s.bind(a[5:])
    else:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((a.rsplit(":", 1)[0], int(a.rsplit(":", 1)[1])))
    s.listen(64)
    listening.append(s)


def start():
    pid = os.fork()
    if pid:
        state.write("pid %d\n" % pid)
        return pid
    fds = [os.dup2(s.fileno(), 100 + i) for i, s in enumerate(listening)]
    for i, fd in enumerate(fds):
        os.dup2(fd, 3 + i, inheritable=True)
    env = dict(os.environ, LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), NOTIFY_SOCKET=notify_path, WATCHDOG_USEC="600000",
               WATCHDOG_PID=str(os.getpid()))
    os.execvpe(command[0], command, env)


signal.signal(signal.SIGTERM, lambda *a: os.kill(pid, signal.SIGTERM))
# Not before somebody comes.
select.select(listening, [], [])
state.write("activated\n")
pid = start()
while True:
    r, _, _ = select.select([notify], [], [], 0.05)
    if r:
        state.write("notify %s\n" % notify.recv(4096).decode().replace("\n", " "))
        continue
    got, status = os.waitpid(pid, os.WNOHANG)
    if not got:
        continue
    state.write("ended %d\n" % status)
    if not os.WIFSIGNALED(status):
        sys.exit(os.WEXITSTATUS(status))
    pid = start()
