#!/bin/sh
# Are the packages there? As root, install what is missing by apt-get; else print the one line to run.
# usage: scripts/deps.sh PACKAGE...
set -eu

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	echo "This is not Debian or one of its relatives; what is needed, by the names that Debian gives it:" >&2
	echo "  $*" >&2
	exit 0
fi

missing=
for p in "$@"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q '^install ok installed$' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "Packages are missing. Run this, then try again:" >&2
	echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
	exit 1
fi

echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
# Lists that are empty or older than a day are fetched anew; if that fails, the old ones may still do.
newest=$(find /var/lib/apt/lists -maxdepth 1 -name '*Packages*' -mtime -1 2>/dev/null | head -n 1)
if [ -z "$newest" ]; then
	apt-get update -q || echo "apt-get update failed; trying with the lists that are there" >&2
fi
# shellcheck disable=SC2086
apt-get install -q -y --no-install-recommends $missing && exit 0
apt-get update -q
# shellcheck disable=SC2086
exec apt-get install -q -y --no-install-recommends $missing
