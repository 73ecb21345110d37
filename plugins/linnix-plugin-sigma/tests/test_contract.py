"""The plugin keeps the contract of its kind."""

import pytest

from linnix_core import ProcessEvent
from linnix_core.testing import HandlerContract
from linnix_plugin_sigma import SigmaHandler

RULE = """
title: Netcat
logsource: {product: linux, category: process_creation}
detection:
    selection: {Image|endswith: /nc}
    condition: selection
"""


class TestSigma(HandlerContract):
    @pytest.fixture
    def plugin_class(self):
        return SigmaHandler

    @pytest.fixture
    def options(self, tmp_path):
        (tmp_path / "nc.yml").write_text(RULE)
        return {"path": str(tmp_path / "nc.yml")}

    @pytest.fixture
    def provoking_records(self):
        return [
            ProcessEvent(
                "exec",
                pid=7,
                start_ns=10_000_000,
                exe="/bin/nc",
                args=("nc", "-l"),
                comm="nc",
                ts_ns=1_750_000_000 * 10**9,
                boot_id="boot",
            )
        ]
