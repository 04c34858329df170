"""
Sends requests to DataZone with the AWS CLI.

The input and the output are those of ``drive.mjs``, but the AWS CLI does not report its attempts. Each request runs a
new instance of ``aws datazone`` in this process: a process for each request would take most of the time of the tests.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

from awscli.clidriver import create_clidriver  # type: ignore[import-not-found]
from botocore import xform_name

ERROR = re.compile(
    r"An error occurred \((?P<name>\w+)\) when calling the \w+ operation(?: \(reached max retries: \d+\))?: "
    r"(?P<message>.*)",
    re.DOTALL,
)


def send(operation: str, members: dict[str, Any]) -> dict[str, Any]:
    command = ["datazone", xform_name(operation, "-"), "--output", "json", "--no-paginate"]
    with redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as errors:
        exit_code = create_clidriver().main([*command, "--cli-input-json", json.dumps(members)])
    if exit_code == 0:
        return {"output": json.loads(output.getvalue() or "{}"), "attempts": None}
    error = ERROR.search(errors.getvalue())
    # Other errors are errors of the tests, such as an unknown parameter.
    name, message = (error["name"], error["message"].strip()) if error else ("", errors.getvalue())
    return {"error": {"name": name, "message": message}, "attempts": None}


for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(send(request["operation"], request["input"])), flush=True)
