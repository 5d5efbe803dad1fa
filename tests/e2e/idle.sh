#!/bin/bash
# A daemon with nothing to do: one volume, as many reactors as on a larger machine, before its first client and after one that has
# gone: its resident memory stays under 64 MiB, and it uses no CPU: at most 0.4 % of one, a checkpoint included.
# usage: idle.sh BUILD
set -u
# shellcheck disable=SC2046
. "$(dirname "$0")/lib.sh"
need qemu-io

# What its threads have used, in us.
cpu_us() { cat "/proc/$daemon_pid"/task/*/schedstat | awk '{ ns += $1 } END { print int(ns / 1000) }'; }
# idles WHEN
idles() {
	local rss before used
	before=$(cpu_us)
	sleep 5
	used=$(($(cpu_us) - before))
	rss=$(rss_kib "$daemon_pid")
	echo "# $1: RSS $((rss / 1024)) MiB, $used us of CPU in 5 s"
	[ "$used" -lt 20000 ] && ok "$1: no CPU" || not_ok "$1: no CPU ($used us in 5 s)"
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
