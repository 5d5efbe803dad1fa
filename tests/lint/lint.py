#!/usr/bin/env python3
"""Style that can be checked by a machine: who includes whom, headers that compile alone, lengths, and what the libraries
of the engine may not call. usage: tests/lint/lint.py BUILD [CC]

Each file, header or library is one check. Prints what is wrong, ends with `N passed, N failed`.
"""
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

BUILD = sys.argv[1] if len(sys.argv) > 1 else "build"
CC = sys.argv[2] if len(sys.argv) > 2 else "gcc"

# folder -> folders and headers it may include besides its own
ALL_BELOW = ["engine/base", "engine/io", "raid", "engine/meta", "thin"]
PUBLIC = "engine/pool/ashlar.h"
MATRIX = {
    "engine/base": [],
    "engine/io": ["engine/base"],
    "raid": ["engine/base", "engine/io"],
    "engine/meta": ["engine/base", "engine/io"],
    "thin": ["engine/base", "engine/io", "engine/meta"],
    "engine/pool": ALL_BELOW,
    "nbd": ["engine/base", "engine/io", PUBLIC],
    "frontends/iscsi": ["engine/base", "engine/io", PUBLIC],
    "frontends/control": ["engine/base", "engine/io", PUBLIC, "frontends/iscsi/exports.h"],
    "frontends/nbdkit": ["engine/base", "engine/io", PUBLIC],
    "frontends/cli": ["engine/base", "engine/io", PUBLIC, "frontends/control", "nbd/nbd.h", "frontends/iscsi/exports.h", "frontends/iscsi/iscsi.h"],
}
# Headers of other projects, and who may include them.
FOREIGN = {
    "liburing": ["engine/io"], "libaio": ["engine/io"], "linux": ["engine/io", "engine/pool"], "blkid": ["engine/io"], "libnbd": ["engine/io"],
    "pthread": ["engine/io", "frontends/cli"], "isa-l": ["engine/base", "raid"], "gnutls": ["engine/io", "frontends/iscsi"], "jansson": ["frontends/control", "frontends/cli"],
    "libsmartcols": ["frontends/cli"], "nbdkit-plugin": ["frontends/nbdkit"], "sys/socket": ["engine/io", "frontends/control", "frontends/cli"],
}
FILE_MAX = 850
FUNC_SHOWN = 75  # longer functions are printed
FUNC_MAX = 90    # and these fail

# What only engine/io may call: time, randomness, files and threads pass the world, memory xmalloc() and buf_alloc().
BANNED = """clock_gettime clock_nanosleep gettimeofday time nanosleep usleep sleep rand srand random srandom getrandom
getentropy open open64 openat openat64 fopen fopen64 read write pread pread64 pwrite pwrite64 close fsync fdatasync
socket accept connect send recv mmap mmap64 munmap ioctl system fork malloc calloc realloc free posix_memalign
aligned_alloc strdup strndup""".split()
BANNED_RE = re.compile(r"pthread_\w+|_?_?aio_\w+|io_uring_\w+")
NM_LIBS = ["raid", "engine/meta", "thin", "engine/pool", "nbd", "frontends/iscsi"]
# library -> symbol -> why
ALLOWED = {
    "engine_pool": {name: "discover.c lists directories and /sys/class/block" for name in
                    ("opendir", "readdir", "readdir64", "closedir", "stat", "stat64", "lstat", "lstat64", "readlink",
                     "realpath", "access")},
}
ALLOWED["engine_pool"]["fopen"] = "discover.c: reads attributes of block devices in /sys"

passed = failed = 0


def result(ok, text):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print("lint: " + text)


def folder_of(path):
    return os.path.dirname(path)


def sources():
    for top in MATRIX:
        for name in sorted(os.listdir(top)):
            if name.endswith((".c", ".h")):
                yield os.path.join(top, name)


def check_includes(path, text):
    own, bad = folder_of(path), []
    for inc in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.M):
        if not os.path.exists(inc):
            bad.append('includes "%s", which is not a path from the root' % inc)
        elif folder_of(inc) != own and folder_of(inc) not in MATRIX[own] and inc not in MATRIX[own]:
            bad.append('includes "%s", which %s may not' % (inc, own))
    for inc in re.findall(r"^\s*#\s*include\s+<([^>]+)>", text, re.M):
        for key, who in FOREIGN.items():
            if (inc == key + ".h" or inc.startswith(key + "/") or inc.startswith(key)) and own not in who:
                bad.append("includes <%s>, which is for %s" % (inc, " and ".join(who)))
    result(not bad, "%s %s" % (path, "; ".join(bad)))


def blank(text):
    """Comments, strings and characters replaced by spaces, so that braces count."""
    def spaces(m):
        return re.sub(r"[^\n]", " ", m.group(0))
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', spaces, text, flags=re.S)


def functions(text):
    """(line, length, name) of everything that starts with `{` in the first column after a line with a name and `(`."""
    lines, i = blank(text).split("\n"), 0
    while i < len(lines):
        if lines[i].startswith("{"):
            head = i - 1
            while head > 0 and lines[head].startswith((" ", "\t")):
                head -= 1
            m = re.search(r"(\w+)\s*\(", lines[head])
            depth, end = 0, i
            for end in range(i, len(lines)):
                depth += lines[end].count("{") - lines[end].count("}")
                if depth == 0:
                    break
            if m:
                yield i + 1, end - i - 1, m.group(1)
            i = end
        i += 1


def check_lengths(path, text):
    n = text.count("\n")
    long_functions = [f for f in functions(text) if f[1] > FUNC_SHOWN]
    for line, length, name in long_functions:
        if length <= FUNC_MAX:
            print("lint: note: %s:%d: %s() has %d lines" % (path, line, name, length))
    result(n <= FILE_MAX, "%s has %d lines, at most %d" % (path, n, FILE_MAX))
    bad = ["%s() has %d lines" % (f[2], f[1]) for f in long_functions if f[1] > FUNC_MAX]
    result(not bad, "%s: %s, at most %d" % (path, ", ".join(bad), FUNC_MAX))


def check_tabs(path, text):
    bad = [i + 1 for i, line in enumerate(text.split("\n")) if line.endswith((" ", "\t")) or line.startswith("        ")]
    result(not bad, "%s: space at the end or instead of tabs in lines %s" % (path, bad[:5]))


def compile_header(path):
    r = subprocess.run([CC, "-std=gnu11", "-D_GNU_SOURCE", "-I.", "-fsyntax-only", "-Wall", "-Wextra", "-Wno-unused-parameter",
                        "-Werror", "-x", "c", "-"], input='#include "%s"\ntypedef int lint_not_empty;\n' % path, text=True,
                       capture_output=True)
    return path, r.returncode, r.stderr.strip().split("\n")[0]


def check_symbols(folder):
    lib = folder.replace("/", "_")
    path = os.path.join(BUILD, "lib", lib + ".a")
    if not os.path.exists(path):
        result(False, "%s is not there: build first" % path)
        return
    out = subprocess.run(["nm", "-A", "-u", path], capture_output=True, text=True).stdout
    bad = set()
    for line in out.splitlines():
        where, symbol = line.rsplit(None, 1)
        symbol = symbol.split("@")[0]
        if (symbol in BANNED or BANNED_RE.fullmatch(symbol)) and symbol not in ALLOWED.get(lib, {}):
            bad.add("%s calls %s()" % (where.split(":")[1], symbol))
    result(not bad, "%s: %s" % (path, ", ".join(sorted(bad))))


def check_document(path, everything):
    """Functions, structures and files that a document names are there."""
    with open(path) as f:
        text = f.read()
    bad = set()
    for name in re.findall(r"`(?:[\w/.]*:)?(\w+)\(\)`", text):
        if not re.search(r"\b%s\b" % name, everything):
            bad.add(name + "()")
    for name in re.findall(r"`struct (\w+)`", text):
        if not re.search(r"\bstruct %s\b" % name, everything):
            bad.add("struct " + name)
    for name in re.findall(r"`([\w-]+/[\w/.-]+\.(?:[ch]|py|sh|mk|md))`", text):
        if not os.path.exists(name) and "NAME" not in name:
            bad.add(name)
    result(not bad, "%s names what is not there: %s" % (path, ", ".join(sorted(bad))))


FORMAT_HEADERS = ["engine/pool/label_format.h", "engine/meta/meta_format.h", "thin/thin_format.h", "engine/pool/pool_format.h",
                  "raid/stripe_log_format.h"]
# headings of docs/format.md and the structure that their first table describes
FORMAT_TABLES = {
    "2.1": "label_header_disk", "2.2": "label_disk_disk", "2.3": "label_meta_disk", "4.2": "pool_group_disk",
    "4.3": "pool_extent_disk", "5.2": "meta_root_disk", "5.3": "pool_owner_disk", "6.1": "thin_volume_disk",
    "6.2": "thin_entry_disk", "6.3": "thin_group_disk", "7.1": "journal_block_disk", "7.2": "journal_record_disk",
    "7.4": "thin_rec_copy", "7.5": "thin_rec_move",
    "12.1": "stripe_log_head_disk", "12.2": "stripe_log_entry_disk",
}


def format_rows(text):
    """(structure, offset of element 0, field) of every row with a number, a size and a field."""
    struct = None
    for line in text.split("\n"):
        m = re.match(r"#+ (\d+(?:\.\d+)?)", line)
        if m:
            struct = FORMAT_TABLES.get(m.group(1))
        m = re.match(r"\| (\d+)(?: \+ \d+ i)? \| \S+ \| ([\w.\[\]]+) \|", line)
        if m and struct and m.group(2) not in ("padding", "payload"):
            yield struct, int(m.group(1)), m.group(2).replace("[i]", "[0]")


def check_format(path):
    with open(path) as f:
        rows = list(format_rows(f.read()))
    program = "".join('#include "%s"\n' % h for h in FORMAT_HEADERS) + "#include <stddef.h>\n" + "".join(
        '_Static_assert(offsetof(struct %s, %s) == %d, "%s.%s is not at %d");\n' % (s, f, o, s, f, o) for s, o, f in rows)
    r = subprocess.run([CC, "-std=gnu11", "-D_GNU_SOURCE", "-I.", "-fsyntax-only", "-x", "c", "-"], input=program, text=True,
                       capture_output=True)
    wrong = re.findall(r'(?:static assertion failed|static_assert failed)[^"]*"?([^"\n]+)|error: (.*)', r.stderr)
    result(r.returncode == 0 and len(rows) > 100, "%s, %d rows: %s" % (path, len(rows), wrong[:5]))


def main():
    files = list(sources())
    for path in files:
        with open(path) as f:
            text = f.read()
        check_includes(path, text)
        check_lengths(path, text)
        check_tabs(path, text)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, status, first in pool.map(compile_header, [f for f in files if f.endswith(".h")]):
            result(status == 0, "%s does not compile alone: %s" % (path, first))
    for folder in NM_LIBS:
        check_symbols(folder)
    everything = ""
    for top in list(MATRIX) + ["tests", "scripts"]:
        for where, _, names in os.walk(top):
            for name in names:
                if name.endswith((".c", ".h", ".py", ".sh", ".mk")):
                    with open(os.path.join(where, name)) as f:
                        everything += f.read()
    for name in sorted(os.listdir("docs")):
        check_document(os.path.join("docs", name), everything)
    check_format("docs/format.md")
    print("%d passed, %d failed" % (passed, failed))
    return failed != 0


sys.exit(main())
