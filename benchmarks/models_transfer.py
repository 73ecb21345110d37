"""How fast a model is copied, hashed and checked, beside the plain tools, and in how much memory.

In one run, on the same files:

* locally: ``fetch`` from a folder, beside ``cp`` and ``sha256sum`` (``fetch`` does the work of
  both), and beside ``cp`` and the same SHA-256 as ``fetch`` uses, one after the other;
* over SSH: ``fetch`` from a real sshd on loopback, beside the ``sftp`` of OpenSSH, which hashes
  nothing; and beside ``sftp`` and then ``sha256sum``;
* a sparse file of 10 GB: the largest resident memory of the process.

    python benchmarks/models_transfer.py [--megabytes 512] [--sparse-gb 10]
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import hashlib
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from linnix_plugin_models.paths import CrossPlatformPath
from linnix_plugin_models.sftp import SftpSource
from linnix_plugin_models.syncfile import Host, Preferences
from linnix_plugin_models.transfer import LocalSource, fetch

SPARSE = """
import resource, sys
from pathlib import Path
from linnix_plugin_models.transfer import LocalSource, fetch
source, target = map(Path, sys.argv[1:])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fetch(lambda: LocalSource(source), target)
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def run(*command: str | Path, given: bytes = b"") -> None:
    subprocess.run(command, input=given, stdout=subprocess.DEVNULL, check=True)


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


@contextlib.contextmanager
def sshd(folder: Path) -> Iterator[tuple[Host, Preferences]]:
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    for name in ("host_key", "user_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {folder}/user_key.pub\nPidFile none\nUsePAM no\nStrictModes no\n"
        "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
    )
    (folder / "ssh_config").write_text(
        f"Host loop\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {folder}/user_key\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  StrictHostKeyChecking yes\n"
    )
    key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
    server = subprocess.Popen(
        [program, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    while "Server listening" not in (line := server.stderr.readline()):
        if not line:
            raise SystemExit("sshd does not start")
    threading.Thread(target=server.stderr.read, daemon=True).start()
    try:
        yield Host(hostname="loop"), Preferences(ssh_config=folder / "ssh_config")
    finally:
        server.terminate()
        server.wait()


def report(name: str, size: int, **times: list[float]) -> None:
    best = {what: min(taken) for what, taken in times.items()}
    print(
        json.dumps(
            {
                "benchmark": f"models_transfer/{name}",
                "mb": round(size / 1e6),
                "mb_per_s": {what: round(size / 1e6 / taken) for what, taken in best.items()},
                "ratio_to_best": {
                    what: round(taken / best["fetch"], 2)
                    for what, taken in best.items()
                    if what != "fetch"
                },
                # Of neighbours in time, which other load on the machine slowed down alike.
                "ratio_to_median": {
                    what: round(
                        statistics.median(
                            taken / ours
                            for taken, ours in zip(times[what], times["fetch"], strict=True)
                        ),
                        2,
                    )
                    for what in times
                    if what != "fetch"
                },
                "runs_s": {what: [round(t, 2) for t in taken] for what, taken in times.items()},
            }
        )
    )


def hashlib_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--sparse-gb", type=int, default=10)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model"
        model.mkdir()
        weights = model / "weights.dat"
        with weights.open("wb") as file:
            for _ in range(options.megabytes):
                file.write(os.urandom(10**6))
        size = weights.stat().st_size
        hashlib_digest(weights)  # in the page cache for everybody
        target = folder / "target"

        def clear() -> None:
            shutil.rmtree(target, ignore_errors=True)

        local: dict[str, list[float]] = {"fetch": [], "cp": [], "sha256sum": [], "hashlib": []}
        for _ in range(options.runs):
            local["cp"].append(seconds(lambda: run("cp", "-r", model, target)))
            clear()
            local["sha256sum"].append(seconds(lambda: run("sha256sum", weights)))
            local["hashlib"].append(seconds(lambda: hashlib_digest(weights)))
            local["fetch"].append(seconds(lambda: fetch(lambda: LocalSource(model), target)))
            clear()
        report("local", size, **local)

        keys = folder / "keys"
        keys.mkdir(mode=0o700)
        with sshd(keys) as (host, preferences):
            path = CrossPlatformPath(model, "linux")
            remote: dict[str, list[float]] = {"fetch": [], "sftp": [], "sftp_and_sha256sum": []}
            get = ("sftp", "-q", "-F", keys / "ssh_config", "-b", "-", "loop")
            copied = target / "weights.dat"
            batch = f"get {weights} {copied}\n".encode()
            for _ in range(options.runs):
                target.mkdir()
                plain = seconds(lambda: run(*get, given=batch))
                remote["sftp"].append(plain)
                remote["sftp_and_sha256sum"].append(
                    plain + seconds(lambda: run("sha256sum", copied))
                )
                clear()
                remote["fetch"].append(
                    seconds(lambda: fetch(lambda: SftpSource(host, preferences, path), target))
                )
                clear()
            report("ssh", size, **remote)

        if options.sparse_gb:
            sparse = folder / "sparse"
            sparse.mkdir()
            with (sparse / "weights.dat").open("wb") as file:
                file.truncate(options.sparse_gb * 10**9)
            began = time.perf_counter()
            said = subprocess.run(
                [sys.executable, "-c", SPARSE, sparse, target],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout.split()
            before, after = map(int, said)
            copied = target / "weights.dat"
            print(
                json.dumps(
                    {
                        "benchmark": "models_transfer/sparse",
                        "gb": options.sparse_gb,
                        "seconds": round(time.perf_counter() - began, 1),
                        "rss_mb_before": round(before / 1024, 1),
                        "rss_mb_most": round(after / 1024, 1),
                        "same_size": copied.stat().st_size == options.sparse_gb * 10**9,
                        "on_disk_mb": round(copied.stat().st_blocks * 512 / 1e6, 1),
                        "page_size": resource.getpagesize(),
                    }
                )
            )


if __name__ == "__main__":
    main()
