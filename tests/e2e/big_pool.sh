#!/bin/bash
# A pool of 64 TiB logical size on sparse files: it opens in under 400 ms (the budget is 100 on a quiet disk), filled or empty, and stays under its
# --metadata-cache while 4 KiB writes go all over a volume of 64 TiB.
# usage: big_pool.sh BUILD [SECONDS]
set -u
. "$(dirname "$0")/lib.sh"
need fio
seconds=${2:-3}
cache=16

# start_daemon WHICH: how long opening took, as the daemon says, and by the clock from start to "ready"
start_daemon() {
	local t0 t1
	t0=$(date +%s%N)
	serve --metadata-cache ${cache}M --reactors 2 || { not_ok "$1: the daemon starts"; return 1; }
	t1=$(date +%s%N)
	"$ashlar" pool show big --json >out 2>err
	open_us=$(value 'j["open_ns"] // 1000')
	echo "# $1: opened in $open_us us, ready after $(((t1 - t0) / 1000000)) ms, RSS $(($(rss_kib "$daemon_pid") / 1024)) MiB"
	[ "$open_us" -lt 400000 ] && ok "$1: opens in under 400 ms" || not_ok "$1: opens in under 400 ms ($open_us us)"
}
figures() {
	"$ashlar" pool show big --json >out 2>err
	value '"used %d MiB, metadata on disk %d MiB, cache %d of %d MiB, checkpoint %d" % (*(j[k + "_bytes"] >> 20 for k in
		("used", "metadata", "metadata_cache", "metadata_cache_limit")), j["checkpoint"])'
}
# sample FILE: RSS in KiB and the cache's bytes, a few times a second
sample() {
	while [ -e "/proc/$daemon_pid/status" ]; do
		echo "$(rss_kib "$daemon_pid") $("$ashlar" pool list -Hp -o cache)"
		sleep 0.2
	done >"$1" 2>/dev/null
}
# most COLUMN UNIT: the largest sample
most() { awk -v k="$1" -v unit="$2" '$k > m { m = $k } END { print int(m / unit) }' samples; }
writes() {
	fio --name=all-over --ioengine=nbd --uri="$(uri big/v1)" --rw=randwrite --bs=4k --iodepth=32 --size=64t --norandommap \
		--random_generator=tausworthe64 --time_based --runtime="$1" --randrepeat=0 --output-format=json --output=fio.out --end_fsync=1 \
		>out 2>err
}

names=()
for i in $(seq 8); do names+=("d$i"); done
disks 8400G "${names[@]}"
t 0 'pool create' "$ashlar" pool create big --layout raid0 "${names[@]}" || done_
"$ashlar" pool show big --json >out 2>err
free=$(value 'j["free_bytes"] >> 40')
echo "# $free TiB free"
[ "$free" -ge 64 ] && ok '64 TiB logical size' || not_ok "64 TiB logical size ($free)"
t 0 'volume create' "$ashlar" volume create big/v1 --size 64T
start_daemon 'an empty pool' || done_
before=$(rss_kib "$daemon_pid")
sample samples &
sampler=$!
pids=("$sampler")
writes "$seconds" && ok "random 4 KiB writes for $seconds s" || not_ok "random 4 KiB writes for $seconds s"
kill $sampler
wait $sampler 2>/dev/null
cp fio.out out
echo "# $(value '"%d writes, %d a second" % (j["jobs"][0]["write"]["total_ios"], j["jobs"][0]["write"]["iops"])')"
echo "# $(figures)"
rss=$(most 1 1024)
cached=$(most 2 1048576)
echo "# RSS $((before / 1024)) MiB before, at most $rss MiB; cache at most $cached of $cache MiB"
[ "$cached" -le $cache ] && ok 'the metadata cache stays under its limit' || not_ok 'the metadata cache stays under its limit'
# Beside the cache: registered buffers, requests in flight, the program.
[ "$rss" -le $((before / 1024 + 2 * cache + 64)) ] && ok 'memory stays bounded' || not_ok 'memory stays bounded'
daemon_kill
start_daemon 'filled, after kill -9'
t 0 'reads all over' fio --name=r --ioengine=nbd --uri="$(uri big/v1)" --rw=randread --bs=4k --iodepth=32 --size=64t --norandommap \
	--random_generator=tausworthe64 --time_based --runtime=1
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
start_daemon 'filled, after a clean end'
daemon_stop && ok 'SIGTERM ends it cleanly' || not_ok 'SIGTERM ends it cleanly'
start=$SECONDS
t 0 'pool check' "$ashlar" pool check big
echo "# the check took $((SECONDS - start)) s"
done_
