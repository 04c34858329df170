"""The pages of the documentation and the examples that they contain."""

from __future__ import annotations

import ast
import json
import re
import runpy
from pathlib import Path
from typing import Any

import airflow

from tests.conftest import REPOSITORY

AIRFLOW_MINOR = airflow.__version__.rpartition(".")[0]
DOCS = REPOSITORY / "docs"
EXAMPLES = DOCS / "examples"
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text()
    for path in sorted(DOCS.rglob("*.md"))
    if "_build" not in path.parts
}
CONNECTIONS = sorted(EXAMPLES.glob("*.sh"))
POLICIES = sorted((EXAMPLES / "policies").glob("*.json"))


def load(name: str) -> Any:
    return runpy.run_path(str(EXAMPLES / f"dags/{name}.py"))["dag"]


def run(dag: Any, **params: str) -> dict[str, Any]:
    """Run a DAG, check that every task succeeds, and return its task instances."""
    dag_run = dag.test(run_conf=params)
    instances = {ti.task_id: ti for ti in dag_run.get_task_instances()}
    assert {name: ti.state for name, ti in instances.items()} == dict.fromkeys(dag.task_dict, "success")
    return instances


(BY_HAND,) = re.findall(r"^## By hand\n(.*?)^## ", PAGES["testing.md"], re.MULTILINE | re.DOTALL)
# Every Markdown page of the repository.
MARKDOWN = {
    **{path.name: path.read_text() for path in sorted(REPOSITORY.glob("*.md"))},
    **{f"docs/{page}": text for page, text in PAGES.items()},
}
FENCED = re.compile(r"^ *```(.*)\n(?:.*\n)*?^ *```$\n?", re.MULTILINE)
# A test runs or reads each example in these languages. Other tests cover the other languages.
EXAMPLE_LANGUAGES = {"bash", "json", "python"}
LANGUAGES = EXAMPLE_LANGUAGES | {"console", "dockerfile", "ini", "text", "yaml"}


def prose(text: str) -> str:
    """Return a page without its code blocks."""
    return FENCED.sub("", text)


def statements(policy: Path) -> list[dict[str, Any]]:
    return list(json.loads(policy.read_text())["Statement"])


def actions(policy: Path) -> set[str]:
    return {action for statement in statements(policy) for action in statement["Action"]}


# The pages that the site lists under each page, from conf.py.
(NAVIGATION,) = (
    ast.literal_eval(node.value)
    for node in ast.parse((DOCS / "conf.py").read_text()).body
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NAVIGATION"
)
NAVIGATED = {
    f"{page}.md": [name for pages in captions.values() for name in pages]
    for page, captions in NAVIGATION.items()
}
