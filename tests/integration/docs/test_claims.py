"""The facts in the documentation are correct."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata

import airflow
import botocore.session
import pytest
from airflow.providers.common.compat.sdk import DAG, task
from packaging.requirements import Requirement

from airflow_provider_datazone.metadata_generation import RUN_TYPES
from tests.conftest import REPOSITORY
from tests.integration.docs.pages import PAGES


def test_grep_command_removes_the_pins_that_are_too_old() -> None:
    page = PAGES["installing.md"]
    (expression,) = re.findall(r"^\$ grep -vE '(.*)' published.txt > constraints.txt$", page, re.MULTILINE)
    pins = ["aiobotocore", "apache-airflow", "apache-airflow-providers-amazon", "boto3", "botocore"]
    pins += ["apache-airflow-providers-common-compat", "s3transfer", "types-boto3"]
    completed = subprocess.run(
        ["grep", "-vE", expression],
        input="".join(f"{pin}==1.0\n" for pin in pins),
        capture_output=True,
        text=True,
        check=True,
    )
    assert completed.stdout.split() == [
        "apache-airflow==1.0",
        "apache-airflow-providers-amazon==1.0",
        "types-boto3==1.0",
    ]


def test_installing_page_has_the_wheel_and_the_lower_bounds() -> None:
    distribution = metadata.distribution("airflow-provider-amazon-datazone")
    pages = [PAGES["installing.md"], (REPOSITORY / "README.md").read_text()]
    wheels = {wheel for page in pages for wheel in re.findall(r"airflow_provider_\w+-\S+?\.whl", page)}
    assert wheels == {f"airflow_provider_amazon_datazone-{distribution.version}-py3-none-any.whl"}
    bounds = {r.name: str(r.specifier)[2:] for r in map(Requirement, distribution.requires or [])}
    assert (
        f"needs boto3 {bounds['boto3']}, the first with\n`typeStats`, the Amazon provider"
        f" {bounds['apache-airflow-providers-amazon']} and"
        f" common-compat {bounds['apache-airflow-providers-common-compat']}."
    ) in pages[0]


def test_memory_of_a_triggerer_matches_the_performance_page() -> None:
    performance = PAGES["performance.md"]
    header, row = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.findall(
            r"^(?:\| \| ratio, 300|\| memory added, MB \| 1/).*$", performance, re.MULTILINE
        )[:2]
    )
    measured = {column: value for column, value in zip(header, row, strict=True) if column.endswith("ours")}
    expected = {
        f"{column.removesuffix(' ours')} waits": round(float(value)) for column, value in measured.items()
    }
    _, batch = performance.split("benchmarks/batch.py\n")
    expected["a batch of 10,000 assets"] = round(float(re.search(r"memory added, MB \| ([\d.]+)", batch)[1]))
    section = PAGES["scaling.md"].split("## Memory of a triggerer\n")[1].split("\n## ")[0]
    shown = re.findall(r"^\| (.*?) \| (\d+) \|$", section, re.MULTILINE)
    assert {name: int(value) for name, value in shown} == expected
    kilobytes = (float(measured["10,000 ours"]) - float(measured["1,000 ours"])) / 9
    assert f"each wait adds about {round(kilobytes)} KB" in section


@pytest.mark.skipif(
    not airflow.__version__.startswith("2.11"), reason="Airflow 3 passes only the arguments of the task"
)
def test_mapped_taskflow_task_fails_on_default_args_in_airflow_2_11() -> None:
    @task
    def mapped(number: int) -> int:
        return number

    with DAG("with_default_args", schedule=None, default_args={"aws_conn_id": "datazone_default"}):
        expanded = mapped.expand(number=[1, 2])
    (message,) = re.findall(r'mapped TaskFlow tasks fail with "(.*?)"', PAGES["troubleshooting.md"])
    with pytest.raises(Exception, match=re.escape(message)):
        expanded.operator.unmap({"op_kwargs": {"number": 1}})


def test_types_match_the_service_model_which_allows_two_types() -> None:
    model = botocore.session.get_session().get_service_model("datazone")
    types = model.shape_for("MetadataGenerationRunTypes")
    assert types.metadata == {"min": 1, "max": 2}
    assert tuple(types.member.enum) == RUN_TYPES
    section = PAGES["operators.md"].split("## Start a run\n")[1].split("\n### ")[0]
    assert all(f"`{name}`" in section for name in RUN_TYPES)
    assert "one or two types" in section


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/quick-start.md"])
def test_introduction_mentions_sagemaker_unified_studio_once(page: str) -> None:
    text = (REPOSITORY / page).read_text()
    assert text.count("SageMaker Unified Studio") == 1
    assert "SageMaker Unified Studio" in re.split(r"^\#\# |^\|", text, flags=re.MULTILINE)[0].replace(
        "\n", " "
    )


def test_tested_versions_match_the_constraints() -> None:
    rows = re.findall(
        r"^\| (\d\S*) \| ([\d., ]+) \| ([\d.]+).*? \| ([\d.]+).*? \| ([\d.]+).*? \| ([\d.]+|none) \| .* \|$",
        PAGES["versions.md"],
        re.MULTILINE,
    )
    files = sorted((REPOSITORY / "constraints").glob("airflow-*.txt"))
    assert len(rows) == len(files)
    for (core, _, amazon, compat, boto3, aiobotocore), file in zip(rows, files, strict=True):
        constraints = file.read_text()
        pins = {
            "apache-airflow": core,
            "apache-airflow-providers-amazon": amazon,
            "apache-airflow-providers-common-compat": compat,
            "boto3": boto3,
            "aiobotocore": aiobotocore,
        }
        for name, pin in pins.items():
            found = re.findall(rf"^{name}==(\S+)", constraints, re.MULTILINE)
            assert pin in (found or ["none"]), name
