"""The wheel and the sdist have the expected content, and their builds are reproducible."""

from __future__ import annotations

import tarfile
import zipfile
from email.parser import Parser
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from airflow_provider_datazone import __version__
from tests.conftest import REPOSITORY
from tests.release.conftest import TOOLS, run
from tests.unit.test_packaging import PROJECT

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

STEM = f"airflow_provider_amazon_datazone-{__version__}"
METADATA = {
    f"{STEM}.dist-info/{name}"
    for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
}
# The sdist contains all other committed files. These files are useful only in a checkout.
NOT_SHIPPED = {".ci/run"}


def digest(file: Path) -> tuple[str, str]:
    return file.name, sha256(file.read_bytes()).hexdigest()


def tracked_files(clone: Path, under: str = "") -> dict[str, bytes]:
    names = run("git", "ls-files", "-z", cwd=clone).split("\0")
    return {name: (clone / name).read_bytes() for name in names if name and name.startswith(under)}


def read_wheel(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def read_sdist(sdist: Path) -> dict[str, bytes]:
    with tarfile.open(sdist) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        return {
            member.name.removeprefix(f"{STEM}/"): archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in members
        }


def read_metadata(text: bytes) -> Message:
    return Parser().parsestr(text.decode())


# -------------------------------------------------------------------- content


def test_file_names_contain_the_distribution_and_the_version(wheel: Path, sdist: Path) -> None:
    assert (wheel.name, sdist.name) == (f"{STEM}-py3-none-any.whl", f"{STEM}.tar.gz")


def test_wheel_contains_only_the_committed_package(wheel: Path, clone: Path) -> None:
    files = read_wheel(wheel)
    assert "airflow_provider_datazone/py.typed" in files
    metadata = {name: files.pop(name) for name in METADATA}
    assert metadata[f"{STEM}.dist-info/licenses/LICENSE"] == (clone / "LICENSE").read_bytes()
    tracked = tracked_files(clone, under="airflow_provider_datazone/")
    # The configuration of a tool, not a part of the package.
    del tracked["airflow_provider_datazone/testing/backend/ruff.toml"]
    assert files == tracked


def test_sdist_contains_the_committed_files(sdist: Path, clone: Path) -> None:
    files, tracked = read_sdist(sdist), tracked_files(clone)
    del files["PKG-INFO"]
    assert files.keys() == tracked.keys() - NOT_SHIPPED
    assert files == {name: tracked[name] for name in files}


def test_archives_contain_no_details_of_the_machine(wheel: Path, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "", "")}
    assert {m.mode for m in members} <= {0o644, 0o755}
    assert len({m.mtime for m in members}) == 1
    with zipfile.ZipFile(wheel) as zipped:
        assert len({info.date_time for info in zipped.infolist()}) == 1
    checkout_path = str(REPOSITORY).encode()
    for files in (read_wheel(wheel), read_sdist(sdist)):
        assert not [name for name, content in files.items() if checkout_path in content]


# ------------------------------------------------------------------- metadata


def test_metadata_matches_the_project_table(wheel: Path) -> None:
    metadata = read_metadata(read_wheel(wheel)[f"{STEM}.dist-info/METADATA"])
    assert metadata["Name"] == PROJECT["name"]
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata.get_all("Classifier") == PROJECT["classifiers"]
    assert metadata.get_all("Project-URL") == [f"{name}, {url}" for name, url in PROJECT["urls"].items()]
    assert metadata.get_all("Provides-Extra") == ["testing"]
    assert set(metadata.get_all("Requires-Dist", [])) == {
        *PROJECT["dependencies"],
        *(f"{r}; extra == 'testing'" for r in PROJECT["optional-dependencies"]["testing"]),
    }
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (REPOSITORY / "README.md").read_text()


def test_wheel_and_sdist_have_the_same_metadata(wheel: Path, sdist: Path) -> None:
    assert read_wheel(wheel)[f"{STEM}.dist-info/METADATA"] == read_sdist(sdist)["PKG-INFO"]


def test_description_renders_on_a_package_index(wheel: Path, sdist: Path) -> None:
    assert run(TOOLS / "twine", "check", "--strict", wheel, sdist).count("PASSED") == 2


# ------------------------------------------------------------ reproducibility


def build(source: Path, output: Path, *options: str, **environment: str) -> dict[str, str]:
    """Build like `make dist`, and return the hash of each file."""
    command = (TOOLS / "python", "-m", "build", "--no-isolation", *options, "--outdir", output, source)
    run(*command, env={"PATH": "/usr/bin:/bin", **environment}, umask=0o077)
    return dict(digest(file) for file in output.iterdir())


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Niue"])
def test_build_in_another_folder_is_reproducible(
    wheel: Path, sdist: Path, clone: Path, tmp_path: Path, zone: str
) -> None:
    # Build on two different dates and with a different sort order of file names.
    hashes = build(clone, tmp_path, TZ=zone, LC_ALL="C", PYTHONHASHSEED="1", HOME=str(tmp_path / "none"))
    assert hashes == dict([digest(wheel), digest(sdist)])


def test_wheel_from_the_checkout_equals_the_wheel_from_the_sdist(
    wheel: Path, clone: Path, tmp_path: Path
) -> None:
    # `make dist` builds the wheel from the sdist.
    assert build(clone, tmp_path, "--wheel") == dict([digest(wheel)])
