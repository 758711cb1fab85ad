"""The code of the README and the docs runs as it stands; the commands are those that CI runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = (
    'pip install -e ".[test]" && pytest',
    'pip install -e ".[examples]" && python examples/vowels.py',
)


def python_blocks(text: str) -> list[tuple[int, str]]:
    """Line number and source of every fenced Python block, in order."""
    return [
        (text.count("\n", 0, match.start(1)), match[1])
        for match in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run_in_order(tmp_path, monkeypatch, page):
    # A later block may use what an earlier one defined, as a reader who follows the page would.
    monkeypatch.chdir(tmp_path)
    blocks = python_blocks(page.read_text(encoding="utf-8"))
    assert blocks or page.name in ("measurements.md", "scaling.md")
    namespace = {"__name__": "readme"}
    for line, source in blocks:
        # Leading newlines make a traceback name the page's own lines.
        exec(compile("\n" * line + source, str(page), "exec"), namespace)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("document", ["README.md", ".ci/run"])
def test_command_stands_in(document, command):
    assert command in (ROOT / document).read_text(encoding="utf-8")


def test_the_tests_that_hold_the_guarantees_exist():
    section = README.read_text(encoding="utf-8").partition("## Guarantees")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 5
    for row in rows:
        named = re.findall(r"`(tests/\w+\.py)`", row)
        assert named, row
        assert all((ROOT / name).is_file() for name in named), row
