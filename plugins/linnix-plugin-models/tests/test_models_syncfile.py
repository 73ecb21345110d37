"""sync.toml is read completely and strictly: each key counts, and no mistake is passed over.

The effects of keys on transfers are in test_models_transfer.py and test_models_sync.py, those
on deployers and converters in test_models_serving.py and test_models_convert.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from linnix_core import ConfigError, LinnixError
from linnix_plugin_models import CrossPlatformPath, read_sync_file
from linnix_plugin_models.files import Files
from linnix_plugin_models.sftp import ssh_command
from linnix_plugin_models.syncfile import Host, Preferences, SyncFile

#: Every key of the old example.
EXAMPLE = """
[mounts.windows-training]
local_path = "~/Mounts/mm-d/hafs_training"
remote_path = "D:/hafs_training"
description = "the big disk"
[mounts.cloud-storage]
local_path = "~/Mounts/cloud/hafs"
remote_path = "/mnt/storage/hafs"

[hosts.medical-mechanica]
hostname = "HOSTNAME_OR_IP"
username = "Administrator"
platform = "windows"
ssh_key = "~/.ssh/id_rsa"
[hosts.cloud-gpu]
hostname = "cloud.example.com"
username = "ubuntu"
platform = "linux"
ssh_key = "~/.ssh/cloud_key"
[hosts.backup-server]
hostname = "backup.local"
username = "user"
platform = "linux"

[sync.training-code]
source = "~/Code/hafs/src"
destinations = ["windows-training:/code", "cloud-gpu:/home/ubuntu/code"]
exclude_patterns = ["*.pyc", "__pycache__"]
[sync.scripts]
source = "~/scripts"
destinations = ["medical-mechanica:D:/scripts"]

[deployment]
local_models_dir = "~/Code/hafs/models"
ollama_models_dir = "~/.ollama/models"
llama_cpp_dir = "~/Code/llama.cpp"
[deployment.halext_nodes]
node1 = "https://node1.halext.org/api"

[preferences]
transfer_method = "mount"
ssh_timeout = 300
retry_on_failure = true
max_retries = 3
"""


@pytest.fixture
def read(sync_toml):
    def from_text(text: str) -> SyncFile:
        sync_toml(text)
        return read_sync_file()

    return from_text


def test_the_example_of_the_old_tool_is_read_whole(read, home):
    sync = read(EXAMPLE)
    mount = sync.mount_point("windows-training")
    assert mount.local_path == home / "Mounts/mm-d/hafs_training"
    assert mount.remote_path == CrossPlatformPath("D:/hafs_training", "windows")
    assert sync.mounts["windows-training"].description == "the big disk"
    assert sync.hosts["medical-mechanica"].ssh_key == home / ".ssh/id_rsa"
    assert sync.sync["training-code"].exclude_patterns == ("*.pyc", "__pycache__")
    assert sync.models_dir() == home / "Code/hafs/models"
    assert sync.deployment.llama_cpp_dir == home / "Code/llama.cpp"
    assert sync.deployment.ollama_models_dir == home / ".ollama/models"
    assert sync.node_url("node1") == "https://node1.halext.org/api"
    assert (sync.preferences.ssh_timeout, sync.preferences.retries) == (300, 3)


def test_without_a_file_there_are_defaults(home):
    sync = read_sync_file()
    assert sync == SyncFile()
    assert sync.models_dir() == home / ".local/share/linnix/models"
    assert sync.preferences.retries == 3


def test_the_file_of_the_old_tool_is_found_after_the_own_one(home, sync_toml, monkeypatch):
    old = home / ".config" / "hafs" / "sync.toml"
    old.parent.mkdir(parents=True)
    old.write_text("[preferences]\nmax_retries = 7\n")
    assert read_sync_file().preferences.max_retries == 7
    sync_toml("[preferences]\nmax_retries = 8\n")
    assert read_sync_file().preferences.max_retries == 8
    monkeypatch.setenv("LINNIX_SYNC_CONFIG", str(old))
    assert read_sync_file().preferences.max_retries == 7
    monkeypatch.setenv("LINNIX_SYNC_CONFIG", str(home / "none.toml"))
    with pytest.raises(ConfigError, match="No such file"):
        read_sync_file()


def test_every_mistake_is_told_at_once_with_its_place(read):
    with pytest.raises(ConfigError) as error:
        read(
            """
            [mounts.a]
            local_path = 3
            [hosts.b]
            hostname = "-oProxyCommand=x"
            username = "-x"
            platform = "mars"
            port = 70000
            colour = 1
            [[profiles]]
            name = "x"
            [deployment.halext_nodes]
            n = "node1"
            [preferences]
            ssh_timeot = 3
            max_retries = -1
            retry_on_failure = "yes"
            transfer_method = "pigeon"
            """
        )
    places = {problem.path for problem in error.value.problems}
    assert places == {
        "mounts.a.local_path", "mounts.a.remote_path", "hosts.b.hostname", "hosts.b.username",
        "hosts.b.platform", "hosts.b.port", "hosts.b.colour", "profiles",
        "deployment.halext_nodes", "preferences.ssh_timeot", "preferences.max_retries",
        "preferences.retry_on_failure", "preferences.transfer_method",
    }  # fmt: skip
    assert "ssh_timeout" in str(error.value)
    assert error.value.exit_code == 2


BAD_SHARE = """
mounts.a = {local_path = "/a", remote_path = "//x", host = "h"}
hosts.h = {hostname = "h", platform = "windows"}
"""


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[mounts.a]\nlocal_path="/a"\nremote_path="D:/a"\nhost="b"', "mounts.a.host"),
        ('[mounts.a]\nlocal_path="/a"\nremote_path="a/b"', "mounts.a.remote_path"),
        (BAD_SHARE, "mounts.a.remote_path"),
        ('[sync.a]\nsource="/a"\ndestinations=["nobody:/x"]', "sync.a.destinations[0]"),
        ('[sync.a]\nsource="/a"\ndestinations=["/x"]', "sync.a.destinations[0]"),
        ("[mounts", "TOML"),
    ],
)  # fmt: skip
def test_names_that_lead_nowhere_are_mistakes(read, text, place):
    with pytest.raises(ConfigError) as error:
        read(text)
    assert [problem.path for problem in error.value.problems] == [place]


def test_a_location_is_a_host_by_list_name_platform_or_beginning(read):
    sync = read(EXAMPLE)
    assert sync.host_of("windows")[0] == "medical-mechanica"
    assert sync.host_of("cloud")[0] == "cloud-gpu"
    assert sync.host_of("backup-server")[0] == "backup-server"
    assert sync.host_of("linux") is None  # two hosts are: nothing is guessed
    assert sync.host_of("mars") is None
    listed = read(EXAMPLE.replace('"backup.local"', '"backup.local"\nlocations = ["cloud"]'))
    assert listed.host_of("cloud")[0] == "backup-server"
    assert sync.platform_of("windows") == "windows"
    assert sync.platform_of("backup-server") == "linux"
    assert sync.platform_of("mars") is None


def test_a_mount_belongs_to_its_host(read):
    text = EXAMPLE.replace('"/mnt/storage/hafs"', '"/mnt/storage/hafs"\nhost = "cloud-gpu"')
    paths = read(text).path_map()
    remote = CrossPlatformPath("/mnt/storage/hafs/x", "linux")
    assert paths.to_local(remote, "cloud-gpu")
    assert paths.to_local(remote, "backup-server") is None


def test_a_node_is_a_url_or_a_known_name(read):
    sync = read(EXAMPLE)
    assert sync.node_url("http://127.0.0.1:1/api") == "http://127.0.0.1:1/api"
    with pytest.raises(LinnixError, match="known: node1"):
        sync.node_url("node7")


def test_ssh_gets_an_argument_list_that_never_asks(tmp_path):
    host = Host(hostname="box", username="me", ssh_key=Path("/k/my key"), port=2222)
    preferences = Preferences(ssh_timeout=9.0, ssh_config=tmp_path / "config")
    assert ssh_command(host, preferences, "--", "box") == [
        "ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=9", "-o", "ServerAliveInterval=3",
        "-o", "ServerAliveCountMax=3", "-F", str(tmp_path / "config"), "-p", "2222",
        "-i", "/k/my key", "-l", "me", "--", "box",
    ]  # fmt: skip
    plain = ssh_command(Host(hostname="box"), Preferences())
    assert not {"-F", "-p", "-i", "-l"} & set(plain)
    assert "ConnectTimeout=30" in plain


def test_the_registry_can_be_named_in_it(sync_toml, home, monkeypatch, tmp_path):
    path = sync_toml(f'[deployment]\nregistry = "{tmp_path}/r.json"\n')
    assert Files().registry.path == tmp_path / "r.json"
    assert Files(registry=Path("/other.json")).registry.path == Path("/other.json")
    monkeypatch.setenv("LINNIX_MODELS_REGISTRY", "/third.json")
    assert Files().registry.path == Path("/third.json")
    monkeypatch.delenv("LINNIX_MODELS_REGISTRY")
    path.write_text("[deployment\n")
    with pytest.raises(ConfigError):
        _ = Files().registry


def test_no_retries_where_none_are_wanted():
    assert Preferences(retry_on_failure=False, max_retries=5).retries == 0
    assert Preferences(max_retries=5).retries == 5
