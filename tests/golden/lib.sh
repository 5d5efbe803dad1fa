# Sourced by make.sh and check.sh: a directory of its own, a daemon in it. Only what is started here is ended, by its number.
set -u
ashlar=$(readlink -f "${1:-build/ashlar}")
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
dir=$(mktemp -d "${TMPDIR:-/tmp}/ashlar-golden.XXXXXX")
export ASHLAR_CONTROL=$dir/control.sock LC_ALL=C
py=/usr/bin/python3
[ -x "$py" ] || py=python3
daemon=

cleanup() {
	[ -z "$daemon" ] || kill -KILL "$daemon" 2>/dev/null
	wait 2>/dev/null
	cd / && rm -rf "$dir"
}
trap cleanup EXIT
cd "$dir" || exit 1

# start DISK...: serves, returns when it is ready
start() {
	local i
	: >serve.out # not what the last one said
	"$ashlar" serve --reactors 2 --nbd "unix:$dir/nbd.sock" "$@" >serve.out 2>&1 </dev/null &
	daemon=$!
	for i in $(seq 300); do
		grep -q '^ready' serve.out && return 0
		kill -0 $daemon 2>/dev/null || break
		sleep 0.1
	done
	echo "the daemon does not start:" >&2
	cat serve.out >&2
	return 1
}
stop() { # SIGNAL
	kill "-$1" "$daemon"
	wait "$daemon" 2>/dev/null
	local r=$?
	daemon=
	return $r
}
volume() { "$py" "$here/volume.py" "nbd+unix:///$1?socket=$dir/nbd.sock" "${@:2}"; }
