"""The command line of the local DataZone."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.exceptions import (
    ClientError,
)
from moto.core.utils import get_service_model

from airflow_provider_datazone.testing import (
    DataZoneServer,
)
from tests.integration.testing.clients import post


def serve(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_datazone.testing", *arguments],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_instructions(process: subprocess.Popen[str]) -> str:
    """Read the instructions that a server prints, up to the command that ends all failures."""
    assert process.stdout is not None
    lines = []
    while not lines or not lines[-1].startswith("All controls"):
        lines.append(process.stdout.readline())
        assert lines[-1], (process.poll(), lines)
    return "".join(lines)


def stop(process: subprocess.Popen[str], signal_number: signal.Signals = signal.SIGINT) -> None:
    process.send_signal(signal_number)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


def printed_connection(instructions: str) -> dict[str, Any]:
    (line,) = re.findall(r"^export (.*)$", instructions, re.MULTILINE)
    (word,) = shlex.split(line)
    variable, _, connection = word.partition("=")
    assert variable == "AIRFLOW_CONN_DATAZONE_DEFAULT"
    return dict(json.loads(connection))


def client_of(connection: dict[str, Any]) -> Any:
    extra = connection["extra"]
    return boto3.client(
        "datazone",
        aws_access_key_id=connection["login"],
        aws_secret_access_key=connection["password"],
        region_name=extra["region_name"],
        endpoint_url=extra["endpoint_url"],
    )


def curl(command: str) -> tuple[int, dict[str, Any]]:
    program, url, option, body = shlex.split(command)
    assert (program, option) == ("curl", "-d")
    return post(url, body.encode())


@pytest.fixture(scope="module", params=["--seed", "--no-seed"])
def printed(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the instructions that a server prints with or without assets, while it runs."""
    process = serve("--port", "0", request.param)
    yield read_instructions(process)
    stop(process)


seeded = pytest.mark.parametrize("printed", ["--seed"], indirect=True)


class TestCommand:
    @pytest.mark.parametrize(
        ("signal_number", "seed"), [(signal.SIGINT, []), (signal.SIGTERM, ["--no-seed"])]
    )
    def test_command_serves_until_a_signal(self, signal_number: signal.Signals, seed: list[str]) -> None:
        process = serve("--port", "0", *seed)
        instructions = read_instructions(process)
        connection = printed_connection(instructions)
        assert instructions.startswith(
            f"Amazon DataZone (local) at {connection['extra']['endpoint_url']}. Press Ctrl-C to stop it.\n"
        )
        domains = client_of(connection).list_domains()["items"]
        assert len(domains) == (0 if seed else 1)
        stop(process, signal_number)

    @seeded
    def test_printed_connection_is_complete_and_its_project_owns_the_assets(self, printed: str) -> None:
        connection = printed_connection(printed)
        domain = connection["extra"]["domain_identifier"]
        project = connection["extra"]["owning_project_identifier"]
        assert f"\nDomain:  {domain}\nProject: {project}\nAssets:\n" in printed
        found = client_of(connection).search(
            domainIdentifier=domain, owningProjectIdentifier=project, searchScope="ASSET"
        )
        assets = [item["assetItem"] for item in found["items"]]
        lines = re.findall(r"^  (\w+)  (\w+)$", printed, re.MULTILINE)
        assert sorted(lines) == sorted((asset["identifier"], asset["name"]) for asset in assets)
        assert len(lines) == 5

    def test_identifiers_are_reproducible_except_those_of_runs(self) -> None:
        servers = []
        for _ in range(2):
            process = serve("--port", "0")
            instructions = read_instructions(process)
            extra = printed_connection(instructions)["extra"]
            asset = re.findall(r"^  (\w+)  orders$", instructions, re.MULTILINE)[0]
            run = client_of(printed_connection(instructions)).start_metadata_generation_run(
                domainIdentifier=extra["domain_identifier"],
                owningProjectIdentifier=extra["owning_project_identifier"],
                target={"type": "ASSET", "identifier": asset},
                types=["BUSINESS_NAMES"],
            )
            servers.append((instructions.replace(extra["endpoint_url"], ""), run["id"]))
            stop(process)
        (first, first_run), (second, second_run) = servers
        assert first == second
        assert first_run != second_run

    def test_command_listens_on_the_requested_host_and_port(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        process = serve("--host", "0.0.0.0", "--port", str(port))
        connection = printed_connection(read_instructions(process))
        assert connection["extra"]["endpoint_url"] == f"http://127.0.0.1:{port}"
        assert len(client_of(connection).list_domains()["items"]) == 1
        stop(process)

    def test_command_ignores_proxy_and_endpoint_variables(self) -> None:
        proxy = "http://127.0.0.1:9"
        process = serve(
            "--port",
            "0",
            HTTP_PROXY=proxy,
            http_proxy=proxy,
            NO_PROXY="",
            no_proxy="",
            AWS_ENDPOINT_URL=proxy,
        )
        assert "orders" in read_instructions(process)
        stop(process)

    def test_printed_commands_set_outcomes_and_failures(self, printed: str) -> None:
        set_outcome, fail, recover = re.findall(r"^curl .*$", printed, re.MULTILINE)
        connection = printed_connection(printed)
        extra = connection["extra"]
        client = client_of(connection)
        if "domain_identifier" in extra:
            domain, project = extra["domain_identifier"], extra["owning_project_identifier"]
            asset = re.findall(r"^  (\w+)  orders$", printed, re.MULTILINE)[0]
        else:
            domain = client.create_domain(
                name="mine", domainExecutionRole="arn:aws:iam::123456789012:role/r"
            )["id"]
            project = client.create_project(domainIdentifier=domain, name="mine")["id"]
            asset = client.create_asset(
                domainIdentifier=domain,
                owningProjectIdentifier=project,
                name="mine",
                typeIdentifier="amazon.datazone.GlueTableAssetType",
            )["id"]

        def start_run() -> str:
            run = client.start_metadata_generation_run(
                domainIdentifier=domain,
                owningProjectIdentifier=project,
                target={"type": "ASSET", "identifier": asset},
                types=["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
            )
            return str(run["id"])

        assert curl(set_outcome)[0] == 200
        run = start_run()
        statuses = [
            client.get_metadata_generation_run(domainIdentifier=domain, identifier=run)["status"]
            for _ in range(2)
        ]
        assert statuses[-1] == "PARTIALLY_SUCCEEDED"
        assert curl(fail)[0] == 200
        with pytest.raises(ClientError, match="AccessDeniedException"):
            start_run()
        assert curl(fail)[0] == 200
        assert curl(recover)[0] == 200
        start_run()

    def test_printed_aws_command_has_valid_options(self, printed: str) -> None:
        (command,) = re.findall(r"^AWS_ACCESS_KEY_ID=.* (aws datazone .*)$", printed, re.MULTILINE)
        _, service, operation, *arguments = shlex.split(command)
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        endpoint_url = printed_connection(printed)["extra"]["endpoint_url"]
        assert (options.pop("--region"), options.pop("--endpoint-url")) == ("us-east-1", endpoint_url)
        model = get_service_model(service)
        (shape,) = [
            model.operation_model(name).input_shape
            for name in model.operation_names
            if xform_name(name, "-") == operation
        ]
        given = {option.removeprefix("--") for option in options}
        assert given <= {xform_name(member, "-") for member in shape.members}
        assert given >= {xform_name(member, "-") for member in shape.required_members}

    def test_port_in_use_prints_a_one_line_error(self, server: DataZoneServer) -> None:
        port = server.endpoint_url.rsplit(":", 1)[1]
        process = serve("--port", port)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (1, "")
        assert len(err.splitlines()) == 1
        assert f"Cannot listen on 127.0.0.1:{port}" in err
        assert "in use" in err
