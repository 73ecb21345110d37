# ruff: noqa: E501 - scripts are written as one would type them
"""Ordinary work that looks like an incident and is none: whoever is woken for it is woken for nothing."""

from __future__ import annotations

import random
import shlex
import sys
import zlib
from pathlib import Path

from evaluation.cases import Draw, Plan, family, program

__all__: list[str] = []

PYTHON = sys.executable
NOBODY = 65534

#: What runs within a cgroup of its own has this much at most.
LIMIT = 2_000_000_000

_WORDS = ["in", "the", "beginning", "was", "a", "word", "and", "it", "had", "no", "length"]


def _script(text: str, seconds: float, **more: object) -> Plan:
    """A script of a shell that is stopped after so long."""
    argv = ("timeout", "-k", "5", str(seconds), "bash", "-c", text)
    return Plan(argv, seconds, limit_bytes=LIMIT, **more)  # type: ignore[arg-type]


def _text(path: Path, megabytes: int) -> None:
    """A file like a log: it can be compressed, but not to nothing."""
    draw = random.Random(megabytes)
    lines = [" ".join(draw.choices(_WORDS, k=9)) + f" {draw.random()}\n" for _ in range(10_000)]
    with path.open("w") as file:
        written = 0
        while written < megabytes * 1_000_000:
            written += file.write("".join(draw.sample(lines, 5000)))


def _sources(folder: Path, count: int, suffix: str = "c") -> None:
    """A program of many files, as long as real ones are."""
    headers = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <time.h>\n"
    if suffix == "cpp":
        headers = "#include <map>\n#include <string>\n#include <vector>\n#include <iostream>\n"
    for n in range(count):
        draw = random.Random(n)
        body = "".join(
            f"int f{n}_{k}(int a, int b) {{ int s = {draw.randrange(99)}; for (int i = 0; i < a; i++)"
            f" {{ s = s * {draw.randrange(2, 9)} + (b ^ i); if (s % 7 == {k % 7}) s += a; }} return s; }}\n"
            for k in range(60)
        )
        (folder / f"part{n}.{suffix}").write_text(headers + body)
    (folder / f"main.{suffix}").write_text("int main(void) { return 0; }\n")


def _makefile(folder: Path, count: int) -> None:
    objects = " ".join(f"part{n}.o" for n in range(count))
    (folder / "Makefile").write_text(
        f"CFLAGS = -O2\nall: main.o {objects}\n\tgcc -o all main.o {objects}\nclean:\n\trm -f *.o all\n"
    )


# --- building -------------------------------------------------------------------------


@family(None, needs=["make", "gcc"])
def make_build(draw: Draw) -> Plan:
    """make -j, from nothing."""
    count, jobs = draw.whole("files", 80, 200), draw.pick("jobs", 2, 4, 8, 16)

    def prepare(folder: Path) -> None:
        _sources(folder, count)
        _makefile(folder, count)

    text = f"for n in 1 2 3 4 5 6; do make -s clean; make -s -j{jobs}; done"
    return _script(text, 70, prepare=prepare)


@family(None, needs=["gcc"])
def configure(draw: Draw) -> Plan:
    """What a configure script does: one small program after the other, for every question."""
    checks = draw.whole("checks", 150, 400)
    text = f"""
for n in $(seq {checks}); do
  name=`echo "func_$n" | sed 's/[^a-z0-9_]/_/g' | tr a-z A-Z`
  cat > conftest.c <<EOF
#include <stdio.h>
char $name (void);
int main (void) {{ return 0; }}
EOF
  if gcc -c -o conftest.o conftest.c > conftest.log 2>&1; then echo "#define HAVE_$name 1" >> confdefs.h; fi
  grep -v '^ *+' conftest.log > conftest.er1; rm -f conftest.o conftest.er1
  val=`expr $n + 1`; dir=`dirname -- conftest/$n`; base=`basename -- conftest/$n`
  case `uname -m` in x86_64) : ;; esac
  test -f confdefs.h && cat confdefs.h | wc -l > /dev/null
done
sed -e 's/HAVE/have/' -e 's/1$/yes/' confdefs.h > config.h; for n in $(seq 40); do sed "s/@x@/$n/" config.h > Makefile.$n; chmod 644 Makefile.$n; done
"""
    return _script(text, 60)


@family(None, held_out=True, needs=["cmake", "ninja", "g++"])
def cmake_build(draw: Draw) -> Plan:
    """cmake, which asks the compiler much, and ninja with C++."""
    count = draw.whole("files", 30, 60)

    def prepare(folder: Path) -> None:
        _sources(folder, count, "cpp")
        (folder / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.20)\nproject(all C CXX)\ninclude(CheckIncludeFile)\n"
            + "".join(f"check_include_file({n}.h HAVE_{n.upper()})\n" for n in
                      ["stdio", "poll", "no", "unistd", "threads", "malloc", "fcntl", "time", "zlib"])
            + "file(GLOB parts *.cpp)\nadd_executable(all ${parts})\n"
        )  # fmt: skip

    text = "for n in 1 2 3; do rm -rf b; cmake -G Ninja -B b . > /dev/null; ninja -C b > /dev/null; done"
    return _script(text, 90, prepare=prepare)


@family(None, held_out=True, needs=["cargo"])
def cargo_build(draw: Draw) -> Plan:
    """A Rust program, built for tests and for release."""
    functions = draw.whole("functions", 200, 800)

    def prepare(folder: Path) -> None:
        (folder / "src").mkdir()
        (folder / "Cargo.toml").write_text(
            '[package]\nname = "all"\nversion = "0.1.0"\nedition = "2021"\n'
        )
        (folder / "src" / "main.rs").write_text(
            "".join(
                f"fn f{n}(v: &[u64]) -> String {{ let s: u64 = v.iter().map(|x| x ^ {n}).sum();"
                f' format!("{{}} {{:?}}", s, v) }}\n' for n in range(functions)
            ) + "fn main() {" + "".join(f"println!(\"{{}}\", f{n}(&[1, 2]));" for n in range(functions)) + "}\n"
        )  # fmt: skip

    text = "export HOME=$PWD CARGO_HOME=$PWD/.cargo RUSTUP_HOME=/root/.rustup; for n in 1 2 3; do cargo build --offline; cargo build --offline --release; cargo clean; done"
    return _script(text, 80, prepare=prepare)


# --- packages -------------------------------------------------------------------------


@family(None, needs=["apt-get"])
def apt(draw: Draw) -> Plan:
    """apt finds out what to do, and fetches a package."""
    package = draw.pick("package", "hello", "tree", "sl", "figlet")
    text = f"""
apt-get -s upgrade > /dev/null; apt-get -s install {package} > /dev/null
apt-cache search compiler > /dev/null; apt-cache policy > /dev/null
apt-get download -q {package}; dpkg-deb -x {package}_*.deb tree; dpkg -l > /dev/null
for p in bash coreutils gcc perl; do apt-cache depends --recurse $p > /dev/null; dpkg -L $p > /dev/null; done
for n in 1 2 3; do apt-get -s dist-upgrade > /dev/null; sleep 1; done
"""
    return _script(text, 60, user=None)


@family(None, held_out=True, needs=["apt-get", "dpkg"])
def apt_install(draw: Draw) -> Plan:
    """A small package is installed once more, for real, if nobody else installs one."""
    package = draw.pick("package", "hostname", "bsdutils", "ncurses-base")
    text = f"""
export DEBIAN_FRONTEND=noninteractive
apt-get -s install --reinstall {package} > /dev/null
apt-get install -q -y --reinstall -o DPkg::Lock::Timeout=20 {package} > apt.log 2>&1
dpkg --verify coreutils; dpkg -s {package} > /dev/null; sleep 2; apt-get -s autoremove > /dev/null
"""
    return _script(text, 60)


@family(None)
def pip_install(draw: Draw) -> Plan:
    """A virtual environment, and packages from a folder of wheels."""
    packages = draw.pick(
        "packages", "pytest rich attrs", "pygments pyyaml click", "hypothesis mypy"
    )

    def prepare(folder: Path) -> None:
        wheels(str(packages))

    text = (
        f"{PYTHON} -m venv env; for n in 1 2; do env/bin/pip install -q --no-index --force-reinstall "
        f"--find-links {WHEELS} {packages}; env/bin/python -m compileall -q -f env/lib; done"
    )
    return _script(text, 80, prepare=prepare)


@family(None, held_out=True)
def pip_build(draw: Draw) -> Plan:
    """A package with a part in C, built from its sources."""
    count = draw.whole("files", 10, 30)

    def prepare(folder: Path) -> None:
        wheels("setuptools wheel")
        _sources(folder, count)
        sources = [f"part{n}.c" for n in range(count)]
        (folder / "setup.py").write_text(
            "from setuptools import Extension, setup\n"
            f"setup(name='all', version='1', ext_modules=[Extension('all', {sources!r})])\n"
        )

    text = (
        f"{PYTHON} -m venv env; env/bin/pip install -q --no-index --find-links {WHEELS} setuptools wheel;"
        "for n in 1 2 3; do rm -rf build; env/bin/pip wheel -q --no-deps --no-build-isolation -w out . ; done"
    )
    return _script(text, 80, prepare=prepare)


#: Wheels that were fetched once; the recorder says where.
WHEELS = Path("/nowhere")


def wheels(packages: str) -> None:
    """Fetch the wheels of these packages, unless that was done before."""
    import subprocess

    WHEELS.mkdir(parents=True, exist_ok=True)
    mark = WHEELS / f".{zlib.crc32(packages.encode())}"
    if not mark.exists():
        subprocess.run(
            [PYTHON, "-m", "pip", "download", "-q", "-d", str(WHEELS), *packages.split()],
            check=True, capture_output=True,
        )  # fmt: skip
        mark.touch()


# --- tests ----------------------------------------------------------------------------


@family(None)
def python_tests(draw: Draw) -> Plan:
    """Tests of Python itself."""
    tests = draw.pick(
        "tests", "test_subprocess", "test_re test_json test_difflib", "test_multiprocessing_fork",
        "test_shutil test_tempfile test_zipfile", "test_os test_posix test_pathlib",
        "test_concurrent_futures", "test_sqlite3 test_csv test_pickle",
    )  # fmt: skip
    return _script(f"{PYTHON} -m test -q {tests}; {PYTHON} -m test -q test_shelve test_glob", 75)


@family(None, held_out=True)
def parallel_tests(draw: Draw) -> Plan:
    """Tests in several processes at once, a process for each."""
    tests = draw.pick(
        "tests", "test_ast test_asyncio test_bytes test_codecs test_collections test_copy test_dict",
        "test_email test_enum test_float test_fractions test_functools test_generators test_heapq",
        "test_io test_itertools test_list test_locale test_logging test_math test_memoryview",
    )  # fmt: skip
    return _script(f"{PYTHON} -m test -q -j{draw.pick('jobs', 2, 4)} {tests}", 90)


@family(None, held_out=True)
def pytest_suite(draw: Draw) -> Plan:
    """A suite with properties, which computes much."""
    where = Path(__file__).parent.parent
    suite = draw.pick(
        "suite", "tests/test_codec.py tests/test_settings.py tests/test_escape.py",
        "plugins/linnix-plugin-rules/tests", "plugins/linnix-plugin-sqlite/tests",
        "tests/test_pipeline.py tests/test_agent.py",
    )  # fmt: skip
    return _script(
        f"cd {shlex.quote(str(where))} && {PYTHON} -m pytest -q -p no:cacheprovider {suite}", 90
    )


# --- files ----------------------------------------------------------------------------


@family(None, needs=["find"])
def find_walk(draw: Draw) -> Plan:
    """find and du over all that there is."""
    text = draw.pick(
        "text", "find / -xdev -name '*.c' > out; du -sx /usr > /dev/null",
        "find / -xdev -type f -newer /etc/hostname -size +1M > out; find /usr -xdev -ls > out2",
        "for n in 1 2 3; do find /usr /var/lib -xdev > out; sleep 2; done; ls -lR /usr > out",
    )  # fmt: skip
    return _script(str(text), 60)


@family(None, held_out=True, needs=["grep"])
def grep_tree(draw: Draw) -> Plan:
    """Text is looked for in many files."""
    text = draw.pick(
        "text", "grep -rI needle /usr/share /usr/include > out; grep -rc main /usr/include > out",
        "find /usr/lib/python3* /usr/share -name '*.py' -print0 | xargs -0 -n 50 -P 2 grep -l import > out",
        "find /usr/share -type f -print0 | xargs -0 -n 20 md5sum > sums; md5sum -c --quiet sums",
    )  # fmt: skip
    return _script(str(text), 60)


@family(None, needs=["gzip", "xz", "zstd", "bzip2"])
def compress(draw: Draw) -> Plan:
    """A large file is compressed."""
    size = draw.whole("mb", 60, 200)
    tool = draw.pick(
        "tool", "gzip", "xz -2", "zstd -3", "zstd -12 -T2", "bzip2", "xz -T2 -6", "gzip -9"
    )

    def prepare(folder: Path) -> None:
        _text(folder / "in", size)

    return _script(f"{tool} < in > out; ls -l out; {tool} -dc < out | cksum", 90, prepare=prepare)


@family(None, held_out=True, needs=["tar"])
def archive(draw: Draw) -> Plan:
    """A backup of a tree, unpacked again."""
    flag = draw.pick("flag", "--gzip", "--zstd", "--xz", "")
    where = draw.pick("where", "/usr/include", "/usr/share/doc", "/usr/lib/python3")
    text = f"tar -c {flag} -f a.tar {where} 2> /dev/null; mkdir t; tar -x {flag} -C t -f a.tar; rm -rf t; tar -t {flag} -f a.tar | wc"
    return _script(text, 70)


@family(None, needs=["git"])
def git_gc(draw: Draw) -> Plan:
    """A repository is packed anew."""
    aggressive = draw.pick("how", "", "--aggressive")
    where = shlex.quote(str(Path(__file__).parent.parent))
    text = (
        f"git clone -q --no-hardlinks {where} r && cd r && for n in 1 2 3 4; do git gc -q {aggressive} --prune=now;"
        " git repack -q -a -d -f --depth=50 --window=100; git fsck 2> /dev/null; done"
    )
    return _script(text, 70)


@family(None, held_out=True, needs=["git"])
def git_commits(draw: Draw) -> Plan:
    """A script that commits again and again, and looks at the history."""
    count = draw.whole("commits", 100, 400)
    text = (
        "git init -q r && cd r && git config user.email a@b && git config user.name a;"
        f"for n in $(seq {count}); do echo $n > f$((n % 20)); git add .; git commit -q -m $n; done;"
        "git log -p > /dev/null; for n in 1 2 3 4 5; do git blame f$n > /dev/null; done; git checkout -q HEAD~50; git bisect start -q HEAD~5 HEAD~80; git bisect run true > /dev/null"
    )
    return _script(text, 60)


@family(None, needs=["sort"])
def sort_file(draw: Draw) -> Plan:
    """A large file is sorted, joined and counted."""
    size = draw.whole("mb", 50, 150)

    def prepare(folder: Path) -> None:
        _text(folder / "in", size)

    text = "sort -S 200M in > out; sort -u -S 50M -T . in | wc -l; awk '{n[$1]++} END {for (w in n) print w, n[w]}' in; cut -d' ' -f3- in | sort -R | head > /dev/null"
    return _script(text, 70, prepare=prepare)


@family(None, needs=["gzip"])
def logs(draw: Draw) -> Plan:
    """Logs that are written, rotated and compressed."""
    rate = draw.whole("kb_per_s", 300, 4000)
    text = (
        f"for r in 1 2 3 4 5; do for n in $(seq 40); do head -c {rate // 4}k /dev/urandom | base64 -w 100 >> log;"
        " sleep 0.25; done; mv log log.$r; gzip log.$r & done; wait"
    )
    return _script(text, 65)


@family(None, needs=["cp"])
def copy_tree(draw: Draw) -> Plan:
    """A tree is copied, compared and removed."""
    where = draw.pick(
        "where", "/usr/lib/gcc", "/usr/include", "/usr/share/perl", "/usr/lib/python3"
    )
    text = f"for n in 1 2 3; do cp -a {where} t; diff -rq {where} t; rm -rf t; sleep 3; done"
    return _script(text, 60)


# --- services -------------------------------------------------------------------------


@family(None)
def cache(draw: Draw) -> Plan:
    """A cache that grows to 500 MB and stops."""
    rate, most = draw.pick("rate", 2.5, 5, 10, 25, 100), draw.pick("mb", 300, 500, 500)
    seconds = float(str(most)) / float(str(rate)) + 30
    argv = (PYTHON, program("cache.py"), str(rate), str(most), "30")
    return Plan(argv, seconds, limit_bytes=LIMIT)


@family(None, needs=["sqlite3"])
def sqlite_load(draw: Draw) -> Plan:
    """A database is filled, indexed and asked."""
    rows = draw.whole("rows", 300_000, 1_500_000)
    text = f"""sqlite3 db <<EOF
CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c REAL);
WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {rows})
INSERT INTO t SELECT x, hex(randomblob(20)), random() FROM n;
CREATE INDEX i ON t (b); SELECT count(DISTINCT substr(b, 1, 4)), avg(c) FROM t;
UPDATE t SET c = c * 2 WHERE a % 3 = 0; DELETE FROM t WHERE a % 5 = 0; VACUUM; PRAGMA integrity_check;
EOF
for n in $(seq 20); do sqlite3 db "SELECT max(b) FROM t WHERE a > $n" > /dev/null; sleep 0.3; done"""
    return _script(text, 60)


@family(None, held_out=True, needs=["/usr/lib/postgresql/15/bin/initdb", "setpriv"])
def postgres(draw: Draw) -> Plan:
    """A database server starts for the first time and works."""
    scale, clients = draw.pick("scale", 3, 10), draw.pick("clients", 2, 8, 20)
    text = f"""export PATH=/usr/lib/postgresql/15/bin:$PATH HOME=$PWD
initdb -D d > /dev/null && pg_ctl -D d -w -o "-c listen_addresses= -k $PWD" start > /dev/null
createdb -h $PWD x; pgbench -h $PWD -i -q -s {scale} x; pgbench -h $PWD -c {clients} -T 25 x > out
psql -h $PWD -c 'VACUUM FULL ANALYZE' x; pg_dump -h $PWD x | gzip > dump; pg_ctl -D d -m fast stop > /dev/null"""
    return _script(text, 80, user=NOBODY)


@family(None)
def steady_service(draw: Draw) -> Plan:
    """A service that uses a part of a core, always as much."""
    share = draw.pick("share", 0.2, 0.4, 0.6)
    text = (
        "import time, os, json\nend = time.time() + 60\nlog = open('log', 'a')\nwhile time.time() < end:\n"
        " t = time.process_time()\n n = 0\n"
        f" while time.process_time() - t < 0.1 * {share}: n += len(json.dumps(list(range(200))))\n"
        " print(n, file=log, flush=True)\n time.sleep(max(0, 0.1 * (1 - %s)))\n" % share
    )
    return Plan((PYTHON, "-c", text), 62, limit_bytes=LIMIT)


@family(None)
def web_server(draw: Draw) -> Plan:
    """A server that answers as fast as it is asked."""
    clients = draw.whole("clients", 1, 4)
    text = (
        "import threading, http.server, http.client, time\n"
        "class H(http.server.SimpleHTTPRequestHandler):\n def log_message(self, *a): print(*a, file=log)\n"
        "log = open('access.log', 'a', 1)\n"
        "s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), H)\n"
        "threading.Thread(target=s.serve_forever, daemon=True).start()\nend = time.time() + 45\n"
        "def ask():\n while time.time() < end:\n  c = http.client.HTTPConnection(*s.server_address)\n"
        "  c.request('GET', '/'); c.getresponse().read(); c.close()\n"
        f"t = [threading.Thread(target=ask) for _ in range({clients})]\n[x.start() for x in t]\n[x.join() for x in t]\n"
    )
    return Plan((PYTHON, "-c", text), 50, limit_bytes=LIMIT)


@family(None)
def cron_burst(draw: Draw) -> Plan:
    """Many small jobs at the same moment, every few seconds."""
    jobs = draw.whole("jobs", 8, 40)
    text = (
        f"for r in 1 2 3 4 5; do for n in $(seq {jobs}); do (df; date; uptime; ps ax | grep -c x; {PYTHON} -c 'import json')"
        " > /dev/null 2>&1 & done; wait; sleep 9; done"
    )
    return _script(text, 65)


@family(None)
def monitoring(draw: Draw) -> Plan:
    """A script that looks after the machine twice a second, with a dozen programs each time."""
    text = (
        "for n in $(seq 90); do ps aux | awk '{s += $3} END {print s}'; df -P | tail -n +2 | while read a b c; do"
        " echo $a | cut -d/ -f3; done; free | grep Mem | tr -s ' ' | cut -d' ' -f3; cat /proc/loadavg | cut -d' ' -f1;"
        " hostname; date +%s; sleep 0.5; done > out"
    )
    return _script(text, 60)


@family(None, held_out=True, needs=["java", "javac"])
def java_start(draw: Draw) -> Plan:
    """A virtual machine that starts, compiles and collects garbage."""

    def prepare(folder: Path) -> None:
        (folder / "A.java").write_text(
            "import java.util.*; public class A { public static void main(String[] a) throws Exception {"
            " Random r = new Random(1); for (int k = 0; k < 30; k++) { Map<String, Integer> m = new HashMap<>();"
            ' for (int i = 0; i < 200000; i++) m.merge("k" + r.nextInt(50000), 1, Integer::sum);'
            " System.out.println(m.size()); Thread.sleep(300); } } }"
        )

    heap = draw.pick("heap", "128m", "512m")
    return _script(f"javac A.java; java -Xmx{heap} A; java -Xmx{heap} A", 70, prepare=prepare)


@family(None, held_out=True, needs=["node"])
def node_server(draw: Draw) -> Plan:
    """A server of another kind, with a cache that is emptied now and then."""
    text = (
        "const http = require('http'); let kept = new Map(); const s = http.createServer((q, r) => {"
        " const k = Math.random().toString(36); kept.set(k, 'x'.repeat(2000)); if (kept.size > 20000) kept.clear();"
        " r.end(JSON.stringify([...Array(200).keys()])) }); s.listen(0, '127.0.0.1', () => { const go = () =>"
        " http.get(s.address(), r => { r.resume(); r.on('end', () => setTimeout(go, 2)) }); for (let i = 0; i < 8; i++) go() });"
        "setTimeout(() => process.exit(0), 45000)"
    )
    return Plan(("node", "-e", text), 50, limit_bytes=LIMIT)


@family(None, held_out=True)
def data_analysis(draw: Draw) -> Plan:
    """A batch job: it reads, computes and writes, again and again."""
    rows = draw.whole("rows", 50_000, 300_000)
    text = (
        "import csv, random, statistics, time, collections\nend = time.time() + 45\nround = 0\n"
        "while time.time() < end:\n round += 1\n"
        f" rows = [(i, random.random(), random.choice('abcdef')) for i in range({rows})]\n"
        " with open('data.csv', 'w', newline='') as f: csv.writer(f).writerows(rows)\n"
        " groups = collections.defaultdict(list)\n"
        " with open('data.csv', newline='') as f:\n  for i, v, g in csv.reader(f): groups[g].append(float(v))\n"
        " print(round, {g: statistics.stdev(v) for g, v in groups.items()}, flush=True)\n time.sleep(1)\n"
    )
    return Plan((PYTHON, "-c", text), 50, limit_bytes=LIMIT)


@family(None)
def deploy_script(draw: Draw) -> Plan:
    """A script that renders files with the usual tools, a few hundred programs in a minute."""
    files = draw.whole("files", 100, 300)
    text = (
        f"for n in $(seq {files}); do host=$(echo web$n | tr a-z A-Z); sum=$(echo $n | sha1sum | cut -c1-8);"
        " printf 'name=%s\\nid=%s\\n' \"$host\" \"$sum\" | sed 's/=/: /' > c.$n; install -m 600 c.$n d.$n;"
        " [ $((n % 25)) = 0 ] && sleep 1; done; cat d.* | sort | uniq -c | sort -n | tail > out"
    )
    return _script(text, 60)
