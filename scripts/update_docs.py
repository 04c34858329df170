"""Copy the tested examples into the documentation pages.

A comment before a code block names the source of the code:

    <!-- from docs/examples/try_it.py -->
    <!-- from docs/examples/dags/own_tasks.py, section client -->
    <!-- from docs/examples/tests/test_describe_asset.py, function test_dag -->

A section is the text between the lines `# [START client]` and `# [END client]` of the source.
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
LANGUAGES = {".json": "json", ".py": "python", ".sh": "bash"}
BLOCK = re.compile(
    r"^(?P<indent> *)"
    r"(?P<comment><!-- from (?P<file>\S+?)(?:, (?P<kind>section|function) (?P<name>\w+))? -->)\n"
    r"(?:(?P=indent)```\w+\n(?:.*\n)*?(?P=indent)```\n)?",
    re.MULTILINE,
)


def pages() -> list[Path]:
    """Return the pages that may contain examples."""
    built = REPOSITORY / "docs/_build"
    return sorted(
        [REPOSITORY / "README.md"]
        + [page for page in (REPOSITORY / "docs").rglob("*.md") if built not in page.parents]
    )


def example(file: str, kind: str | None = None, name: str | None = None) -> str:
    """Return the text of an example: a file, or a section or a function of it."""
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    if kind == "section":
        section = rf"^ *# \[START {name}\]\n(.*?)^ *# \[END {name}\]$"
        found = re.findall(section, text, re.MULTILINE | re.DOTALL)
        if len(found) != 1:
            raise ValueError(f"{file} must have one section {name!r}, got {len(found)}")
        text = found[0]
    elif kind == "function":
        functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
        found = [ast.get_source_segment(text, node) or "" for node in functions if node.name == name]
        if len(found) != 1:
            raise ValueError(f"{file} must have one function {name!r}, got {len(found)}")
        text = found[0]
    return textwrap.dedent(text).strip("\n") + "\n"


def update(page: str) -> str:
    """Return the text of a page, with each example copied from its source."""

    def block(match: re.Match[str]) -> str:
        language = LANGUAGES[Path(match["file"]).suffix]
        code = example(match["file"], match["kind"], match["name"])
        return textwrap.indent(f"{match['comment']}\n```{language}\n{code}```\n", match["indent"])

    return BLOCK.sub(block, page)


def main() -> None:
    for path in pages():
        before = path.read_text(encoding="utf-8")
        after = update(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"Updated {path.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
