"""The examples of configuration are what they say, and can be used as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
RULES = ROOT / "plugins/linnix-plugin-rules/src/linnix_plugin_rules/default_rules.yaml"


def linnix(*arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "linnix_core", *arguments], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_rules_are_the_ones_that_apply_by_default():
    assert (CONFIGS / "rules.yaml").read_bytes() == RULES.read_bytes()


def test_the_rules_pass_the_tests_that_are_in_them():
    linnix("rules", "check", str(CONFIGS / "rules.yaml"))
    linnix("rules", "test", str(CONFIGS / "rules.yaml"))


def test_the_configuration_has_no_mistake(tmp_path):
    # The rules of a server are not on this machine; which file it is makes no difference here.
    text = (CONFIGS / "linnix.toml").read_text(encoding="utf-8")
    file = tmp_path / "linnix.toml"
    file.write_text(text.replace("/etc/linnix/rules.yaml", str(CONFIGS / "rules.yaml")))
    linnix("config", "check", "--config", str(file))
