# ruff: noqa: E501 - scripts are written as one would type them
"""Programs that are an incident, each of a known class.

Those of the split ``held-out`` are other programs than those of the development set, not other
parameters of the same: rules are tuned on the first ones only.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs

from evaluation.cases import Draw, Plan, family, program

__all__: list[str] = []

PYTHON = sys.executable
NOBODY = 65534

#: What the witness has to count, on a machine that others use, too. A storm: forks a second. A
#: spin: cores. Storage: megabytes a second, or the percentage of the time that work waited for it.
#: A tree: processes alive at once. Memory: the share of the limit.
FORKS, FLOOD, CORES, STORAGE, ALIVE, SHARE = 60.0, 30.0, 0.25, 20.0, 100.0, 0.95


def _binary(name: str) -> str:
    """A program of this folder that the recorder compiles."""
    return f"@{name}"


def _shell(loop: str, seconds: int, shell: str = "bash") -> tuple[str, ...]:
    """A loop of a shell that counts its turns and ends by itself."""
    turns = (
        f"end=$(($(date +%s) + {seconds})); n=0; "
        f"while [ $((n % 50)) -ne 0 ] || [ $(date +%s) -lt $end ]; do {loop}; n=$((n + 1)); done; "
        f'echo "{{\\"count\\": $n}}"'
    )
    return shell, "-c", turns


def _saved(name: str, text: str) -> Callable[[Path], None]:
    """A script for an interpreter that takes none on its command line."""

    def prepare(folder: Path) -> None:
        (folder / name).write_text(text)

    return prepare


def _go(name: str) -> Callable[[Path], None]:
    """A program of this folder that the compiler of Go puts beside the case."""

    def prepare(folder: Path) -> None:
        subprocess.run(
            ["go", "build", "-o", str(folder / name.removesuffix(".go")), program(name)],
            check=True, capture_output=True, env={**os.environ, "GOTOOLCHAIN": "local"},
        )  # fmt: skip

    return prepare


def _stress(*arguments: object, seconds: int) -> tuple[str, ...]:
    return "stress-ng", *map(str, arguments), "--timeout", f"{seconds}s", "--metrics-brief"


# --- fork storms ----------------------------------------------------------------------


@family("fork_storm", needs=["stress-ng"])
def stress_fork(draw: Draw) -> Plan:
    """stress-ng --fork."""
    seconds = draw.whole("seconds", 7, 11)
    return Plan(_stress("--fork", draw.pick("workers", 1, 2, 4), seconds=seconds), seconds, FORKS)


@family("fork_storm", needs=["stress-ng"])
def stress_vfork(draw: Draw) -> Plan:
    """stress-ng --vfork."""
    seconds = draw.whole("seconds", 6, 8)
    return Plan(_stress("--vfork", draw.pick("workers", 1, 2), seconds=seconds), seconds, FORKS)


@family("fork_storm", needs=["bash"])
def bash_subshells(draw: Draw) -> Plan:
    """A shell loop that forks for nothing."""
    seconds = draw.whole("seconds", 7, 12)
    loop = draw.pick("loop", "(:)", "x=$(:)", ": | :")
    # Between the turns of the loop it asks date(1) for the time, 30 times a second and more.
    return Plan(_shell(str(loop), seconds), seconds, FORKS, also=("short_job_flood",))


@family("fork_storm")
def python_forks(draw: Draw) -> Plan:
    """os.fork in a loop, with and without a limit on the rate."""
    seconds = draw.whole("seconds", 8, 12)
    rate = draw.pick("rate", 0, 170, 250, 400)
    argv = (PYTHON, program("forks.py"), str(rate), str(seconds), "fork")
    return Plan(argv, seconds, FORKS)


@family("fork_storm", needs=["gcc"])
def c_forks(draw: Draw) -> Plan:
    """fork(2) in a loop; the children live for a moment."""
    seconds, rate = draw.whole("seconds", 7, 12), draw.whole("rate", 160, 3000)
    argv = (
        _binary("forks.c"),
        str(rate),
        str(seconds),
        str(draw.pick("hold_ms", 0, 1, 20)),
        "fork",
    )
    return Plan(argv, seconds, FORKS, also=("runaway_tree",))


@family("fork_storm", needs=["dash"])
def dash_subshells(draw: Draw) -> Plan:
    """Another shell, and its children run beside it."""
    seconds = draw.whole("seconds", 7, 12)
    loop = draw.pick("loop", "(exit 0) & wait", "(exit 0)", "y=$(exit 0)")
    return Plan(_shell(str(loop), seconds, "dash"), seconds, FORKS, also=("short_job_flood",))


@family("fork_storm", needs=["perl"])
def perl_forks(draw: Draw) -> Plan:
    """fork in a loop, in Perl."""
    seconds = draw.whole("seconds", 7, 12)
    pause = draw.pick("pause", 0, 0.001, 0.004)
    text = (
        f"my $end = time + {seconds}; my $n = 0; while (time < $end) {{ my $p = fork; exit 0 if !$p;"
        f" waitpid $p, 0; $n++; select(undef, undef, undef, {pause}) if {pause} }}"
        ' print qq({"count": $n}\\n);'
    )
    return Plan(("perl", "-e", text), seconds, FORKS)


@family("fork_storm")
def python_processes(draw: Draw) -> Plan:
    """multiprocessing.Process for every item."""
    seconds = draw.whole("seconds", 8, 12)
    return Plan((PYTHON, program("forks.py"), "0", str(seconds), "process"), seconds, FORKS)


@family("fork_storm", needs=["gcc"])
def c_double_forks(draw: Draw) -> Plan:
    """Daemons that leave their parent, or vfork(2)."""
    seconds, rate = draw.whole("seconds", 7, 11), draw.whole("rate", 160, 1500)
    mode = draw.pick("mode", "double", "vfork")
    return Plan((_binary("forks.c"), str(rate), str(seconds), "0", str(mode)), seconds, FORKS)


@family("fork_storm", needs=["stress-ng"])
def stress_daemon(draw: Draw) -> Plan:
    """stress-ng --daemon."""
    seconds = draw.whole("seconds", 7, 9)
    return Plan(_stress("--daemon", 1, seconds=seconds), seconds, FORKS)


@family("fork_storm", held_out=True, needs=["ruby"])
def ruby_forks(draw: Draw) -> Plan:
    """fork in a loop, in Ruby."""
    seconds, pause = draw.whole("seconds", 7, 12), draw.pick("pause", 0, 0.001, 0.004)
    text = (
        f"e = Time.now + {seconds}; n = 0; while Time.now < e; Process.wait(fork {{ exit! }}); n += 1;"
        f' sleep {pause} if {pause} > 0; end; puts %({{"count": #{{n}}}})'
    )
    return Plan(("ruby", "-e", text), seconds, FORKS)


@family("fork_storm", held_out=True, needs=["ruby"])
def forking_server(draw: Draw) -> Plan:
    """A server that forks for every connection, and clients that come back at once."""
    seconds, clients = draw.whole("seconds", 7, 12), draw.pick("clients", 1, 2, 4)
    text = (
        "require 'socket'; trap('CLD', 'IGNORE'); s = UNIXServer.new('s'); n = 0;"
        f" {clients}.times {{ Thread.new {{ loop {{ c = UNIXSocket.new('s'); c.read; c.close }} }} }};"
        f" e = Time.now + {seconds}; while Time.now < e; c = s.accept;"
        " fork { c.write('done'); exit! }; c.close; n += 1; end;"
        ' puts %({"count": #{n}}); $stdout.flush; exit!'
    )
    return Plan(("ruby", "-e", text), seconds, FORKS)


@family("fork_storm", held_out=True, needs=["php"])
def php_forks(draw: Draw) -> Plan:
    """pcntl_fork in a loop; the parent waits for each child, or for many at once."""
    seconds, many = draw.whole("seconds", 7, 12), draw.pick("many", 1, 1, 20)
    text = (
        f"$e = time() + {seconds}; $n = 0; while (time() < $e) {{ for ($k = 0; $k < {many}; $k++) {{"
        " if (!pcntl_fork()) exit(0); $n++; } while (pcntl_wait($s) > 0) {} }"
        ' printf("{\\"count\\": %d}\\n", $n);'
    )
    return Plan(("php", "-r", text), seconds, FORKS)


@family("fork_storm", held_out=True, needs=["gcc"])
def c_clones(draw: Draw) -> Plan:
    """clone3(2) with several flags."""
    seconds, rate = draw.whole("seconds", 7, 12), draw.whole("rate", 160, 2000)
    how = draw.pick("how", "plain", "memory", "pidfd")
    return Plan((_binary("clones.c"), str(rate), str(seconds), str(how)), seconds, FORKS)


@family("fork_storm", held_out=True, needs=["guile"])
def guile_forks(draw: Draw) -> Plan:
    """primitive-fork in a loop, in Scheme."""
    seconds, pause = draw.whole("seconds", 7, 12), draw.pick("pause_us", 0, 0, 4000)
    text = (
        f"(let ((end (+ (current-time) {seconds}))) (let loop ((n 0)) (if (< (current-time) end)"
        " (let ((p (primitive-fork))) (if (zero? p) (primitive-_exit 0)"
        f" (begin (waitpid p) (usleep {pause}) (loop (+ n 1)))))"
        ' (format #t "{\\"count\\": ~a}~%" n))))'
    )
    return Plan(("guile", "--no-auto-compile", "-c", text), seconds, FORKS)


# --- floods of short jobs -------------------------------------------------------------


@family("short_job_flood", needs=["stress-ng", "setpriv"])
def stress_exec(draw: Draw) -> Plan:
    """stress-ng --exec, which does nothing as root."""
    seconds = draw.whole("seconds", 8, 12)
    argv = _stress("--exec", draw.pick("workers", 1, 2), seconds=seconds)
    return Plan(argv, seconds, FLOOD, also=("fork_storm",), user=NOBODY)


@family("short_job_flood", needs=["stress-ng", "setpriv"])
def stress_spawn(draw: Draw) -> Plan:
    """stress-ng --spawn, which does nothing as root."""
    seconds = draw.whole("seconds", 8, 12)
    argv = _stress("--spawn", draw.pick("workers", 1, 2), seconds=seconds)
    return Plan(argv, seconds, FLOOD, also=("fork_storm",), user=NOBODY)


@family("short_job_flood", needs=["bash"])
def bash_jobs(draw: Draw) -> Plan:
    """A script that runs a program, or a few, over and over."""
    seconds = draw.whole("seconds", 8, 12)
    loop = draw.pick(
        "loop", "/bin/true", "date > /dev/null", "ls / > /dev/null; /bin/echo > /dev/null",
        "/bin/true; cat /etc/hostname > /dev/null; basename /a/b > /dev/null",
    )  # fmt: skip
    return Plan(_shell(str(loop), seconds), seconds, FLOOD, also=("fork_storm",))


@family("short_job_flood", needs=["xargs"])
def xargs_jobs(draw: Draw) -> Plan:
    """xargs with a program that does nearly nothing."""
    seconds = draw.whole("seconds", 8, 12)
    width, job = draw.pick("width", 1, 2, 4), draw.pick("job", "/bin/true", "expr", "echo")
    text = f"yes 1 | timeout {seconds} xargs -n 1 -P {width} {job} > /dev/null"
    return Plan(("bash", "-c", text), seconds, 0, also=("fork_storm",))


@family("short_job_flood")
def python_runs(draw: Draw) -> Plan:
    """subprocess.run in a loop, with and without a limit on the rate."""
    seconds = draw.whole("seconds", 8, 12)
    rate = draw.pick("rate", 0, 0, 90, 140)
    jobs = draw.pick("jobs", "true", "true", "uname id")
    argv = (PYTHON, program("forks.py"), str(rate), str(seconds), "run", *str(jobs).split())
    return Plan(argv, seconds, FLOOD, also=("fork_storm",))


@family("short_job_flood", needs=["gcc"])
def c_spawns(draw: Draw) -> Plan:
    """posix_spawn(3) in a loop."""
    seconds, rate = draw.whole("seconds", 8, 12), draw.whole("rate", 90, 600)
    job = draw.pick("job", "/bin/true", "/usr/bin/whoami", "/bin/hostname")
    argv = (_binary("forks.c"), str(rate), str(seconds), "0", "spawn", str(job))
    return Plan(argv, seconds, FLOOD, also=("fork_storm",))


@family("short_job_flood", needs=["dash"])
def nested_shells(draw: Draw) -> Plan:
    """A script that starts scripts."""
    seconds = draw.whole("seconds", 8, 12)
    loop = draw.pick("loop", "sh -c 'exit 0'", "sh -c ':' | cat", "bash -c 'exit 1'")
    return Plan(_shell(str(loop), seconds, "dash"), seconds, FLOOD, also=("fork_storm",))


@family("short_job_flood", needs=["find"])
def find_exec(draw: Draw) -> Plan:
    """find with a program for every file."""
    seconds = draw.whole("seconds", 8, 12)
    job = draw.pick("job", "true", "test -f", "basename")
    text = f"timeout {seconds} find /usr/share /usr/lib -type f -exec {job} {{}} \\; > /dev/null"
    return Plan(("bash", "-c", text), seconds, 0, also=("fork_storm",))


@family("short_job_flood", needs=["perl"])
def perl_jobs(draw: Draw) -> Plan:
    """system in a loop, in Perl."""
    seconds = draw.whole("seconds", 8, 12)
    job = draw.pick("job", "'expr', '1', '+', '1'", "'sleep', '0'", "'test', '1'")
    text = (
        f"my $end = time + {seconds}; my $n = 0; open STDOUT, '>&', STDERR; open my $out, '>&', 1;"
        f' while (time < $end) {{ system({job}); $n++ }} print qq(\\n{{"count": $n}}\\n);'
    )
    return Plan(("perl", "-e", text), seconds, FLOOD, also=("fork_storm",))


@family("short_job_flood", needs=["node"])
def node_jobs(draw: Draw) -> Plan:
    """child_process.spawnSync in a loop."""
    seconds = draw.whole("seconds", 9, 12)
    text = (
        f"const c = require('child_process'); const end = Date.now() + {seconds}000; let n = 0;"
        "while (Date.now() < end) { c.spawnSync('true'); n++ } console.log(JSON.stringify({count: n}))"
    )
    return Plan(("node", "-e", text), seconds, FLOOD, also=("fork_storm",))


@family("short_job_flood", held_out=True, needs=["parallel"])
def parallel_jobs(draw: Draw) -> Plan:
    """GNU parallel with a script of a few small programs for every item."""
    seconds, width = draw.whole("seconds", 9, 12), draw.pick("width", 2, 4, 8)
    script = draw.pick(
        "script", "expr {} + 1; basename /a/{}; uname; nproc; /bin/true; arch",
        "date +%s; id -u; hostname; /bin/echo {}; tty; whoami; dirname /a/{}; /bin/true",
    )  # fmt: skip
    text = (
        f"export HOME=$PWD; yes 1 | timeout {seconds} parallel --joblog jobs -n 1 -j {width} '{script}' > /dev/null;"
        f' echo "{{\\"count\\": $(($(wc -l < jobs) * {str(script).count(";") + 1}))}}"'
    )
    return Plan(("bash", "-c", text), seconds, FLOOD, also=("fork_storm",))


@family("short_job_flood", held_out=True, needs=["gcc"])
def crashing_pool(draw: Draw) -> Plan:
    """A supervisor whose jobs fail at once, and are started again at once."""
    seconds, width = draw.whole("seconds", 8, 12), draw.pick("width", 1, 2, 4)
    job = draw.pick("job", "false", "sh -c 'exit 3'", "cat /nothing", "mktemp -d /no/XX")
    argv = (_binary("pool.c"), str(width), str(seconds), *shlex.split(str(job)))
    return Plan(argv, seconds, FLOOD, also=("fork_storm",))


@family("short_job_flood", held_out=True, needs=["go"])
def go_jobs(draw: Draw) -> Plan:
    """Goroutines that run programs."""
    seconds, width = draw.whole("seconds", 8, 12), draw.pick("width", 1, 2, 4)
    job = draw.pick("job", "true", "uname -r", "nproc", "readlink /proc/self")
    argv = ("./jobs", str(width), str(seconds), "run", *str(job).split())
    return Plan(argv, seconds, FLOOD, also=("fork_storm",), prepare=_go("jobs.go"))


@family("short_job_flood", held_out=True, needs=["ruby"])
def ruby_jobs(draw: Draw) -> Plan:
    """A script of Ruby that asks other programs for everything."""
    seconds, pause = draw.whole("seconds", 8, 12), draw.pick("pause", 0, 0, 0.006)
    job = draw.pick("job", "`hostname`", "system('true')", "IO.popen(['id', '-u'], &:read)")
    text = (
        f"e = Time.now + {seconds}; n = 0; while Time.now < e; {job}; n += 1;"
        f' sleep {pause} if {pause} > 0; end; puts %({{"count": #{{n}}}})'
    )
    return Plan(("ruby", "-e", text), seconds, FLOOD, also=("fork_storm",))


@family("short_job_flood", held_out=True, needs=["lua5.4"])
def lua_jobs(draw: Draw) -> Plan:
    """os.execute and io.popen in a loop, each with a shell."""
    seconds = draw.whole("seconds", 8, 12)
    job = draw.pick(
        "job", "os.execute('true')", "io.popen('date +%s'):read('a')", "os.execute('[ -e x ]')"
    )
    text = (
        f"local e, n = os.time() + {seconds}, 0 while os.time() < e do {job} n = n + 1 end"
        " print('{\"count\": ' .. n .. '}')"
    )
    return Plan(("lua5.4", "-e", text), seconds, FLOOD, also=("fork_storm",))


@family("short_job_flood", held_out=True, needs=["make"])
def make_targets(draw: Draw) -> Plan:
    """make with a program of no length for each of thousands of targets."""
    seconds, jobs = draw.whole("seconds", 8, 12), draw.pick("jobs", 1, 2, 8)
    recipe = draw.pick("recipe", "@echo x", "@echo x; :", "@basename $@")
    text = f'timeout {seconds} make -s -j{jobs} > made; echo "{{\\"count\\": $(wc -l < made)}}"'
    rules = f"all: $(shell seq -f t%.0f 20000)\nt%:\n\t{recipe}\n"
    return Plan(
        ("bash", "-c", text),
        seconds,
        FLOOD,
        also=("fork_storm",),
        prepare=_saved("Makefile", rules),
    )


# --- trees that run away --------------------------------------------------------------


@family("runaway_tree", needs=["bash"])
def bash_background(draw: Draw) -> Plan:
    """A script that puts jobs into the background and never waits."""
    rate, count = draw.pick("rate", 15, 25, 50, 100), draw.whole("count", 160, 350)
    text = f"for n in $(seq {count}); do sleep 60 & sleep {1 / int(str(rate)):.3f}; done; sleep 4"
    return Plan(
        ("bash", "-c", text),
        count / int(str(rate)) * 1.5 + 4,
        ALIVE,
        also=("fork_storm", "short_job_flood"),
    )


@family("runaway_tree")
def python_workers(draw: Draw) -> Plan:
    """A server that forgets its workers."""
    rate, count = draw.pick("rate", 14, 20, 40, 80), draw.whole("count", 150, 320)
    argv = (PYTHON, program("workers.py"), str(rate), str(count))
    return Plan(argv, count / int(str(rate)) + 5, ALIVE)


@family("runaway_tree", needs=["gcc"])
def c_tree(draw: Draw) -> Plan:
    """Children that have children, as a fork bomb has."""
    fanout, depth = map(int, str(draw.pick("shape", "2 7", "3 5", "6 3", "16 2")).split())
    step = draw.pick("step_ms", 20, 100, 300)
    argv = (_binary("tree.c"), str(fanout), str(depth), str(step), "9")
    seconds = fanout * depth * int(str(step)) / 1000 + 9
    return Plan(argv, seconds, ALIVE, also=("fork_storm",))


@family("runaway_tree", needs=["bash"])
def bash_bomb(draw: Draw) -> Plan:
    """The well-known fork bomb, with an end."""
    depth = draw.pick("depth", 7, 8)
    pause = draw.pick("pause", 0.05, 0.3)
    text = f"b() {{ [ $1 -gt 0 ] && {{ sleep {pause}; b $(($1 - 1)) & b $(($1 - 1)) & }}; sleep 9; }}; b {depth}"
    return Plan(("bash", "-c", text), 12, ALIVE, also=("fork_storm", "short_job_flood"))


@family("runaway_tree", needs=["perl"])
def perl_children(draw: Draw) -> Plan:
    """Children that wait for something that never comes."""
    count, rate = draw.whole("count", 150, 300), draw.pick("rate", 13, 30, 60)
    text = (
        f"for (1 .. {count}) {{ my $p = fork; if (!$p) {{ sleep 60; exit 0 }}"
        f" select(undef, undef, undef, 1 / {rate}) }} sleep 5"
    )
    return Plan(("perl", "-e", text), count / int(str(rate)) + 5, ALIVE)


@family("runaway_tree", needs=["node"])
def node_children(draw: Draw) -> Plan:
    """Children of an event loop that nobody stops."""
    count, rate = draw.whole("count", 140, 250), draw.pick("rate", 14, 25, 50)
    text = (
        "const {spawn} = require('child_process'); let n = 0; const t = setInterval(() => {"
        f" if (n++ >= {count}) clearInterval(t); else spawn('sleep', ['60']) }}, 1000 / {rate})"
    )
    return Plan(("node", "-e", text), count / int(str(rate)) + 7, ALIVE)


@family("runaway_tree", held_out=True, needs=["ruby"])
def ruby_workers(draw: Draw) -> Plan:
    """A server that forks, or starts, a worker for each request, and none ever ends."""
    count, rate = draw.whole("count", 150, 300), draw.pick("rate", 13, 30, 60)
    how = draw.pick("how", "fork { sleep 60 }", "Process.detach(spawn('sleep', '60'))")
    text = f"{count}.times {{ {how}; sleep 1.0 / {rate} }}; sleep 5"
    return Plan(("ruby", "-e", text), count / int(str(rate)) * 1.2 + 6, ALIVE)


@family("runaway_tree", held_out=True, needs=["make"])
def recursive_make(draw: Draw) -> Plan:
    """A make that calls itself without a limit on jobs, and each call twice more."""
    fanout, depth = map(int, str(draw.pick("shape", "2 7", "3 4", "5 3")).split())
    pause = draw.pick("pause", 0.05, 0.3)
    rules = (
        f"T = {' '.join(f't{n}' for n in range(fanout))}\nall: $(T)\n$(T):\n"
        f"\t@sleep {pause}; if [ $(D) -gt 1 ]; then $(MAKE) -s -j D=$$(($(D) - 1)); else sleep 8; fi\n"
    )
    return Plan(
        ("make", "-s", "-j", f"D={depth}"), 9 + depth * 1.0, ALIVE,
        also=("fork_storm", "short_job_flood"), prepare=_saved("Makefile", rules),
    )  # fmt: skip


@family("runaway_tree", held_out=True, needs=["lua5.4"])
def lua_orphans(draw: Draw) -> Plan:
    """Jobs that are put into the background of a shell that is gone: nobody is their parent."""
    count, rate = draw.whole("count", 150, 280), draw.pick("rate", 15, 25, 40)
    text = f"for n = 1, {count} do os.execute('sleep 60 & sleep {1 / int(str(rate)):.3f}') end os.execute('sleep 5')"
    return Plan(
        ("lua5.4", "-e", text), count / int(str(rate)) * 1.4 + 6, ALIVE,
        also=("fork_storm", "short_job_flood"),
    )  # fmt: skip


@family("runaway_tree", held_out=True, needs=["tclsh"])
def tcl_children(draw: Draw) -> Plan:
    """Timers of an event loop that start pipelines and look after none."""
    count, rate = draw.whole("count", 80, 150), draw.pick("rate", 10, 20, 40)
    text = (
        f"proc go {{n}} {{ if {{$n == 0}} {{ after 5000 exit; return }}; exec sleep 60 | cat > /dev/null &;"
        f" after {1000 // int(str(rate))} go [expr {{$n - 1}}] }}\ngo {count}\nvwait forever\n"
    )
    return Plan(
        ("tclsh", "children.tcl"), count / int(str(rate)) * 1.3 + 6, ALIVE,
        also=("fork_storm", "short_job_flood"), prepare=_saved("children.tcl", text),
    )  # fmt: skip


@family("runaway_tree", held_out=True, needs=["busybox", "flock"])
def lock_pileup(draw: Draw) -> Plan:
    """Periodic jobs that all wait for the lock of the first one."""
    count, rate = draw.whole("count", 150, 300), draw.pick("rate", 15, 25, 50)
    text = (
        f"for n in $(seq {count}); do /usr/bin/flock lock sleep 60 & usleep {1_000_000 // int(str(rate))};"
        " done; sleep 5"
    )
    return Plan(
        ("busybox", "ash", "-c", text), count / int(str(rate)) * 1.5 + 6, ALIVE,
        also=("fork_storm", "short_job_flood"),
    )  # fmt: skip


# --- spins ----------------------------------------------------------------------------


@family("cpu_spin", needs=["stress-ng"])
def stress_cpu(draw: Draw) -> Plan:
    """stress-ng --cpu with one of its methods."""
    seconds = draw.whole("seconds", 17, 22)
    method = draw.pick("method", "all", "loop", "matrixprod", "fft", "pi", "int64", "sqrt", "crc16")
    workers = draw.pick("workers", 1, 1, 2)
    argv = _stress("--cpu", workers, "--cpu-method", method, seconds=seconds)
    return Plan(argv, seconds, CORES)


@family("cpu_spin")
def python_spin(draw: Draw) -> Plan:
    """A loop that waits for something by asking."""
    seconds, how = draw.whole("seconds", 17, 22), draw.pick("how", "loop", "poll", "exceptions")
    return Plan((PYTHON, program("spin.py"), str(seconds), str(how)), seconds, CORES)


@family("cpu_spin", needs=["gcc"])
def c_spin(draw: Draw) -> Plan:
    """Threads that wait for a flag."""
    seconds, threads = draw.whole("seconds", 17, 22), draw.pick("threads", 1, 1, 2)
    return Plan((_binary("spin.c"), str(threads), str(seconds)), seconds, CORES)


@family("cpu_spin", needs=["bash"])
def bash_spin(draw: Draw) -> Plan:
    """A shell loop without a sleep."""
    seconds = draw.whole("seconds", 17, 22)
    loop = draw.pick("loop", ":", "[ -e /nothing ]", "read -t 0 < /dev/null")
    return Plan(
        ("timeout", str(seconds), "bash", "-c", f"while :; do {loop}; done"), seconds, CORES
    )


@family("cpu_spin")
def endless_cat(draw: Draw) -> Plan:
    """Bytes that go nowhere."""
    seconds = draw.whole("seconds", 17, 22)
    text = draw.pick(
        "text", "cat /dev/zero > /dev/null", "yes > /dev/null", "tr a b < /dev/zero > /dev/null"
    )
    return Plan(("timeout", str(seconds), "sh", "-c", f"exec {text}"), seconds, CORES)


@family("cpu_spin", needs=["awk"])
def awk_spin(draw: Draw) -> Plan:
    """A loop in awk."""
    seconds = draw.whole("seconds", 17, 22)
    text = draw.pick("text", "while (1) n++", 'while (1) s = sprintf("%d", n++)')
    return Plan(("timeout", str(seconds), "awk", f"BEGIN {{ {text} }}"), seconds, CORES)


@family("cpu_spin", needs=["perl"])
def perl_spin(draw: Draw) -> Plan:
    """A loop in Perl."""
    seconds = draw.whole("seconds", 17, 22)
    text = draw.pick("text", "1 while 1", "while (1) { $n++; /a(b|c)+d/ for qw(abcbcbc) }")
    return Plan(("timeout", str(seconds), "perl", "-e", str(text)), seconds, CORES)


@family("cpu_spin", needs=["node"])
def node_spin(draw: Draw) -> Plan:
    """An event loop that never comes round."""
    seconds = draw.whole("seconds", 18, 22)
    text = draw.pick(
        "text", "while (true);", "let n = 0; setImmediate(function f() { n++; setImmediate(f) })"
    )
    return Plan(("timeout", str(seconds), "node", "-e", str(text)), seconds, CORES)


@family("cpu_spin")
def hash_of_zeros(draw: Draw) -> Plan:
    """A checksum that never ends."""
    seconds = draw.whole("seconds", 17, 22)
    tool = draw.pick("tool", "sha256sum", "md5sum", "cksum")
    return Plan(("timeout", str(seconds), str(tool), "/dev/zero"), seconds, CORES)


@family("cpu_spin")
def python_threads_spin(draw: Draw) -> Plan:
    """Threads that take turns at doing nothing."""
    seconds = draw.whole("seconds", 17, 22)
    return Plan((PYTHON, program("spin.py"), str(seconds), "threads"), seconds, CORES)


@family("cpu_spin", held_out=True, needs=["ruby"])
def backtracking(draw: Draw) -> Plan:
    """A regular expression that tries everything."""
    seconds = draw.whole("seconds", 17, 22)
    ruby, python = "'a' * 60 + 'b' =~ /^(a|a)*$/", "import re; re.match('(a+)+$', 'a' * 60 + 'b')"
    argv = {"ruby": ("ruby", "-e", ruby), "python": (PYTHON, "-c", python)}
    return Plan(
        ("timeout", str(seconds), *argv[str(draw.pick("language", "ruby", "python"))]),
        seconds,
        CORES,
    )


@family("cpu_spin", held_out=True, needs=["php"])
def php_retry(draw: Draw) -> Plan:
    """A consumer that fails with one message, and takes the same one again."""
    seconds, depth = draw.whole("seconds", 17, 22), draw.pick("depth", 600, 100_000)
    text = (
        f"$m = str_repeat('[', {depth}); while (true) try {{ json_decode($m, true, 512, JSON_THROW_ON_ERROR); break; }}"
        " catch (Exception $e) { continue; }"
    )
    return Plan(("timeout", str(seconds), "php", "-r", text), seconds, CORES)


@family("cpu_spin", held_out=True, needs=["gcc"])
def c_busywait(draw: Draw) -> Plan:
    """Waiting that does not wait: poll and epoll without a timeout, futexes, locks."""
    seconds = draw.whole("seconds", 17, 22)
    how = draw.pick("how", "poll", "epoll", "futex", "yield", "trylock")
    return Plan((_binary("busywait.c"), str(seconds), str(how)), seconds, CORES)


@family("cpu_spin", held_out=True, needs=["go"])
def go_spin(draw: Draw) -> Plan:
    """Goroutines that select with a default."""
    seconds, width = draw.whole("seconds", 17, 22), draw.pick("width", 1, 2)
    argv = ("./jobs", str(width), str(seconds), "spin")
    return Plan(argv, seconds, CORES, prepare=_go("jobs.go"))


@family("cpu_spin", held_out=True, needs=["tclsh", "lua5.4", "guile"])
def endless_loop(draw: Draw) -> Plan:
    """Loops of small languages: a timer of no time, a table, a tail call."""
    seconds, language = draw.whole("seconds", 17, 22), draw.pick("language", "tcl", "lua", "guile")
    argv = {
        "tcl": ("tclsh", "loop.tcl"),
        "lua": ("lua5.4", "-e", "local t = {} while true do t[#t % 100 + 1] = #t end"),
        "guile": ("guile", "--no-auto-compile", "-c", "(let loop ((n 0)) (loop (+ n 1)))"),
    }
    script = _saved("loop.tcl", "proc again {} { after 0 again }\nagain\nvwait forever\n")
    return Plan(("timeout", str(seconds), *argv[str(language)]), seconds, CORES, prepare=script)


@family("cpu_spin", held_out=True, needs=["bc", "jq", "openssl", "sqlite3"])
def stuck_calculation(draw: Draw) -> Plan:
    """A question that was asked wrongly, so that the answer takes years."""
    seconds = draw.whole("seconds", 17, 22)
    text = draw.pick(
        "text", "echo 'scale = 300000; 4 * a(1)' | bc -l", "jq -n 'last(range(1e15))'",
        "openssl prime -generate -safe -bits 16384",
        "sqlite3 x 'WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n'",
    )  # fmt: skip
    return Plan(("timeout", str(seconds), "sh", "-c", str(text)), seconds, CORES)


# --- storage --------------------------------------------------------------------------


@family("io_saturation", needs=["stress-ng"])
def stress_hdd(draw: Draw) -> Plan:
    """stress-ng --hdd."""
    seconds = draw.whole("seconds", 15, 20)
    options = draw.pick("options", "wr-seq", "direct", "fsync", "wr-rnd,fdatasync")
    argv = _stress(
        "--hdd", draw.pick("workers", 1, 2), "--hdd-bytes", draw.pick("bytes", "128M", "512M"),
        "--hdd-opts", options, "--temp-path", ".", seconds=seconds,
    )  # fmt: skip
    return Plan(argv, seconds, STORAGE)


@family("io_saturation", needs=["stress-ng"])
def stress_iomix(draw: Draw) -> Plan:
    """stress-ng --iomix."""
    seconds = draw.whole("seconds", 15, 20)
    argv = _stress(
        "--iomix", draw.pick("workers", 1, 2, 4), "--iomix-bytes", draw.pick("bytes", "64M", "512M"),
        "--temp-path", ".", seconds=seconds,
    )  # fmt: skip
    return Plan(argv, seconds, STORAGE)


@family("io_saturation", needs=["dd"])
def dd_direct(draw: Draw) -> Plan:
    """dd past the cache, again and again."""
    seconds = draw.whole("seconds", 14, 18)
    size, flags = (
        draw.pick("size", "64k", "1M", "8M"),
        draw.pick("flags", "direct", "dsync", "direct,dsync"),
    )
    count = {"64k": 8000, "1M": 500, "8M": 60}[str(size)]
    text = f"while :; do dd if=/dev/zero of=out bs={size} count={count} oflag={flags} 2> /dev/null; done"
    return Plan(("timeout", str(seconds), "sh", "-c", text), seconds, STORAGE)


@family("io_saturation")
def python_fsync(draw: Draw) -> Plan:
    """Everything is forced to disk at once."""
    seconds, block = draw.whole("seconds", 14, 18), draw.pick("block_kb", 16, 256, 4096)
    argv = (PYTHON, program("writes.py"), "out", str(seconds), str(block), "300")
    return Plan(argv, seconds, STORAGE)


@family("io_saturation", needs=["gcc"])
def c_random_writes(draw: Draw) -> Plan:
    """Blocks at random places, each forced to disk."""
    seconds, block = draw.whole("seconds", 14, 18), draw.pick("block_kb", 16, 128, 1024)
    how = draw.pick("how", "direct", "sync", "fsync")
    argv = (_binary("writes.c"), "out", str(block), "256", str(seconds), str(how))
    return Plan(argv, seconds, STORAGE)


@family("io_saturation", needs=["cp"])
def copies(draw: Draw) -> Plan:
    """A file that is copied over and over, and synced."""
    seconds, size = draw.whole("seconds", 15, 18), draw.whole("mb", 100, 300)
    text = f"head -c {size}M /dev/urandom > a; while :; do cp a b; sync b; done"
    return Plan(("timeout", str(seconds + 3), "sh", "-c", text), seconds + 3, STORAGE)


@family("io_saturation", needs=["stress-ng"])
def stress_other_io(draw: Draw) -> Plan:
    """Other stressors of stress-ng that write."""
    seconds = draw.whole("seconds", 15, 18)
    which = draw.pick("which", "--revio", "--seek", "--aio")
    return Plan(
        _stress(which, draw.pick("workers", 1, 2), "--temp-path", ".", seconds=seconds),
        seconds,
        STORAGE,
    )


@family("io_saturation", needs=["dd"])
def cold_reads(draw: Draw) -> Plan:
    """A large file read past the cache, again and again."""
    seconds, size = draw.whole("seconds", 14, 18), draw.pick("size", "128k", "1M", "4M")
    text = f"while :; do dd if=in of=/dev/null bs={size} iflag=direct 2> /dev/null; done"

    def prepare(folder: Path) -> None:
        with (folder / "in").open("wb") as file:
            for _ in range(300):
                file.write(b"x" * 1_000_000)

    return Plan(("timeout", str(seconds), "sh", "-c", text), seconds, STORAGE, prepare=prepare)


@family("io_saturation", held_out=True, needs=["sqlite3"])
def sqlite_commits(draw: Draw) -> Plan:
    """A transaction for every row, and the rows at random places."""
    seconds, size = draw.whole("seconds", 14, 18), draw.pick("bytes", 50_000, 200_000, 500_000)
    journal = draw.pick("journal", "delete", "wal")
    text = (
        f"sqlite3 db 'PRAGMA journal_mode = {journal}; CREATE TABLE t (a INTEGER PRIMARY KEY, b)' > /dev/null;"
        f" yes 'REPLACE INTO t VALUES (abs(random()) % 300, randomblob({size}));' | timeout {seconds} sqlite3 db"
    )
    return Plan(("bash", "-c", text), seconds, STORAGE)


@family("io_saturation", held_out=True, needs=["ruby"])
def ruby_synced_log(draw: Draw) -> Plan:
    """A log that is opened with O_SYNC, and begins anew after 200 MB."""
    seconds, block = draw.whole("seconds", 14, 18), draw.pick("block_kb", 32, 256, 1000)
    text = (
        f"f = File.open('log', File::WRONLY | File::CREAT | File::SYNC); b = 'x' * {block}000;"
        f" e = Time.now + {seconds}; while Time.now < e; f.syswrite(b); f.sysseek(0) if f.sysseek(0, 1) > 200_000_000; end"
    )
    return Plan(("ruby", "-e", text), seconds, STORAGE)


@family("io_saturation", held_out=True, needs=["gcc"])
def c_mapped_writes(draw: Draw) -> Plan:
    """A file that is changed through a mapping, and msync(2) after each change."""
    seconds, block = draw.whole("seconds", 14, 18), draw.pick("block_kb", 16, 128, 2048)
    argv = (_binary("mapped.c"), "out", str(block), str(draw.pick("mb", 64, 256)), str(seconds))
    return Plan(argv, seconds, STORAGE)


@family("io_saturation", held_out=True, needs=["php"])
def php_spool(draw: Draw) -> Plan:
    """A mail server's way to take a message: a file, fsync, a new name."""
    seconds, size = draw.whole("seconds", 14, 18), draw.pick("kb", 64, 200, 1000)
    text = (
        f"mkdir('new'); $m = random_bytes({size}000); $e = time() + {seconds};"
        " for ($n = 0; time() < $e; $n++) { $f = fopen('tmp', 'w'); fwrite($f, $m); fsync($f); fclose($f);"
        " rename('tmp', 'new/' . $n % 300); }"
    )
    return Plan(("php", "-r", text), seconds, STORAGE)


@family("io_saturation", held_out=True, needs=["shred"])
def shredding(draw: Draw) -> Plan:
    """shred, again and again."""
    seconds, size = draw.whole("seconds", 14, 18), draw.whole("mb", 50, 200)
    text = f"truncate -s {size}M f; timeout {seconds} shred -n 1000 f"
    return Plan(("sh", "-c", text), seconds, STORAGE)


@family("io_saturation", held_out=True, needs=["cat", "cksum"])
def cache_thrash(draw: Draw) -> Plan:
    """A file that is read over and over, and does not fit into the memory of its cgroup."""
    seconds, tool = draw.whole("seconds", 14, 18), draw.pick("tool", "cat", "cksum")
    text = f"while :; do {tool} in > /dev/null; done"

    def prepare(folder: Path) -> None:
        with (folder / "in").open("wb") as file:
            for _ in range(300):
                file.write(b"x" * 1_000_000)
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    return Plan(
        ("timeout", str(seconds), "sh", "-c", text), seconds, STORAGE,
        limit_bytes=draw.whole("limit_mb", 20, 60) * 1_000_000, prepare=prepare,
    )  # fmt: skip


# --- memory ---------------------------------------------------------------------------


def _leak(draw: Draw) -> tuple[float, int]:
    """How fast (MB/s), and the limit of the cgroup, which is reached in 85 to 140 seconds."""
    rate = float(str(draw.pick("rate", 0.8, 1.5, 3, 5)))
    seconds = draw.whole("seconds", 85, 140)
    return rate, int((rate * seconds + 12) * 1e6)


def _leaking(argv: tuple[str, ...], limit: int, rate: float, more_s: float = 0) -> Plan:
    # A program at its limit may lose its own code from memory, and read it again all the time.
    return Plan(
        argv, limit / 1e6 / rate + 30 + more_s, SHARE, also=("io_saturation",),
        limit_bytes=limit, leak=True,
    )  # fmt: skip


@family("oom_risk")
def python_leak(draw: Draw) -> Plan:
    """Memory that is never given back, in small steps or large ones."""
    rate, limit = _leak(draw)
    step, shape = (
        draw.pick("step", 0.05, 0.5, 3),
        draw.pick("shape", "linear", "noisy", "busy", "late"),
    )
    argv = (PYTHON, program("leak.py"), str(rate), str(step), str(shape))
    if shape == "late":
        limit += 20_000_000
    if shape == "noisy":
        limit += 8_000_000
    return _leaking(argv, limit, rate, 20)


@family("oom_risk", needs=["gcc"])
def c_leak(draw: Draw) -> Plan:
    """malloc without free."""
    rate, limit = _leak(draw)
    size = draw.pick("kb", 16, 200, 2000)
    argv = (_binary("leak.c"), str(size), str(max(1, round(int(str(size)) * 1.024 / rate))))
    return _leaking(argv, limit, rate)


@family("oom_risk", needs=["stress-ng"])
def stress_bigheap(draw: Draw) -> Plan:
    """stress-ng --bigheap in a small cgroup: nobody has the time to warn."""
    limit = draw.whole("limit_mb", 80, 400) * 1_000_000
    argv = _stress("--bigheap", 1, "--bigheap-growth", draw.pick("growth", "64K", "4M"), seconds=9)
    return Plan(argv, 9, SHARE, limit_bytes=limit)


@family("oom_risk", needs=["node"])
def node_leak(draw: Draw) -> Plan:
    """A list that only grows, in JavaScript."""
    rate, limit = _leak(draw)
    text = f"const kept = []; setInterval(() => kept.push(Buffer.alloc({int(rate * 1e5)}, 1)), 100)"
    return _leaking(("node", "-e", text), limit + 35_000_000, rate, 40)


@family("oom_risk", needs=["perl"])
def perl_leak(draw: Draw) -> Plan:
    """A hash that only grows, in Perl."""
    rate, limit = _leak(draw)
    text = (
        f"my %seen; my $n = 0; while (1) {{ $seen{{$n++}} = 'x' x 1000 for 1 .. {int(rate * 100)};"
        " select(undef, undef, undef, 0.12) }"
    )
    return _leaking(("perl", "-e", text), limit, rate)


@family("oom_risk")
def python_large(draw: Draw) -> Plan:
    """One request too large: nobody has the time to warn."""
    limit = draw.whole("limit_mb", 60, 300) * 1_000_000
    text = f"import time; time.sleep(2); x = bytearray(b'x') * {limit * 2}"
    return Plan((PYTHON, "-c", text), 6, SHARE, limit_bytes=limit)


@family("oom_risk", held_out=True, needs=["ruby"])
def ruby_cache(draw: Draw) -> Plan:
    """A cache that forgets nothing."""
    rate, limit = _leak(draw)
    text = f"h = {{}}; n = 0; loop {{ {int(rate * 100)}.times {{ h[n += 1] = 'x' * 1000 }}; sleep 0.1 }}"
    return _leaking(("ruby", "-e", text), limit + 15_000_000, rate, 30)


@family("oom_risk", held_out=True, needs=["php"])
def php_queue(draw: Draw) -> Plan:
    """A queue whose consumer is half as fast as its producer."""
    rate, limit = _leak(draw)
    text = (
        f"$q = new SplQueue; while (true) {{ for ($n = 0; $n < {int(rate * 100)}; $n++) {{"
        " $q[] = str_repeat('x', 1000); $q[] = str_repeat('y', 1000); $q->dequeue(); } usleep(100000); }"
    )
    return _leaking(("php", "-d", "memory_limit=-1", "-r", text), limit + 10_000_000, rate, 20)


@family("oom_risk", held_out=True, needs=["tclsh"])
def tcl_log(draw: Draw) -> Plan:
    """A log in memory, of lines or of whole reports."""
    rate, limit = _leak(draw)
    every = draw.pick("every_ms", 50, 500, 3000)
    lines = int(rate * int(str(every)))
    text = (
        f"proc note {{}} {{ for {{set n 0}} {{$n < {lines}}} {{incr n}} {{ lappend ::log [string repeat x 930] }};"
        f" after {every} note }}\nnote\nvwait forever\n"
    )
    plan = _leaking(("tclsh", "log.tcl"), limit, rate, 20)
    return attrs.evolve(plan, prepare=_saved("log.tcl", text))


@family("oom_risk", held_out=True, needs=["go"])
def go_leak(draw: Draw) -> Plan:
    """Goroutines that wait for ever and keep what they were asked."""
    rate, limit = _leak(draw)
    size = draw.pick("kb", 16, 200, 1000)
    argv = ("./leak", str(size), str(max(1, round(int(str(size)) * 1.024 / rate))))
    plan = _leaking(argv, limit, rate, 20)
    return attrs.evolve(plan, prepare=_go("leak.go"))


@family("oom_risk", held_out=True, needs=["gcc"])
def c_hoard(draw: Draw) -> Plan:
    """Mappings that are never unmapped, private or shared, and a heap in fragments."""
    rate, limit = _leak(draw)
    size, how = draw.pick("kb", 500, 2000), draw.pick("how", "mmap", "shared", "fragments")
    step = str(round(int(str(size)) * 1.024 / rate))
    return _leaking((_binary("hoard.c"), str(size), step, str(how)), limit, rate)


@family("oom_risk", held_out=True, needs=["php", "unshare", "mount"])
def tmpfs_log(draw: Draw) -> Plan:
    """A log on a file system that is memory."""
    rate, limit = _leak(draw)
    text = (
        'mkdir t && mount -t tmpfs none t && exec php -r \'while (true) { file_put_contents("t/log",'
        f' str_repeat("x", {int(rate * 1e5)}), FILE_APPEND); usleep(100000); }}\''
    )
    return _leaking(("unshare", "--mount", "sh", "-c", text), limit, rate, 20)


@family("oom_risk", held_out=True, needs=["php"])
def php_large(draw: Draw) -> Plan:
    """A report that is made in memory as a whole."""
    limit = draw.whole("limit_mb", 60, 300) * 1_000_000
    text = f"sleep(2); $s = ''; while (strlen($s) < {2 * limit}) $s .= str_repeat('x', 1000000);"
    return Plan(("php", "-d", "memory_limit=-1", "-r", text), 8, SHARE, limit_bytes=limit)


@family("oom_risk", held_out=True, needs=["tail", "sed", "lua5.4"])
def endless_line(draw: Draw) -> Plan:
    """A line that never ends, read by programs that take lines."""
    limit = draw.whole("limit_mb", 60, 300) * 1_000_000
    text = draw.pick(
        "text", "tail -n 1 /dev/zero", "sed p /dev/zero", "lua5.4 -e 'io.read()' < /dev/zero"
    )
    return Plan(("sh", "-c", f"sleep 2; exec {text}"), 8, SHARE, limit_bytes=limit)


@family("oom_risk", held_out=True, needs=["guile"])
def guile_recursion(draw: Draw) -> Plan:
    """A parser that never comes back."""
    limit = draw.whole("limit_mb", 60, 250) * 1_000_000
    text = "(sleep 2) (define (parse x) (cons x (parse (+ x 1)))) (parse 0)"
    return Plan(
        ("guile", "--no-auto-compile", "-c", text), 12, SHARE, also=("cpu_spin",), limit_bytes=limit
    )


@family("oom_risk", held_out=True, needs=["sqlite3"])
def memory_table(draw: Draw) -> Plan:
    """A table in memory that has more rows than was thought."""
    limit = draw.whole("limit_mb", 60, 300) * 1_000_000
    text = (
        "CREATE TABLE t AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"
        " SELECT x, zeroblob(4000) FROM n"
    )
    return Plan(("sqlite3", ":memory:", text), 12, SHARE, limit_bytes=limit)


@family("oom_risk", held_out=True, needs=["ruby"])
def ruby_prefork(draw: Draw) -> Plan:
    """Workers that all load the same data at once, each a copy of its own."""
    limit, workers = draw.whole("limit_mb", 120, 400), draw.pick("workers", 4, 8)
    each = limit * 1.5 / int(str(workers))
    text = (
        f"{workers}.times {{ fork {{ sleep 2; a = []; {int(each * 5)}.times {{ a << 'x' * 200_000; sleep 0.002 }};"
        " sleep 20 } }; sleep 6; Process.kill(:TERM, 0)"
    )
    return Plan(("ruby", "-e", text), 8, SHARE, limit_bytes=limit * 1_000_000)
