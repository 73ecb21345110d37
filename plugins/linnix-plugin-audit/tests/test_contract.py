"""The plugin offers a command, which is light to import and explains itself."""

import subprocess
import sys
import textwrap

from click.testing import CliRunner

from linnix_plugin_audit.commands import command


def test_importing_the_command_imports_no_audit():
    program = """
        import sys, linnix_plugin_audit.commands
        print("linnix_plugin_audit.tree" in sys.modules)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(program)]
    said = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert said.stdout == "False\n"


def test_both_audits_explain_themselves():
    for kind in ("split", "segregation"):
        result = CliRunner().invoke(command, [kind, "--help"])
        assert result.exit_code == 0
        assert "--sarif" in result.output
