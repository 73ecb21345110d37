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


@family(None, needs=["cmake", "ninja", "g++"])
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


@family(None, needs=["cargo"])
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


@family(None, held_out=True, needs=["go"])
def go_build(draw: Draw) -> Plan:
    """A program in Go, with the parts of its library that it needs, from nothing; then its tests."""
    package = draw.pick("package", "net/http", "encoding/json", "text/template")

    def prepare(folder: Path) -> None:
        (folder / "go.mod").write_text("module example.org/all\n\ngo 1.19\n")
        (folder / "all.go").write_text(
            f'package main\n\nimport _ "{package}"\n\nfunc main() {{}}\n'
        )
        (folder / "all_test.go").write_text(
            'package main\n\nimport "testing"\n\n'
            "func TestAll(t *testing.T) { main() }\n"
            "func BenchmarkAll(b *testing.B) { for n := 0; n < b.N; n++ { main() } }\n"
        )

    text = "export HOME=$PWD GOCACHE=$PWD/cache GOTOOLCHAIN=local GOFLAGS=-mod=mod; for n in 1 2 3; do go build ./...; go vet ./...; go test -bench . ./...; go clean -cache; done"
    return _script(text, 90, prepare=prepare)


@family(None, held_out=True, needs=["pdflatex"])
def tex_build(draw: Draw) -> Plan:
    """A long document is set, as often as it takes until its references are right."""
    pages = draw.whole("pages", 100, 500)

    def prepare(folder: Path) -> None:
        draw = random.Random(pages)
        chapters = "".join(
            f"\\section{{Part {n}}}\\label{{p{n}}} See \\ref{{p{draw.randrange(pages)}}}.\n"
            + "".join(
                f"{' '.join(draw.choices(_WORDS, k=90))} $\\sum_{{i=0}}^{{{k}}} x_i^2$.\n\n"
                for k in range(6)
            )
            for n in range(pages)
        )
        head = "\\documentclass{article}\\begin{document}\\tableofcontents\n"
        (folder / "all.tex").write_text(head + chapters + "\\end{document}\n")

    text = "export HOME=$PWD; for n in 1 2 3 4 5 6; do rm -f all.aux all.toc; for k in 1 2 3; do pdflatex -interaction=batchmode all > /dev/null; done; sleep 1; done"
    return _script(text, 60, prepare=prepare)


@family(None, held_out=True, needs=["busybox", "unshare", "tar", "gzip"])
def container_build(draw: Draw) -> Plan:
    """An image of layers: a command in each, then the difference is packed and its sum is taken."""
    layers, files = draw.pick("layers", 4, 8), draw.whole("files", 50, 400)
    text = rf"""
mkdir -p root/bin root/tmp root/dev; mknod -m 666 root/dev/urandom c 1 9; cp $(command -v busybox) root/bin/
ldd root/bin/busybox | grep -o '/[^ ]*' | xargs -I % cp -L --parents % root; for n in $(root/bin/busybox --list); do ln -sf busybox root/bin/$n; done
for n in $(seq {layers}); do
  touch mark; sleep 1
  unshare --mount --pid --fork chroot root /bin/sh -c "mkdir /tmp/$n; for k in \$(seq {files}); do head -c 3000 /dev/urandom > /tmp/$n/\$k; done; find / -xdev -type f | sort > /tmp/$n/list; cat /tmp/*/* | md5sum; tar -c /bin /tmp | gzip | wc -c"
  find root -newer mark -type f | tar -c -T - | gzip > layer.$n; sha256sum layer.$n; du -s root
done
cat layer.* | sha256sum; tar -c --exclude=dev root | gzip -1 > image
"""
    return _script(text, 60)


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


@family(None, needs=["apt-get", "dpkg"])
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


@family(None)
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


@family(None, held_out=True, needs=["apt-get"])
def apt_indices(draw: Draw) -> Plan:
    """apt reads the indices of a mirror on this disk, and looks for what depends on what."""
    count = draw.whole("packages", 10_000, 60_000)

    def prepare(folder: Path) -> None:
        draw = random.Random(count)
        (folder / "mirror").mkdir()
        with (folder / "mirror" / "Packages").open("w") as file:
            for n in range(count):
                needs = ", ".join(f"p{draw.randrange(count)}" for _ in range(4))
                file.write(
                    f"Package: p{n}\nVersion: 1.{n % 9}\nArchitecture: all\nMaintainer: a <a@b>\n"
                    f"Depends: {needs}\nFilename: p{n}.deb\nSize: 1000\nSHA256: {n:064x}\n"
                    f"Description: {' '.join(draw.choices(_WORDS, k=12))}\n\n"
                )
        (folder / "list").write_text(f"deb [trusted=yes] file:{folder}/mirror ./\n")

    text = """
mkdir -p lists/partial cache/archives/partial; touch status
o="-o Dir::Etc::SourceList=$PWD/list -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists=$PWD/lists -o Dir::State::status=$PWD/status -o Dir::Cache=$PWD/cache -o APT::Sandbox::User=root"
for n in 1 2 3; do
  rm -rf lists/*_Packages; apt-get $o update; apt-cache $o search word | wc -l; apt-cache $o stats > /dev/null
  for k in 1 20 300 4000; do apt-cache $o rdepends p$k | wc -l; apt-cache $o show p$k > /dev/null; apt-get $o -s install p$k | tail -n 1; done
  apt-cache $o dump | md5sum; apt-cache $o unmet | wc -l; sleep 2
done
"""
    return _script(text, 60, prepare=prepare)


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


@family(None)
def parallel_tests(draw: Draw) -> Plan:
    """Tests in several processes at once, a process for each."""
    tests = draw.pick(
        "tests", "test_ast test_asyncio test_bytes test_codecs test_collections test_copy test_dict",
        "test_email test_enum test_float test_fractions test_functools test_generators test_heapq",
        "test_io test_itertools test_list test_locale test_logging test_math test_memoryview",
    )  # fmt: skip
    return _script(f"{PYTHON} -m test -q -j{draw.pick('jobs', 2, 4)} {tests}", 90)


@family(None)
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


@family(None, needs=["grep"])
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


@family(None, needs=["tar"])
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


@family(None, needs=["git"])
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


@family(None, held_out=True, needs=["rsync"])
def rsync_backups(draw: Draw) -> Plan:
    """A tree is mirrored each time anew: what has changed is copied, the rest is linked."""
    where = draw.pick("where", "/usr/share", "/usr/lib/gcc", "/usr/include", "/usr/share/doc")
    flags = draw.pick("flags", "-a", "-a --checksum", "-az")
    text = (
        f"rsync -a {where}/ t; mkdir b0; for n in 1 2 3 4 5 6; do find t -type f | head -n $((n * 40)) | xargs touch;"
        f" rsync {flags} --link-dest=../b$((n - 1)) t/ b$n; [ $n -gt 3 ] && rm -rf b$((n - 3)); du -s b$n; sleep 2; done"
    )
    return _script(text, 60)


@family(None, held_out=True, needs=["tar", "zstd", "openssl", "mksquashfs"])
def encrypted_backup(draw: Draw) -> Plan:
    """A backup that is packed, encrypted, cut into pieces and looked at again; or an image of a tree."""
    where = draw.pick(
        "where", "/usr/include", "/usr/share/doc", "/usr/share/perl", "/usr/lib/python3"
    )
    packer = draw.pick("packer", "zstd -T2", "zstd -9", "xz -T2 -1")
    text = (
        f"for n in 1 2 3; do tar -c {where} 2> /dev/null | {packer} | openssl enc -aes-256-cbc -pbkdf2 -k x | split -b 4M - part.;"
        " sha256sum part.* > sums; sha256sum -c --quiet sums;"
        f" cat part.* | openssl enc -d -aes-256-cbc -pbkdf2 -k x | {packer} -d | tar -t | wc -l;"
        f" mksquashfs {where} image -comp gzip -no-progress > /dev/null; unsquashfs -no-progress -d t image > /dev/null; rm -rf t image part.*; sleep 2; done"
    )
    return _script(text, 80)


@family(None, held_out=True, needs=["git"])
def git_rewrite(draw: Draw) -> Plan:
    """A history is imported, changed commit by commit with a shell for each, and checked."""
    commits = draw.whole("commits", 200, 800)

    def prepare(folder: Path) -> None:
        with (folder / "stream").open("w") as file:
            for n in range(1, commits + 1):
                text = f"{n}\n" * 200
                file.write(
                    f"commit refs/heads/main\nmark :{n}\ncommitter a <a@b> {1_700_000_000 + n} +0000\ndata 2\nm\n"
                    + (f"from :{n - 1}\n" if n > 1 else "")
                    + f"M 100644 inline f{n % 50}\ndata {len(text)}\n{text}\n"
                )

    text = (
        "export HOME=$PWD FILTER_BRANCH_SQUELCH_WARNING=1; git init -q -b main r && cd r && git config user.email a@b && git config user.name a;"
        " git fast-import --quiet < ../stream && git reset -q --hard; for word in m n o; do WORD=$word git filter-branch -f --msg-filter 'sed s/^/$WORD/' HEAD~120..HEAD > /dev/null; done;"
        " git format-patch -q -o p HEAD~60; git checkout -q -b other HEAD~60; git am -q p/*; git bundle create -q b --all; git clone -q b c; git -C c fsck --full; git -C c log -p --stat | md5sum"
    )
    return _script(text, 60, prepare=prepare)


@family(None, held_out=True, needs=["logrotate"])
def log_rotation(draw: Draw) -> Plan:
    """A service that writes its log, and logrotate, which packs what is old."""
    rate, keep = draw.whole("kb_per_s", 200, 4000), draw.pick("keep", 2, 5)
    text = f"""
mkdir -m 755 logs
(while :; do head -c {rate // 4}k /dev/urandom | base64 >> logs/app.log; sleep 0.25; done) &
printf '%s {{\n rotate {keep}\n compress\n delaycompress\n copytruncate\n missingok\n size 1k\n}}\n' $PWD/logs/app.log > conf; chmod 644 conf
for n in 1 2 3 4 5 6; do sleep 8; logrotate -s state conf; ls -l logs > /dev/null; done; kill %1
"""
    return _script(text, 60)


@family(None, held_out=True, needs=["gawk", "sort", "join"])
def awk_report(draw: Draw) -> Plan:
    """The report of a day's log: sums by name, a join, the largest ones."""
    size = draw.whole("mb", 30, 120)

    def prepare(folder: Path) -> None:
        _text(folder / "log", size)

    text = """
for n in 1 2 3; do
  gawk '{ k = $1 " " $2 " " $3; c[k]++; s[k] += $10; last[$10 % 1000] = $0 } END { PROCINFO["sorted_in"] = "@val_num_desc"; for (k in c) print k, c[k], s[k] / c[k] }' log > sums
  gawk -F' ' '{ print $1 "-" $4, $10 }' log | sort -S 100M > a; gawk '{ n[$1] += $2 } END { for (k in n) print k, n[k] }' a | sort > b
  join a b | gawk '$2 > 0.5 { h[int($2 * 100)]++ } END { for (k in h) print k, h[k] }' | sort -n > histogram; sleep 1
done
"""
    return _script(text, 70, prepare=prepare)


@family(None, held_out=True, needs=["gm"])
def pictures(draw: Draw) -> Plan:
    """Photographs are made smaller, one after the other or two at once."""
    count, width = draw.whole("pictures", 15, 60), draw.pick("at_once", 1, 2)
    text = (
        "gm convert -size 1600x1200 plasma:red-blue in.png;"
        f" seq {count} | xargs -n 1 -P {width} sh -c 'gm convert in.png -rotate $0 -resize 800x600 -sharpen 0x1 -quality 85 out.$0.jpg; gm identify out.$0.jpg; gm convert out.$0.jpg -resize 160x120 thumb.$0.jpg';"
        " gm montage thumb.*.jpg sheet.jpg; ls -l | wc -l"
    )
    return _script(text, 70)


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


@family(None, needs=["/usr/lib/postgresql/15/bin/initdb", "setpriv"])
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


@family(None, needs=["java", "javac"])
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


@family(None, needs=["node"])
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


@family(None)
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


@family(None, held_out=True, needs=["redis-server", "redis-benchmark", "redis-cli"])
def redis(draw: Draw) -> Plan:
    """A store in memory starts, is filled, asked, saved in the background, and emptied."""
    keys, size = draw.whole("keys", 20_000, 100_000), draw.pick("bytes", 50, 500, 1000)
    clients = draw.pick("clients", 4, 20)
    text = f"""
redis-server --port 0 --unixsocket $PWD/s --dir $PWD --save '' --appendonly yes --appendfsync everysec --daemonize no > log &
for n in $(seq 40); do redis-cli -s s ping > /dev/null 2>&1 && break; sleep 0.25; done
for n in 1 2 3; do
  redis-benchmark -s s -q -r {keys} -n {keys} -c {clients} -d {size} -t set,get,lpush,lrange_100 > out; redis-cli -s s bgsave
  sleep 4; redis-cli -s s info memory > /dev/null; redis-cli -s s bgrewriteaof; sleep 4; redis-cli -s s del mylist
done
redis-cli -s s flushall; sleep 2; redis-cli -s s shutdown nosave
"""
    return _script(text, 70)


@family(None, held_out=True, needs=["memcached", "ruby"])
def memcached(draw: Draw) -> Plan:
    """A cache that fills up to its own limit and throws away the oldest from then on."""
    most, rate = draw.pick("mb", 64, 128, 256), draw.pick("mb_per_s", 3, 8, 30)
    text = (
        "require 'socket'; sleep 1; s = UNIXSocket.new('s'); e = Time.now + 50; n = 0; t = Time.now;"
        " while Time.now < e; n += 1; s.write(%(set k#{n} 0 0 5000\\r\\n#{'x' * 5000}\\r\\n)); s.gets;"
        " s.write(%(get k#{rand(n) + 1}\\r\\n)); nil until s.gets.start_with?('END');"
        f" ahead = n / {int(str(rate)) * 200}.0 - (Time.now - t); sleep ahead if ahead > 0; end"
    )
    user = "-u root" if draw.pick("as", "root", "nobody") == "root" else "-u nobody"
    return _script(
        f'memcached {user} -s $PWD/s -a 777 -m {most} & ruby -e "{text}"; kill %1; wait', 60
    )


@family(None, held_out=True, needs=["nginx", "ab"])
def nginx(draw: Draw) -> Plan:
    """A web server under load that takes a new configuration three times meanwhile."""
    clients, workers = draw.pick("clients", 2, 10, 40), draw.pick("workers", 1, 4)
    text = f"""
port=$((20000 + $$ % 20000)); mkdir -p www logs; for n in $(seq 50); do head -c $((n * 2000)) /dev/urandom | base64 > www/$n.html; done
cat > conf <<EOF
user root; worker_processes {workers}; daemon off; pid $PWD/pid; error_log $PWD/logs/error; events {{ worker_connections 512; }}
http {{ access_log $PWD/logs/access; gzip on; server {{ listen 127.0.0.1:$port; root $PWD/www; }} }}
EOF
/usr/sbin/nginx -p $PWD -e logs/error -c $PWD/conf & sleep 1
for n in 1 2 3; do ab -q -t 11 -n 1000000 -c {clients} -H 'Accept-Encoding: gzip' http://127.0.0.1:$port/$((n * 10)).html > out.$n; kill -HUP $(cat pid); sleep 3; done
kill -QUIT $(cat pid); wait
"""
    return _script(text, 60)


@family(None, held_out=True, needs=["php", "ab"])
def php_application(draw: Draw) -> Plan:
    """An application with several workers that sorts, renders and keeps sessions in files."""
    workers, clients = draw.pick("workers", 2, 4), draw.pick("clients", 1, 4)

    def prepare(folder: Path) -> None:
        (folder / "index.php").write_text(
            "<?php session_save_path(__DIR__); session_start(); $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;"
            " $rows = []; for ($i = 0; $i < 2000; $i++) $rows[] = ['id' => $i, 'name' => md5((string)$i)];"
            " usort($rows, fn($a, $b) => strcmp($a['name'], $b['name']));"
            " echo '<ul>', implode('', array_map(fn($r) => '<li>' . htmlspecialchars($r['name']), $rows)), '</ul>';"
        )

    text = f"""
port=$((20000 + $$ % 20000)); PHP_CLI_SERVER_WORKERS={workers} php -S 127.0.0.1:$port > log 2>&1 & server=$!; sleep 1
for n in 1 2 3 4; do ab -q -t 9 -n 100000 -c {clients} http://127.0.0.1:$port/ > out; sleep 2; done; kill $server; ls | wc -l
"""
    return _script(text, 60, prepare=prepare)


@family(None, held_out=True)
def database_checkpoints(draw: Draw) -> Plan:
    """An application whose database takes a few transactions a second, with checkpoints and a backup."""
    rate, rows = draw.pick("per_s", 5, 20), draw.whole("rows", 20, 300)
    text = (
        "import os, random, sqlite3, time\ndb = sqlite3.connect('db', isolation_level=None)\n"
        "db.execute('PRAGMA journal_mode = WAL'); db.execute('PRAGMA wal_autocheckpoint = 0')\n"
        "db.execute('CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c BLOB)'); db.execute('CREATE INDEX i ON t (b)')\n"
        "begin, n = time.monotonic(), 0\nwhile time.monotonic() < begin + 52:\n n += 1\n db.execute('BEGIN')\n"
        f" db.executemany('INSERT INTO t (b, c) VALUES (?, ?)', [(os.urandom(8).hex(), os.urandom(600)) for _ in range({rows})])\n"
        " db.execute('UPDATE t SET b = b || 1 WHERE a % 97 = ?', (n % 97,)); db.execute('COMMIT')\n"
        f" if n % {5 * int(str(rate))} == 0: db.execute('PRAGMA wal_checkpoint(TRUNCATE)'); db.execute('DELETE FROM t WHERE a % 5 = 0')\n"
        f" time.sleep(max(0, begin + n / {rate} - time.monotonic()))\n"
        "db.execute('VACUUM INTO ?', ('backup',)); db.execute('VACUUM'); db.execute('PRAGMA integrity_check')\n"
    )
    return Plan((PYTHON, "-c", text), 65, limit_bytes=LIMIT)


@family(None, held_out=True, needs=[str(Path(PYTHON).with_name("numpy-config"))])
def numpy_batches(draw: Draw) -> Plan:
    """Arrays that grow, and what is computed of them; each batch gives its memory back."""
    rows = draw.whole("mb", 100, 600) * 1250 // 20
    text = (
        "import numpy, time\nr = numpy.random.default_rng(1)\nend = time.time() + 50\nbatch = 0\n"
        "while time.time() < end:\n batch += 1\n parts = []\n"
        f" for n in range(20):\n  parts.append(r.standard_normal(({rows}, 100)))\n  time.sleep(0.15)\n"
        " a = numpy.concatenate(parts)\n c = numpy.cov(a, rowvar=False); w, v = numpy.linalg.eigh(c)\n"
        " a.sort(axis=1); print(batch, w[-1], a.mean(), flush=True)\n"
        " if batch % 2: numpy.save('a.npy', a[::10])\n del parts, a\n time.sleep(2)\n"
    )
    threads = str(draw.pick("threads", 1, 2))
    return Plan(
        (PYTHON, "-c", text), 75, limit_bytes=LIMIT,
        env={"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
    )  # fmt: skip


@family(None, held_out=True, needs=["ruby", "gzip", "openssl"])
def mail_batches(draw: Draw) -> Plan:
    """Every few seconds a batch of mails is rendered, packed, signed and delivered, each by small programs."""
    mails, pause = draw.whole("mails", 5, 25), draw.pick("pause", 5, 9)
    text = f"""
mkdir tmp new; openssl genrsa -out key 2048 2> /dev/null
for r in 1 2 3 4 5; do
  for n in $(seq {mails}); do
    id=$(date +%s%N); ruby -e 'puts "To: x@y", "", "Dear #{{ARGV[0]}}", "word " * 2000' $n > tmp/$id
    gzip < tmp/$id | base64 > tmp/$id.gz; openssl dgst -sha256 -sign key -out tmp/$id.sig tmp/$id; mv tmp/$id* new/
  done
  ls new | wc -l; find new -name '*.sig' -size +1k; sleep {pause}
done
"""
    return _script(text, 80)


@family(None, held_out=True, needs=["expect"])
def interactive_session(draw: Draw) -> Plan:
    """Somebody at a terminal: a command, a look at what it says, the next one."""
    pause = draw.pick("pause_ms", 400, 1000, 2000)
    text = (
        "set timeout 20\nspawn bash --norc -i\nset commands {{ls -la /etc} {ps aux | head} {cd /usr/share/doc} {ls | wc -l}"
        " {grep -rl license . | head -n 50} {history | tail} {df -h} {find . -name 'c*' | wc -l} {for f in *; do wc -c < $f/copyright; done | sort | uniq -c | head}"
        " {top -b -n 2 | head -n 20} {du -s /usr/include} {perl -e 'print 2 ** 10'} {vmstat 1 3} {cat /proc/meminfo}}\n"
        "set end [expr {[clock seconds] + 50}]\nwhile {[clock seconds] < $end} {\n foreach command $commands {\n"
        "  foreach c [split $command {}] { send -- $c; after 20 }\n  send {; echo rea''dy}; send \\r\n  expect ready\n"
        f"  after {pause}\n  if {{[clock seconds] >= $end}} break\n }}\n}}\nsend exit\\r\nexpect eof\n"
    )

    def prepare(folder: Path) -> None:
        (folder / "session").write_text(text)

    return _script(
        "export TERM=dumb HISTFILE=/dev/null; expect session > typescript; tail -n 3 typescript",
        60,
        prepare=prepare,
    )
