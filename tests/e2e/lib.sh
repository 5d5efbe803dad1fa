# Sourced by every test here, as `. lib.sh` after `set -u`: a directory of its own, a daemon, `ok` and `not ok` lines, an end
# that leaves nothing behind. The build directory is the first argument or $BUILD. Only processes started here are ended, by
# their number.

build=$(readlink -f "${1:-${BUILD:-build}}")
ashlar=$build/ashlar
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
export LC_ALL=C PATH=$PATH:/usr/sbin:/sbin
py=/usr/bin/python3
[ -x "$py" ] || py=$(command -v python3)
[ -x "$ashlar" ] || { echo "$ashlar is not there; build it first" >&2; exit 1; }

dir=$(mktemp -d "${TMPDIR:-/tmp}/ashlar-e2e.XXXXXX")
chmod 0700 "$dir"
cd "$dir" || exit 1
export ASHLAR_CONTROL=$dir/control.sock ASHLAR_DISKS=$dir ASHLAR_KEEP_DIR=$dir/.kept
mkdir "$ASHLAR_KEEP_DIR"
unset XDG_RUNTIME_DIR
nbd=$dir/nbd.sock
daemon_pid=
pids=()
n_ok=0
n_bad=0

cleanup() {
	local p
	for p in $daemon_pid "${pids[@]}"; do
		kill -CONT "$p" 2>/dev/null
		kill -KILL "$p" 2>/dev/null
	done
	wait 2>/dev/null
	cd / && rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

ok() { n_ok=$((n_ok + 1)); echo "ok $((n_ok + n_bad)) - $1"; }
not_ok() {
	n_bad=$((n_bad + 1))
	echo "not ok $((n_ok + n_bad)) - $1"
	tail -n 15 out 2>/dev/null | sed 's/^/#   out: /'
	tail -n 15 err 2>/dev/null | sed 's/^/#   err: /'
	tail -n 5 daemon.err 2>/dev/null | sed 's/^/#   daemon: /'
}
# t STATUS NAME COMMAND...: the command must end with that exit status ("!": any but 0 and those of signals and time-outs)
t() {
	local want=$1 name=$2 got
	shift 2
	timeout 120 "$@" >out 2>err </dev/null
	got=$?
	if [ "$got" = "$want" ] || { [ "$want" = ! ] && [ $got != 0 ] && [ $got -lt 124 ]; }; then
		ok "$name"
	else
		not_ok "$name (exit status $got, not $want)"
		return 1
	fi
}
# says REGEX NAME: in what the last command printed
says() { grep -Eqi -- "$1" out err && ok "$2" || not_ok "$2"; }
# refused NAME REGEX COMMAND...: exit status 1 and a sentence that matches
refused() {
	local name=$1 re=$2
	shift 2
	timeout 60 "$@" >out 2>err </dev/null
	local got=$?
	if [ $got = 1 ] && grep -Eqi -- "$re" err; then ok "$name"; else not_ok "$name (exit status $got, wanted 1 and /$re/)"; fi
}
# value EXPRESSION: of the JSON in `out`, as j
value() { "$py" -c 'import json, sys; j = json.load(open("out")); print(eval(sys.argv[1]))' "$1"; }
need() {
	local c
	for c; do
		command -v "$c" >/dev/null || { echo "# skipped: $c is not there"; n_ok=0; done_; }
	done
}

# disks SIZE NAME...
disks() {
	local size=$1
	shift
	rm -f "$@"
	truncate -s "$size" "$@"
}
uri() { echo "nbd+unix:///$1?socket=$nbd"; }
# serve ARG...: waits for "ready"; 1 if the daemon ended instead (then its words are in out and err)
serve() {
	local i
	: >daemon.out
	# shellcheck disable=SC2086
	${serve_under:-} "$ashlar" serve --control "$ASHLAR_CONTROL" --nbd "unix:$nbd" "$@" >daemon.out 2>>daemon.err &
	daemon_pid=$!
	for i in $(seq 600); do
		grep -qx ready daemon.out && return 0
		kill -0 $daemon_pid 2>/dev/null || break
		sleep 0.05
	done
	cp daemon.out out
	cp daemon.err err
	wait $daemon_pid
	daemon_pid=
	return 1
}
# The process that was started is the daemon itself or, under $serve_under, becomes it by exec.
daemon_kill() {
	kill -KILL "$daemon_pid"
	wait "$daemon_pid" 2>/dev/null
	daemon_pid=
	locks_gone "${1:-d1}"
}
# The kernel lets go of a ring, and of the locks of the files registered with it, a moment after its process is gone. (Not flock(1):
# on a file that is another kind of lock.)
locks_gone() {
	[ ! -f "$1" ] || timeout 10 "$py" -c 'import fcntl, sys; fcntl.lockf(open(sys.argv[1], "r+b"), fcntl.LOCK_EX)' "$1"
}
daemon_stop() {
	local r
	kill -TERM "$daemon_pid"
	wait "$daemon_pid"
	r=$?
	daemon_pid=
	return $r
}
daemon_lives() { kill -0 "$daemon_pid" 2>/dev/null && timeout 20 "$ashlar" daemon status >/dev/null 2>&1; }
rss_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
# add_counts FILE: takes over the lines of a helper that prints `ok NAME` and `not ok NAME`
add_counts() {
	local line
	while IFS= read -r line; do
		case $line in
		"ok "*) ok "${line#ok }" ;;
		"not ok "*) not_ok "${line#not ok }" ;;
		*) echo "# $line" ;;
		esac
	done <"$1"
}
done_() {
	echo "$n_ok passed, $n_bad failed"
	[ "$n_bad" = 0 ]
	exit
}
