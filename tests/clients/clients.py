"""Clients of DataZone that do not share code with this project: the AWS SDK for JavaScript, and the AWS CLI."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import REPOSITORY

ACCESS_KEY, SECRET_KEY = "AKIAFOREIGNCLIENT", "the secret of a foreign client"
# The SDK is loaded from the working directory of the process.
JAVASCRIPT = REPOSITORY / ".venvs" / "js"
AWSCLI_PYTHON = REPOSITORY / ".venvs" / "awscli" / "bin" / "python"
DRIVERS = Path(__file__).parent
COMMANDS = {
    "javascript": ["node", str(DRIVERS / "drive.mjs")],
    "awscli": [str(AWSCLI_PYTHON), str(DRIVERS / "drive_awscli.py")],
}
TIMEOUT = 30


def environment(endpoint_url: str, home: Path) -> dict[str, str]:
    """Return the variables of a client's process, without those of this process."""
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        # The SDK reads the first, the AWS CLI the second.
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class Answer(NamedTuple):
    """What a client returns for a request: either an output or the name and message of an error."""

    output: dict[str, Any] | None
    error: tuple[str, str] | None
    #: The number of requests that the client has sent, or None if the client does not report it.
    attempts: int | None


class Client:
    """A client in a separate process, isolated from the environment of this process."""

    def __init__(self, name: str, endpoint_url: str, home: Path) -> None:
        self._name = name
        self._process = subprocess.Popen(
            COMMANDS[name],
            cwd=JAVASCRIPT,
            env=environment(endpoint_url, home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def send(self, operation: str, members: dict[str, Any]) -> Answer:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"operation": operation, "input": members}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the process of client {self._name!r} has ended"
        answer = json.loads(line)
        error = answer.get("error")
        return Answer(answer.get("output"), error and (error["name"], error["message"]), answer["attempts"])

    def close(self) -> None:
        """Close the input of the process, which ends it."""
        try:
            self._process.communicate(timeout=TIMEOUT)
        finally:
            self._process.kill()
