"""The pages link to each other, and cover every public class."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import pytest

from airflow_provider_datazone.get_provider_info import get_provider_info
from tests.conftest import REPOSITORY
from tests.integration.docs.pages import DOCS, MARKDOWN, NAVIGATED, PAGES, prose


@pytest.mark.parametrize(
    "guide", [guide for entry in get_provider_info()["integrations"] for guide in entry["how-to-guide"]]
)
def test_how_to_guide_is_a_page_of_the_site(guide: str) -> None:
    assert guide.startswith("/docs/")
    page = REPOSITORY / guide.removeprefix("/")
    assert page.is_file()
    # A page that is in no navigation is an error of the build.
    assert page.stem in NAVIGATED["index.md"]


@pytest.mark.parametrize("page", NAVIGATED)
def test_page_links_to_the_pages_that_the_site_lists_under_it(page: str) -> None:
    linked = {target.partition("#")[0] for target in re.findall(r"\]\((\S+?)\)", PAGES[page])}
    for name in NAVIGATED[page]:
        assert linked & {f"{name}.md", f"{name}.rst"}, name


def public_classes(module: Any) -> list[str]:
    return [
        name
        for name, found in inspect.getmembers(module, inspect.isclass)
        if found.__module__ == module.__name__ and not name.startswith("_")
    ]


def test_each_operator_and_the_sensor_has_a_section_with_an_example() -> None:
    sections = re.split(r"^## ", PAGES["operators.md"], flags=re.MULTILINE)
    for kind in ("operator", "sensor"):
        module = importlib.import_module(f"airflow_provider_datazone.{kind}s.datazone")
        for name in public_classes(module):
            assert any(f"`{name}`" in prose(section) and f" = {name}(" in section for section in sections), (
                name
            )


def test_each_public_class_is_in_the_api_reference() -> None:
    for kind in ("operators", "sensors", "triggers", "hooks", "links"):
        module = importlib.import_module(f"airflow_provider_datazone.{kind}.datazone")
        text = "".join((DOCS / f"api/{page}.rst").read_text() for page in (kind, "internals"))
        for name in public_classes(module):
            assert re.search(rf"autoclass:: (?:{re.escape(module.__name__)}\.)?{name}$", text, re.M)


def anchors(markdown: str) -> list[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    # The site makes them for three levels: `myst_heading_anchors`.
    headings = re.findall(r"^#{1,3} (.*)$", prose(markdown), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", MARKDOWN)
def test_headings_of_a_page_differ(page: str) -> None:
    """Otherwise GitHub and the site number their anchors, each in its own way."""
    assert len(set(anchors(MARKDOWN[page]))) == len(anchors(MARKDOWN[page]))


LINKS = [
    (page, link)
    for page, text in MARKDOWN.items()
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(text))
]


@pytest.mark.parametrize(("page", "link"), sorted(set(LINKS)))
def test_link_leads_somewhere(page: str, link: str) -> None:
    target, _, anchor = link.partition("#")
    file = (REPOSITORY / page).parent / target if target else REPOSITORY / page
    assert file.exists()
    if anchor:
        assert anchor in anchors(file.read_text())


def test_public_address_stands_in_one_place() -> None:
    address = "airflow-provider-amazon-datazone." + "example"
    folders = ("airflow_provider_datazone", "docs", "example_dags", "scripts", "tests")
    files = [path for path in REPOSITORY.glob("*.*") if path.suffix in (".md", ".py", ".toml")] + [
        path
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*.*")
        if path.suffix in (".md", ".py", ".rst") and "_build" not in path.parts
    ]
    assert [path.name for path in files if address in path.read_text()] == ["pyproject.toml"]
