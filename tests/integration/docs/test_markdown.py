"""The pages are plain Markdown, and their commands and options exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap

import pytest

from airflow_provider_datazone.get_provider_info import get_provider_info
from scripts.update_docs import BLOCK, update
from tests.conftest import REPOSITORY
from tests.integration.docs.pages import BY_HAND, EXAMPLE_LANGUAGES, FENCED, LANGUAGES, MARKDOWN, PAGES, prose


@pytest.mark.parametrize("page", MARKDOWN)
def test_code_block_has_a_highlighted_language(page: str) -> None:
    fences = re.findall(r"^ *```(.*)", MARKDOWN[page], re.MULTILINE)
    assert set(fences[::2]) <= LANGUAGES
    assert set(fences[1::2]) <= {""}


@pytest.mark.parametrize("page", MARKDOWN)
def test_code_block_matches_its_example(page: str) -> None:
    """If this test fails, run `python scripts/update_docs.py` to copy the examples into the pages."""
    assert update(MARKDOWN[page]) == MARKDOWN[page]


@pytest.mark.parametrize("page", MARKDOWN)
def test_code_block_names_its_example(page: str) -> None:
    without_examples = BLOCK.sub("", MARKDOWN[page])
    assert not EXAMPLE_LANGUAGES & {block[1].strip() for block in FENCED.finditer(without_examples)}
    # A misspelled comment would exclude its block from updates.
    assert "<!-- from " not in without_examples


@pytest.mark.parametrize("page", MARKDOWN)
def test_page_has_no_site_specific_syntax(page: str) -> None:
    text = prose(MARKDOWN[page])
    assert re.findall(r"\[\s*\]\(.*?\)", text) == []
    # Check for roles, directives in colon fences, targets, attributes and definition lists.
    assert re.findall(r"(?<!\$)\{[\w:+-]+\}`.*?`", text) == []
    assert re.findall(r"^ *(?::::.*|\(\S+\)=|\{[^}\n]*\}|: .*)$", text, re.MULTILINE) == []


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {"changelog.md"}))
def test_page_starts_with_what_the_reader_learns(page: str) -> None:
    assert re.match(r"# .+\n\nAfter reading this page you (can|know) [^.]+\. ?", PAGES[page])


def test_update_restores_an_edited_block() -> None:
    page = PAGES["quick-start.md"]
    (block,) = (match[0] for match in BLOCK.finditer(page) if "describe_asset.py" in match[0])
    edited = block.replace("poll_interval=5", "poll_interval=6")
    assert edited != block
    assert update(page.replace(block, edited)) == page


@pytest.mark.parametrize(
    "comment",
    [
        "<!-- from docs/examples/dags/own_tasks.py, section missing -->",
        "<!-- from docs/examples/tests/test_hook.py, function missing -->",
        "<!-- from docs/examples/missing.py -->",
    ],
)
def test_comment_with_a_missing_example_raises_an_error(comment: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match="missing"):
        update(f"{comment}\n")


COMMANDS = sorted(
    {
        line.removeprefix("$ ")
        for page, text in [*PAGES.items(), ("README.md", (REPOSITORY / "README.md").read_text())]
        # The page is about other machines.
        if page != "installing.md"
        for block in re.findall(r"^ *```console\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
        for line in re.sub(r"\\\n *", "", textwrap.dedent(block)).splitlines()
    }
)
# Every test that needs a database runs the first command. Another test runs the others as shown.
TESTED_COMMANDS = {"airflow db migrate", *re.findall(r"^\$ (.*)$", BY_HAND, re.MULTILINE)}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_exists(command: str) -> None:
    words = shlex.split(command, comments=True)
    while "=" in words[0]:
        variable = words.pop(0).partition("=")[0]
        assert any(f'"{variable}"' in path.read_text() for path in (REPOSITORY / "tests").rglob("*.py"))
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)
    elif re.fullmatch(r"(\.venvs?/(bench/)?bin/)?python", program):
        module_or_file = arguments[1:2] if arguments[0] == "-m" else arguments[:1]
        script = ["-m", *module_or_file] if arguments[0] == "-m" else [str(REPOSITORY / module_or_file[0])]
        completed = subprocess.run(
            [sys.executable, *script, "--help"], capture_output=True, text=True, check=False, timeout=120
        )
        assert completed.returncode == 0, completed.stderr
        options = [argument for argument in arguments[1:] if argument.startswith("--")]
        assert all(option in completed.stdout for option in options)
        assert all((REPOSITORY / file).exists() for file in arguments if file.endswith(".py"))
    elif program in ("airflow", "curl"):
        assert command in TESTED_COMMANDS
    else:
        assert program in ("export", "pip") or command.startswith("python3 -m venv "), command


def test_pages_mention_only_existing_options() -> None:
    options = get_provider_info()["config"]["datazone"]["options"]
    for page, text in PAGES.items():
        for option in re.findall(r"\[datazone\] ?\n?(\w+)", text):
            assert option in options, page
        for option in re.findall(r"AIRFLOW__DATAZONE__(\w+)", text):
            assert option.lower() in options, page
