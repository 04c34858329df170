"""The pages are plain Markdown, and the commands and options that they show exist."""

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
def test_code_block_has_a_language_that_a_git_host_highlights(page: str) -> None:
    fences = re.findall(r"^ *```(.*)", MARKDOWN[page], re.MULTILINE)
    assert set(fences[::2]) <= LANGUAGES
    assert set(fences[1::2]) <= {""}


@pytest.mark.parametrize("page", MARKDOWN)
def test_code_block_is_the_text_of_its_example(page: str) -> None:
    """If this fails, run `python scripts/update_docs.py`: it copies the examples into the pages."""
    assert update(MARKDOWN[page]) == MARKDOWN[page]


@pytest.mark.parametrize("page", MARKDOWN)
def test_code_block_names_its_example(page: str) -> None:
    without_examples = BLOCK.sub("", MARKDOWN[page])
    assert not EXAMPLE_LANGUAGES & {block[1].strip() for block in FENCED.finditer(without_examples)}
    # A comment that is almost one of these would leave its block as it is.
    assert "<!-- from " not in without_examples


@pytest.mark.parametrize("page", MARKDOWN)
def test_page_has_no_syntax_that_only_the_site_renders(page: str) -> None:
    text = prose(MARKDOWN[page])
    assert re.findall(r"\[\s*\]\(.*?\)", text) == []
    # Roles, directives in colon fences, targets, attributes and definition lists.
    assert re.findall(r"(?<!\$)\{[\w:+-]+\}`.*?`", text) == []
    assert re.findall(r"^ *(?::::.*|\(\S+\)=|\{[^}\n]*\}|: .*)$", text, re.MULTILINE) == []


@pytest.mark.parametrize("page", sorted(PAGES.keys() - {"changelog.md"}))
def test_page_opens_with_what_its_reader_can_do(page: str) -> None:
    assert re.match(r"# .+\n\nAfter reading this page you (can|know) [^.]+\. ?", PAGES[page])


def test_example_differs_from_its_block_once_either_is_edited() -> None:
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
def test_comment_that_names_a_missing_example_is_an_error(comment: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match="missing"):
        update(f"{comment}\n")


COMMANDS = sorted(
    {
        line.removeprefix("$ ")
        for page, text in [*PAGES.items(), ("README.md", (REPOSITORY / "README.md").read_text())]
        # It is about other machines than this one.
        if page != "installing.md"
        for block in re.findall(r"^ *```console\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
        for line in re.sub(r"\\\n *", "", textwrap.dedent(block)).splitlines()
    }
)
# The first is run for every test that needs a database, the others as the page shows them.
RUN_AS_SHOWN = {"airflow db migrate", *re.findall(r"^\$ (.*)$", BY_HAND, re.MULTILINE)}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_there_to_be_run(command: str) -> None:
    words = shlex.split(command, comments=True)
    while "=" in words[0]:
        variable = words.pop(0).partition("=")[0]
        assert any(f'"{variable}"' in path.read_text() for path in (REPOSITORY / "tests").rglob("*.py"))
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)
    elif re.fullmatch(r"(\.venvs?/(bench/)?bin/)?python", program):
        what = arguments[1:2] if arguments[0] == "-m" else arguments[:1]
        script = ["-m", *what] if arguments[0] == "-m" else [str(REPOSITORY / what[0])]
        done = subprocess.run(
            [sys.executable, *script, "--help"], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        options = [argument for argument in arguments[1:] if argument.startswith("--")]
        assert all(option in done.stdout for option in options)
        assert all((REPOSITORY / file).exists() for file in arguments if file.endswith(".py"))
    elif program in ("airflow", "curl"):
        assert command in RUN_AS_SHOWN
    else:
        assert program == "pip", command


def test_options_that_are_named_are_options() -> None:
    options = get_provider_info()["config"]["datazone"]["options"]
    for page, text in PAGES.items():
        for option in re.findall(r"\[datazone\] ?\n?(\w+)", text):
            assert option in options, page
        for option in re.findall(r"AIRFLOW__DATAZONE__(\w+)", text):
            assert option.lower() in options, page
