# gdb: `source scripts/co_backtrace.py`, then `co-bt` prints where every suspended coroutine of the process stands (x86-64).
import gdb


class CoBacktrace(gdb.Command):
    """co-bt POOL: backtraces of all coroutines of a co_pool (an expression), e.g. co-bt reactor_self()->cos"""

    def __init__(self):
        super().__init__("co-bt", gdb.COMMAND_STACK)

    def invoke(self, arg, tty):
        pool = gdb.parse_and_eval(arg)
        ctype = gdb.lookup_type("struct co")
        off = [f.bitpos // 8 for f in ctype.fields() if f.name == "all"][0]
        head = pool["all"].address
        node = pool["all"]["next"]
        saved = {r: gdb.parse_and_eval("$" + r) for r in ("rsp", "rbp", "rbx", "r12", "r13", "r14", "r15", "rip")}
        while int(node) != int(head):
            co = gdb.Value(int(node) - off).cast(ctype.pointer())
            node = node["next"]
            if not bool(co["running"]) or int(co) == int(pool["current"]):
                continue
            sp = int(co["ctx"]["sp"])
            print("---- %s (%#x)" % (co["name"].string(), int(co)))
            words = gdb.Value(sp).cast(gdb.lookup_type("unsigned long").pointer())
            regs = ("r15", "r14", "r13", "r12", "rbx", "rbp", "rip")
            for i, r in enumerate(regs):
                gdb.execute("set $%s = %d" % (r, int(words[i])))
            gdb.execute("set $rsp = %d" % (sp + 8 * len(regs)))
            gdb.execute("bt 12")
        for r, v in saved.items():
            gdb.execute("set $%s = %d" % (r, int(v)))


CoBacktrace()
