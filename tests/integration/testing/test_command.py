"""The local DataZone from the command line."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
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
    """Read what a server prints; the instruction to end all failures is the last."""
    assert process.stdout is not None
    lines = []
    while not lines or "/recover" not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], (process.poll(), lines)
    return "".join(lines)


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> None:
    process.send_signal(number)
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


class TestCommand:
    @pytest.mark.parametrize(("number", "seed"), [(signal.SIGINT, []), (signal.SIGTERM, ["--no-seed"])])
    def test_it_serves_until_it_is_interrupted(self, number: signal.Signals, seed: list[str]) -> None:
        process = serve("--port", "0", *seed)
        instructions = read_instructions(process)
        connection = printed_connection(instructions)
        assert instructions.startswith(
            f"Amazon DataZone (local) at {connection['extra']['endpoint_url']}. Press Ctrl-C to stop it.\n"
        )
        domains = client_of(connection).list_domains()["items"]
        assert len(domains) == (0 if seed else 1)
        end(process, number)

    def test_the_connection_is_complete_and_the_assets_are_in_its_project(self) -> None:
        process = serve("--port", "0")
        instructions = read_instructions(process)
        connection = printed_connection(instructions)
        domain = connection["extra"]["domain_identifier"]
        project = connection["extra"]["owning_project_identifier"]
        assert f"\nDomain:  {domain}\nProject: {project}\nAssets:\n" in instructions
        found = client_of(connection).search(
            domainIdentifier=domain, owningProjectIdentifier=project, searchScope="ASSET"
        )
        assets = [item["assetItem"] for item in found["items"]]
        printed = re.findall(r"^  (\w+)  (\w+)$", instructions, re.MULTILINE)
        assert sorted(printed) == sorted((asset["identifier"], asset["name"]) for asset in assets)
        assert len(printed) == 5
        end(process)

    def test_identifiers_are_the_same_every_time_and_those_of_runs_are_not(self) -> None:
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
            end(process)
        (first, first_run), (second, second_run) = servers
        assert first == second
        assert first_run != second_run

    def test_the_host_and_the_port_are_those_that_are_asked_for(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        process = serve("--host", "0.0.0.0", "--port", str(port))
        connection = printed_connection(read_instructions(process))
        assert connection["extra"]["endpoint_url"] == f"http://127.0.0.1:{port}"
        assert len(client_of(connection).list_domains()["items"]) == 1
        end(process)

    def test_a_proxy_and_another_endpoint_do_not_keep_it_from_starting(self) -> None:
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
        end(process)

    @pytest.mark.parametrize("seed", ["--seed", "--no-seed"])
    def test_printed_commands_set_outcomes_and_failures(self, seed: str) -> None:
        process = serve("--port", "0", seed)
        instructions = read_instructions(process)
        set_outcome, fail, recover = re.findall(r"^curl .*$", instructions, re.MULTILINE)
        connection = printed_connection(instructions)
        extra = connection["extra"]
        client = client_of(connection)
        if seed == "--seed":
            domain, project = extra["domain_identifier"], extra["owning_project_identifier"]
            asset = re.findall(r"^  (\w+)  orders$", instructions, re.MULTILINE)[0]
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
        end(process)

    @pytest.mark.parametrize("seed", ["--seed", "--no-seed"])
    def test_printed_command_line_of_aws_is_one_that_aws_takes(self, seed: str) -> None:
        process = serve("--port", "0", seed)
        instructions = read_instructions(process)
        (command,) = re.findall(r"^AWS_ACCESS_KEY_ID=.* (aws datazone .*)$", instructions, re.MULTILINE)
        end(process)
        _, service, operation, *arguments = shlex.split(command)
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        endpoint_url = printed_connection(instructions)["extra"]["endpoint_url"]
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

    def test_a_port_in_use_is_one_clear_line(self, server: DataZoneServer) -> None:
        port = server.endpoint_url.rsplit(":", 1)[1]
        process = serve("--port", port)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (1, "")
        assert len(err.splitlines()) == 1
        assert f"Cannot listen on 127.0.0.1:{port}" in err
        assert "in use" in err

    def test_without_motos_server_the_extra_to_install_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "flask_cors.py").write_text("raise ModuleNotFoundError('no', name='flask_cors')")
        done = subprocess.run(
            [sys.executable, "-c", "import airflow_provider_datazone.testing"],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        last = done.stderr.splitlines()[-1]
        assert "install airflow-provider-amazon-datazone[testing]" in last

    def test_it_needs_nothing_of_airflow(self) -> None:
        code = (
            "import sys; sys.modules['airflow'] = None; import airflow_provider_datazone.testing;"
            "name = 'airflow_provider_datazone.';"
            "print([m for m in sys.modules if m.startswith(name) and not m.startswith(name + 'testing')])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
