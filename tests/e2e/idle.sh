#!/bin/bash
# A daemon with nothing to do: one volume, as many reactors as on a larger machine, before its first client and after one that has
# gone: its resident memory stays under 64 MiB, and it uses no CPU.
# usage: idle.sh BUILD
set -u
# shellcheck disable=SC2046
. "$(dirname "$0")/lib.sh"
need qemu-io

# Ticks of 10 ms that the daemon has used, children none.
ticks() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$daemon_pid/stat"; }
# idles WHEN
idles() {
	local rss before used
	before=$(ticks)
	sleep 5
	used=$(($(ticks) - before))
	rss=$(rss_kib "$daemon_pid")
	echo "# $1: RSS $((rss / 1024)) MiB, $used ticks in 5 s"
	[ "$used" -le 1 ] && ok "$1: no CPU" || not_ok "$1: no CPU ($used ticks in 5 s)"
	[ "$rss" -lt 65536 ] && ok "$1: less than 64 MiB" || not_ok "$1: less than 64 MiB ($((rss / 1024)) MiB)"
}

disks 1G d1
t 0 'pool create' "$ashlar" pool create demo --layout single d1
t 0 'volume create' "$ashlar" volume create demo/v --size 512M
serve --reactors 16 d1 || { not_ok 'serve'; done_; }
sleep 1 # what an opening leaves to do
idles 'no client yet'
t 0 'a client' qemu-io -f raw -c 'write -P 1 0 64M' -c flush -c 'read -P 1 0 64M' "$(uri demo/v)"
sleep 1
idles 'a client has been there'
done_
