#!/bin/bash
# The guided tour ends well, leaves nothing behind, is what README shows, and notices when something is not as it says.
# usage: demo.sh BUILD
set -u
. "$(dirname "$0")/lib.sh"
need nbdcopy nbdinfo mke2fs debugfs
tree=$(readlink -f "$here/../..")
mkdir tmp liar
export TMPDIR=$dir/tmp

t 0 'the tour ends well' "$tree/scripts/demo.sh" "$ashlar"
cp out tour
[ -z "$(ls -A tmp)" ] && ok 'and leaves nothing behind' || not_ok 'and leaves nothing behind'

# Numbers, and so columns, differ from run to run; the order of the lines does not. "..." stands for lines left out.
plain() { sed -E 's/[0-9]+[-0-9:.TZ]*[KMG]?/N/g; s/ +/ /g; s/^ //; s/ $//' "$1"; }
sed -n '/^## A guided tour/,/^## /{s/^    //p}' "$tree/README.md" >shown
cat >inside.py <<'PY'
import sys
shown, tour = ([l for l in open(f).read().split("\n") if l] for f in sys.argv[1:3])
at = 0
for line in shown:
    if line != "...":
        if line not in tour[at:]:
            sys.exit("README: this is not there, or in another order: " + line)
        at = tour.index(line, at) + 1
print(len(shown), "lines")
sys.exit(len(shown) < 20)
PY
plain shown >shown.plain
plain tour >tour.plain
t 0 'README shows what it prints' "$py" inside.py shown.plain tour.plain

# liar COMMAND...: an ashlar that says that it has done this, and has not.
liar() {
	printf '#!/bin/bash\n[ "$1 $2" != "%s" ] || { echo "%s"; exit 0; }\nexec "%s" "$@"\n' "$1" "$2" "$ashlar" >liar/ashlar
	chmod +x liar/ashlar
}
liar 'snapshot rollback' 'volume demo/web rolled back to demo/web@good, 6M freed'
t 1 'a rollback that did nothing is noticed' "$tree/scripts/demo.sh" "$dir/liar/ashlar"
says 'demo.sh: that ended with exit status' 'and said'
[ -z "$(ls -A tmp)" ] && ok 'nothing is left of that either' || not_ok 'nothing is left of that either'
liar 'snapshot create' 'snapshot demo/web@good taken'
t 1 'a snapshot that was not taken is noticed' "$tree/scripts/demo.sh" "$dir/liar/ashlar"
done_
