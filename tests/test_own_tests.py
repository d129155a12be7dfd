"""`tools/own_tests.py`: what it lists, and how it judges."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


class TestOwnTests:
    """`tools/own_tests.py`, which runs the frameworks' own tests with these layers in the place of theirs."""

    def test_the_page_lists_each_difference(self) -> None:
        module = _own_tests()
        page = (ROOT / "docs" / "drop-in.md").read_text(encoding="utf-8")
        listed = [line for line in page.splitlines() if line.startswith("| `")]
        assert listed == [
            f"| `{framework}` | {len(difference.tests)} | {difference.reason} |"
            for framework, differences in module.DIFFERENCES.items()
            for difference in differences
        ]

    def test_verdicts(self) -> None:
        module = _own_tests()
        failed = module.Outcome("failed", "a.py:1: b", "a.py:1: b")
        expected = module.Difference("a reason", "b", ())
        passed = module.Outcome("passed", reached=True)
        cases = [
            ((passed, None, None), "passed"),
            ((passed._replace(reached=False), None, None), "unexpected"),
            ((passed, expected, None), "unexpected"),
            ((failed, expected, None), "differs as listed"),
            ((failed, expected._replace(failure="c"), None), "unexpected"),
            ((failed, None, None), "unexpected"),
            ((failed, None, passed), "unexpected"),
            ((failed, None, failed._replace(why="a.py:2: c")), "unexpected"),
            ((failed, None, failed), "fails with the framework's own too"),
            ((None, expected, None), "unexpected"),
            ((module.Outcome("skipped", "no device"), None, None), "skipped"),
        ]
        assert [module.verdict(*arguments)[0] for arguments, _ in cases] == [kind for _, kind in cases]

    def test_a_checkout(self, need: Any, tmp_path: Path) -> None:
        """With tests that pass, fail with multidrop's layers alone, and with torch's too."""
        need("torch")
        (tmp_path / "test" / "nn").mkdir(parents=True)
        (tmp_path / "test" / "nn" / "test_dropout.py").write_text(
            """
import torch

def test_passes():
    assert torch.nn.functional.dropout(torch.ones(3), 1.0).sum() == 0

def test_fails():
    assert type(torch.nn.Dropout()).__module__.startswith("torch")

def test_fails_anyway():
    torch.nn.Dropout(0.5, None, None, None)
""",
            encoding="utf-8",
        )
        command = [sys.executable, str(ROOT / "tools" / "own_tests.py"), "torch", str(tmp_path), "--own"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        assert "test_dropout.py::test_passes: passed\n" in done.stdout
        assert "test_dropout.py::test_fails: unexpected: " in done.stdout
        assert "test_dropout.py::test_fails_anyway: fails with the framework's own too: " in done.stdout
        assert done.stdout.endswith("3 tests: 1 passed, 1 unexpected, 1 fails with the framework's own too\n")


def _own_tests() -> Any:
    spec = importlib.util.spec_from_file_location("own_tests", ROOT / "tools" / "own_tests.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
