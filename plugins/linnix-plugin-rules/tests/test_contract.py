"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core import ProcessEvent
from linnix_core.testing import HandlerContract
from linnix_plugin_rules import RulesHandler

BEGAN_NS = 1_767_225_600 * 10**9


class TestRules(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return RulesHandler

    @pytest.fixture
    def options(self, tmp_path):
        path = tmp_path / "rules.yaml"
        path.write_text(
            "- {name: storm, detector: fork_burst, threshold: 20, window_seconds: 5}\n"
            "- {name: big, detector: subtree_rss_mb, threshold: 1, duration: 1}\n"
        )
        return {"path": str(path)}

    @pytest.fixture
    def provoking_records(self):
        return [
            ProcessEvent(
                "fork",
                pid=5000 + n,
                start_ns=2 * 10**9,
                ppid=4412,
                parent_start_ns=10**9,
                comm="bash",
                ts_ns=BEGAN_NS + n,
            )
            for n in range(30)
        ]
