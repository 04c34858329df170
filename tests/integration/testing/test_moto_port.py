"""The backend within moto: copied next to moto's services, it passes tests in the form of moto's own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import moto
import pytest

from airflow_provider_datazone.testing import backend
from airflow_provider_datazone.testing.backend import urls

MOTO = Path(moto.__file__).parent
TESTS = Path(__file__).with_name("moto_tests.py")
TIMEOUT = 120


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a process whose moto has a service ``datazone``."""
    root = tmp_path_factory.mktemp("moto")
    package = root / "moto"
    package.mkdir()
    for path in MOTO.iterdir():
        if path.name != "datazone":
            (package / path.name).symlink_to(path)
    shutil.copytree(Path(backend.__file__).parent, package / "datazone")
    # Moto generates its index from the services.
    index = package / "backend_index.py"
    text = index.read_text(encoding="utf-8")
    patterns = "".join(f'    ("datazone", re.compile({base!r})),\n' for base in urls.url_bases)
    text = re.sub(r"(?m)^(backend_url_patterns = \[\n)", lambda found: found[0] + patterns, text)
    index.unlink()
    index.write_text(text, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    return {**kept, **keys, "PYTHONPATH": str(root), "NO_PROXY": "127.0.0.1"}


@pytest.fixture
def server(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Start moto's server, and return the environment of tests that use it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until_listening(process, port)
            yield {
                **environment,
                "TEST_SERVER_MODE": "true",
                "TEST_SERVER_MODE_ENDPOINT": f"http://127.0.0.1:{port}",
            }
        finally:
            process.terminate()


def wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            assert process.poll() is None, "moto's server has ended"
            assert time.monotonic() < deadline, "moto's server does not listen"
            time.sleep(0.1)


def run_tests(environment: dict[str, str], folder: Path) -> None:
    tests = folder / "test_datazone.py"
    shutil.copy(TESTS, tests)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", str(tests)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    number = TESTS.read_text(encoding="utf-8").count("\n@mock_aws\n")
    assert done.returncode == 0, done.stdout
    assert f"{number} passed" in done.stdout


def test_backend_passes_with_the_decorator(environment: dict[str, str], tmp_path: Path) -> None:
    run_tests(environment, tmp_path)


def test_backend_passes_with_the_server(server: dict[str, str], tmp_path: Path) -> None:
    run_tests(server, tmp_path)


def test_backend_imports_nothing_of_airflow_or_of_this_package(environment: dict[str, str]) -> None:
    code = (
        "import sys, moto.datazone.models, moto.datazone.urls;"
        "assert 'site-packages' not in moto.datazone.__file__;"
        "print([name for name in sys.modules if name.startswith('airflow')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_backend_has_the_names_of_moto_in_this_process() -> None:
    # `import moto.datazone.models` would otherwise create other backends.
    code = (
        "import airflow_provider_datazone.testing as testing;"
        "import moto.datazone.models, moto.datazone.responses;"
        "from airflow_provider_datazone.testing.backend import models;"
        "assert moto.datazone.models is models;"
        "assert moto.datazone.datazone_backends is models.datazone_backends"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
