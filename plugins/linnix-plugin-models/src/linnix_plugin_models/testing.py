"""A real SSH server on loopback, for tests of this distribution and of others."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import attrs

from linnix_core import Duration
from linnix_plugin_models.syncfile import Host, Preferences

__all__ = ["SshServer", "ssh_server"]


@attrs.frozen
class SshServer:
    """What a client needs to reach it."""

    host: Host
    preferences: Preferences
    port: int
    folder: Path

    def sync_toml(self, more: str = "", **preferences: object) -> str:
        """A sync.toml with this server as the host ``box``."""
        said = {"ssh_config": str(self.preferences.ssh_config), **preferences}
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in said.items())
        return f'{more}\n[hosts.box]\nhostname = "loop"\n[preferences]\n{lines}\n'


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """An ``sshd`` with keys and a configuration of its own, which are put into ``folder``.

    Raises `RuntimeError` where none is installed.
    """
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(program).exists():
        raise RuntimeError("no sshd here: apt install openssh-server")
    for name in ("host_key", "user_key"):
        subprocess.run(  # noqa: S603 - an argument list
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name],  # noqa: S607
            check=True,
        )
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = _free_port()
    (folder / "sshd_config").write_text(
        f"""ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
"""
    )
    # One connection for all tests: what a user's configuration says counts here, too.
    control = Path(tempfile.mkdtemp(prefix="linnix-ssh-"))  # a socket's path must be short
    key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}")
    (folder / "ssh_config").write_text(
        f"""Host loop
  HostName 127.0.0.1
  Port {port}
  User {getpass.getuser()}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking yes
  ControlMaster auto
  ControlPath {control}/%C
  ControlPersist 60
"""
    )
    server = subprocess.Popen(  # noqa: S603 - an argument list
        [program, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    try:
        for line in server.stderr:
            if "Server listening" in line:
                break
        else:
            raise RuntimeError(f"sshd does not start: {server.wait()}")
        # Keep reading, so that it never waits for a full pipe.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield SshServer(
            host=Host(hostname="loop"),
            preferences=Preferences(
                ssh_config=folder / "ssh_config", ssh_timeout=Duration(20.0), max_retries=0
            ),
            port=port,
            folder=folder,
        )
    finally:
        subprocess.run(  # noqa: S603 - an argument list
            ["ssh", "-F", folder / "ssh_config", "-O", "exit", "loop"],  # noqa: S607
            stderr=subprocess.DEVNULL,
            check=False,
        )
        shutil.rmtree(control)
        server.terminate()
        server.wait(10)
        server.stderr.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
