# Sourced by the tests that boot a guest, after lib.sh: the harness (../shared/vm/guest beside the tree, or $GUEST), without which the test is
# skipped. vm_guest.sh is the guest's: it goes before the script that runs there.
guest=${GUEST:-$here/../../../shared/vm/guest}
if [ ! -x "$guest" ]; then
	echo "# skipped: there is no guest harness at ${GUEST:-../shared/vm/guest}; set GUEST to one"
	done_
fi
free_port() { "$py" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
