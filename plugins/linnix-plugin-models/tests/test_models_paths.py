"""A path is one thing that several systems write differently; what has no form is an error.

The cases that say "hafs" are those that the tool before this one got wrong.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnix_plugin_models import CrossPlatformPath, PathMap
from linnix_plugin_models.mounts import MountPoint


def windows(text):
    return CrossPlatformPath(text, platform="windows")


# --- the usage that the documentation of the old tool shows ----------------------------


def test_the_documented_usage():
    path = CrossPlatformPath("D:/hafs_training/models", platform="windows")
    assert path.to_windows("backslash") == r"D:\hafs_training\models"
    assert path.to_windows("forward") == "D:/hafs_training/models"
    assert path.to_windows() == "D:/hafs_training/models"
    assert path.to_posix() == "/d/hafs_training/models"
    assert path.to_ssh_path() == "/d/hafs_training/models"
    assert path.for_shell_escape() == "/d/hafs_training/models"
    assert str(path) == r"D:\hafs_training\models"


@pytest.mark.parametrize(
    ("text", "backslash", "posix", "wsl", "sftp"),
    [
        (r"D:\hafs training\o'x (1)", r"D:\hafs training\o'x (1)", "/d/hafs training/o'x (1)",
         "/mnt/d/hafs training/o'x (1)", "/D:/hafs training/o'x (1)"),
        (r"\\?\C:\long", r"C:\long", "/c/long", "/mnt/c/long", "/C:/long"),  # hafs: no drive
        (r"\\?\UNC\srv\share\x", r"\\srv\share\x", "//srv/share/x", None, "//srv/share/x"),
        (r"\\srv\share\a b", r"\\srv\share\a b", "//srv/share/a b", None, "//srv/share/a b"),
        (r"\\wsl$\Ubuntu\home", r"\\wsl.localhost\Ubuntu\home", "//wsl.localhost/Ubuntu/home",
         "/home", "//wsl.localhost/Ubuntu/home"),  # hafs: not /home
        ("C:", "C:\\", "/c", "/mnt/c", "/C:/"),
        ("/d/hafs_training", r"D:\hafs_training", "/d/hafs_training", "/mnt/d/hafs_training",
         "/D:/hafs_training"),  # hafs: \d\hafs_training
        ("/mnt/d/x", r"D:\x", "/d/x", "/mnt/d/x", "/D:/x"),  # hafs: \mnt\d\x
        ("/cygdrive/d/x", r"D:\x", "/d/x", "/mnt/d/x", "/D:/x"),
        ("d:/X/", r"D:\X", "/d/X", "/mnt/d/X", "/D:/X"),
        (r"a\.\b", r"a\b", "a/b", "a/b", "a/b"),
    ],
)  # fmt: skip
def test_a_windows_path_in_every_spelling(text, backslash, posix, wsl, sftp):
    path = windows(text)
    assert path.to_windows("backslash") == backslash
    assert path.to_windows("forward") == backslash.replace("\\", "/")
    assert path.to_posix() == posix
    assert path.to_sftp_path() == sftp
    if wsl is None:
        with pytest.raises(ValueError, match="no form inside of WSL"):
            path.to_wsl()
    else:
        assert path.to_wsl() == wsl


def test_a_path_of_wsl_is_the_drive_that_it_shows():
    path = CrossPlatformPath("/mnt/c/Users", "linux")  # hafs: C:\mnt\c\Users
    assert path.to_windows("backslash") == r"C:\Users"
    assert path.to_posix() == "/mnt/c/Users"


def test_a_posix_path_has_a_windows_form_only_inside_of_a_distribution():
    path = CrossPlatformPath("/Users/s/Code", "mac")  # hafs invents the drive C
    with pytest.raises(ValueError, match="no Windows form"):
        path.to_windows()
    home = CrossPlatformPath("/home/u", "linux")
    assert home.to_windows("backslash", distribution="Ubuntu") == r"\\wsl.localhost\Ubuntu\home\u"


def test_the_long_form_has_no_limit_and_no_dots():
    assert windows(r"C:\a\..\b").to_windows_long() == "\\\\?\\C:\\b"
    assert windows(r"\\s\t\x").to_windows_long() == "\\\\?\\UNC\\s\\t\\x"
    with pytest.raises(ValueError, match="not absolute"):
        windows("a/b").to_windows_long()


def test_a_path_that_depends_on_the_current_folder_of_a_drive_is_not_guessed():
    path = windows(r"D:foo\bar")  # hafs: /dfoo/bar
    assert path.to_windows("backslash") == r"D:foo\bar"
    with pytest.raises(ValueError, match="current folder"):
        path.to_posix()


@pytest.mark.parametrize("text", ["", "a\0b", "//server", r"\\wsl$"])
def test_what_is_no_path_is_refused(text):
    with pytest.raises(ValueError, match=r"path|NUL"):  # hafs: "" is the current folder
        windows(text)


def test_an_unknown_platform_style_or_shell_is_refused():
    with pytest.raises(ValueError, match="a platform is"):
        CrossPlatformPath("/x", "mars")
    with pytest.raises(ValueError, match="a style is"):
        windows("C:/x").to_windows("sideways")
    with pytest.raises(ValueError, match="a shell is"):
        windows("C:/x").for_shell_escape("fish")


@pytest.mark.parametrize("name", ["CON", "nul.txt", "a.", "a ", "a:b", "what?", "a\\b"])
def test_names_that_windows_cannot_hold_are_told(name):
    with pytest.raises(ValueError, match=r"Windows|device"):
        CrossPlatformPath(f"/mnt/c/{name}", "linux").to_windows()


def test_a_backslash_is_a_letter_of_a_posix_name():
    assert CrossPlatformPath(r"a\b", "linux").to_posix() == r"a\b"


def test_without_a_platform_the_text_tells():
    assert CrossPlatformPath("D:/x").platform == "windows"
    assert CrossPlatformPath(r"\\s\t\x").platform == "windows"
    assert CrossPlatformPath("/home/x").platform == "linux"


def test_a_home_is_expanded_on_request_and_by_a_shell():
    path = CrossPlatformPath("~/my models", "linux")
    assert path.for_shell_escape() == "~/'my models'"
    assert str(path.expanded("/home/u")) == "/home/u/my models"
    assert path.to_sftp_path() == "my models"
    with pytest.raises(ValueError, match="not known"):
        CrossPlatformPath("~root/x", "linux").expanded("/home/u")


def test_case_counts_where_the_platform_says_so():
    assert windows("d:/Models") == windows("D:/MODELS")
    assert hash(windows("d:/Models")) == hash(windows("D:/MODELS"))
    assert CrossPlatformPath("/a", "linux") != CrossPlatformPath("/A", "linux")
    assert CrossPlatformPath("/a", "mac") == CrossPlatformPath("/A", "mac")


# --- shells ----------------------------------------------------------------------------

NASTY = "/a b/(x)'q\"$HOME`id`;&|*?[!]\\\n-rf"


def test_a_nasty_name_is_one_word_for_a_posix_shell():  # hafs leaves ' $ ` ; alone
    for text in (NASTY, "-rf", "~$(id)/x", "~;id"):
        word = CrossPlatformPath(text, "linux").for_shell_escape()
        said = subprocess.run(["sh", "-c", f"printf %s {word}"], capture_output=True, text=True)
        assert said.stdout in (text, f"./{text}")


def test_powershell_and_cmd_have_quotes_of_their_own():
    path = windows("D:/o'x \u2019y")
    assert path.for_shell_escape("powershell") == "'D:\\o''x \u2019\u2019y'"
    assert windows("D:/a b").for_shell_escape("cmd") == r'"D:\a b"'
    with pytest.raises(ValueError, match="cmd has no way"):
        windows("D:/100%").for_shell_escape("cmd")


parts = st.lists(
    st.text(
        st.characters(exclude_characters="/\\\0:<>\"|?*", exclude_categories=["Cc", "Cs"]),
        min_size=1,
        max_size=12,
    ).filter(lambda s: s not in (".", "..")),
    min_size=1,
    max_size=5,
)  # fmt: skip


@given(st.sampled_from("CDZ"), parts)
def test_every_spelling_of_a_drive_is_the_same_path(drive, names):
    path = windows(f"{drive}:/" + "/".join(names))
    for spelled in (
        path.to_windows("backslash"), path.to_windows("forward"), path.to_posix(), path.to_wsl(),
        "\\\\?\\" + path.to_windows("backslash"),
    ):  # fmt: skip
        assert windows(spelled) == path
        assert windows(spelled).parts == path.parts


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_a_shell_always_gets_exactly_one_word(text):
    path = CrossPlatformPath(text, "linux")
    words = shlex.split(path.for_shell_escape())
    assert len(words) == 1
    assert words[0].removeprefix("./") == path.to_posix().removeprefix("./")


@given(st.text(st.sampled_from("ab./"), min_size=1).filter(lambda s: s.strip("/")))
def test_a_normal_path_never_leaves_its_root(text):
    path = CrossPlatformPath("/" + text, "linux").normalized()
    assert ".." not in path.parts
    assert path.normalized() == path


# --- mounts ----------------------------------------------------------------------------


@pytest.fixture
def mounts(tmp_path):
    def mount(name, remote, platform="windows", host=None):
        return MountPoint(name, tmp_path / name, CrossPlatformPath(remote, platform), host)

    return PathMap(
        [
            mount("training", "D:/hafs_training"),
            mount("models", "D:/hafs_training/models"),
            mount("cloud", "/mnt/storage/hafs", "linux", "cloud-gpu"),
        ]
    )


@pytest.mark.parametrize(
    ("remote", "local"),
    [
        ("D:/hafs_training/x", "training/x"),
        ("D:/hafs_training", "training"),
        (r"d:\HAFS_training\Data", "training/Data"),  # hafs: no match
        ("D:/hafs_training/models/x", "models/x"),  # hafs: the first one wins
        ("D:/hafs_training_old/x", None),  # hafs: training/_old/x, a wrong file
        ("D:/hafs_training/../../etc", None),  # hafs: training/../../etc
        ("D:/hafs_training/a/../b", "training/b"),
        ("C:/hafs_training", None),
        ("hafs_training", None),
    ],
)
def test_a_remote_path_is_found_by_whole_parts_longest_first(mounts, tmp_path, remote, local):
    found = mounts.to_local(windows(remote))
    assert (found and found[1]) == (tmp_path / local if local else None)


def test_case_counts_in_a_mount_from_linux(mounts):
    assert mounts.to_local(CrossPlatformPath("/mnt/storage/hafs/y", "linux"))
    assert mounts.to_local(CrossPlatformPath("/mnt/storage/hafs2/y", "linux")) is None
    assert mounts.to_local(CrossPlatformPath("/mnt/storage/HAFS/y", "linux")) is None


def test_a_mount_of_one_host_shows_nothing_of_another(mounts):
    path = CrossPlatformPath("/mnt/storage/hafs/y", "linux")
    assert mounts.to_local(path, "cloud-gpu")
    assert mounts.to_local(path, "backup-server") is None


def test_a_local_path_is_translated_back(mounts, tmp_path):
    mount, remote = mounts.to_remote(tmp_path / "models" / "x y")
    assert (mount.name, remote.to_windows()) == ("models", "D:/hafs_training/models/x y")
    assert mounts.to_remote(tmp_path / "models_old") is None
    assert mounts.to_remote(tmp_path / "training" / ".." / "elsewhere") is None


@given(parts)
def test_there_and_back_is_the_same_place(names):
    below = "/".join(names)
    mounts = PathMap([MountPoint("m", Path("/mounts/m"), windows("D:/root"))])
    _, local = mounts.to_local(windows("D:/root") / tuple(names))
    assert local == Path("/mounts/m") / below
    assert mounts.to_remote(local)[1] == windows("D:/root") / tuple(names)


def test_an_empty_folder_is_a_mount_point_without_its_mount(mounts, tmp_path):
    (tmp_path / "training").mkdir()
    mount, _ = mounts.to_local(windows("D:/hafs_training/x"))
    assert not mount.is_accessible()  # hafs: counts as mounted
    (tmp_path / "training" / "file").touch()
    assert mount.is_accessible()


@pytest.mark.parametrize(
    ("platform", "same"), [("mac", True), ("linux", False), ("windows", False)]
)
def test_an_accent_is_spelled_in_two_ways_on_a_mac_only(platform, same):
    root = "C:" if platform == "windows" else ""
    composed = CrossPlatformPath(f"{root}/models/café/v1", platform)
    apart = CrossPlatformPath(f"{root}/models/cafe\u0301", platform)
    assert (composed.relative_to(apart) == ("v1",)) is same
    assert (composed == apart / "v1") is same
    # What a path is called is not changed.
    assert str(apart).endswith("cafe\u0301")
