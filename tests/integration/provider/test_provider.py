"""Airflow's command line, provider manager and API server find and use the provider."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import EntryPoint, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import airflow
import jsonschema
import pytest
from airflow.models.connection import Connection
from airflow.providers_manager import ProvidersManager
from packaging.utils import canonicalize_name
from packaging.version import Version

import airflow_provider_datazone
from airflow_provider_datazone.get_provider_info import UI_FIELD_BEHAVIOUR, get_provider_info
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from tests.conftest import REPOSITORY, make_catalog, run_airflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_datazone.testing import DataZoneServer
    from tests.conftest import Catalog

DISTRIBUTION = "airflow-provider-amazon-datazone"
CONNECTION_TYPE = "awsdatazone"
HOOK_CLASS = "airflow_provider_datazone.hooks.datazone.DataZoneHook"
FORM_FIELDS = {
    "domain_identifier",
    "owning_project_identifier",
    "region_name",
    "role_arn",
    "endpoint_url",
}
PROVIDER_NAMES = (CONNECTION_TYPE, "airflow_provider_datazone", DISTRIBUTION)

airflow_version = Version(version("apache-airflow"))
# Before Airflow 3.2 (API server: 3.1), connection forms of providers require flask_appbuilder.
has_flask_appbuilder = find_spec("flask_appbuilder") is not None
has_form = has_flask_appbuilder or airflow_version >= Version("3.2")
api_server_has_form = has_flask_appbuilder or airflow_version >= Version("3.1")
on_airflow_3 = pytest.mark.skipif(
    airflow_version < Version("3"), reason="Airflow 2 has a different API server"
)

# No message may contain these values.
SECRETS = {"login": "AKIASECRETKEYID", "password": "secret-access-key", "token": "secret-session-token"}
NO_RETRIES = {"retries": {"total_max_attempts": 1}}
# The response of AWS to an invalid signature.
REJECTED_SIGNATURE = (
    "The request signature we calculated does not match the signature you provided.\n\n"
    f"The Canonical String for this request should have been\n'x-amz-security-token:{SECRETS['token']}'"
)


def provider_warnings(output: str) -> list[str]:
    """Return the warnings and errors about this provider: log lines at WARNING or above, and Python warnings."""
    # The paths of the checkout and its environment can contain the name of the distribution.
    output = output.replace(sys.prefix, "").replace(str(REPOSITORY), "")
    severe = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|\[(warning|error|critical) *\]|Warning\b|Traceback")
    return [
        line
        for line in output.splitlines()
        if severe.search(line) and any(name in line for name in PROVIDER_NAMES)
    ]


def list_providers(python: str, *arguments: str) -> Any:
    """Run `airflow providers` with `--verbose`; without it, the command reports no errors."""
    completed = run_airflow(
        "providers", *arguments, "--verbose", "--output", "json", python=python, PYTHONWARNINGS="default"
    )
    assert completed.returncode == 0, completed.stderr
    assert provider_warnings(completed.stdout + completed.stderr) == []
    return json.loads(next(line for line in completed.stdout.splitlines() if line.startswith(("[{", "[]"))))


def read_schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((Path(airflow.__file__).parent / name).read_text())
    return schema


def provider_entry_point() -> EntryPoint:
    (found,) = (e for e in entry_points(group="apache_airflow_provider") if "datazone" in e.value)
    return found


# ------------------------------------------------------------ command line


def test_list_shows_the_provider(python: str) -> None:
    (provider,) = (p for p in list_providers(python, "list") if p["package_name"] == DISTRIBUTION)
    assert provider["version"] == airflow_provider_datazone.__version__


def test_get_shows_the_provider_in_full(python: str) -> None:
    (shown,) = list_providers(python, "get", DISTRIBUTION, "--full")
    for key, value in get_provider_info().items():
        if key != "description":  # Airflow removes the markup.
            assert shown[key] == value
    assert "Amazon DataZone" in shown["description"]


def test_hooks_shows_the_connection_type(python: str) -> None:
    (hook,) = (h for h in list_providers(python, "hooks") if h["connection_type"] == CONNECTION_TYPE)
    assert hook == {
        "connection_type": CONNECTION_TYPE,
        "class": HOOK_CLASS,
        "conn_id_attribute_name": "aws_conn_id",
        "package_name": DISTRIBUTION,
        "hook_name": "Amazon DataZone",
    }


def test_triggers_shows_the_trigger_module(python: str) -> None:
    (row,) = (r for r in list_providers(python, "triggers") if r["package_name"] == DISTRIBUTION)
    assert (row["class"], row["integration_name"]) == (
        "airflow_provider_datazone.triggers.datazone",
        "Amazon DataZone",
    )


def test_links_shows_the_domain_link(python: str) -> None:
    links = {row["extra_link_class_name"] for row in list_providers(python, "links")}
    assert links.issuperset(get_provider_info()["extra-links"])


def test_configs_shows_the_options(python: str) -> None:
    configs = dict(row["provider_config"] for row in list_providers(python, "configs"))
    assert configs[DISTRIBUTION] == get_provider_info()["config"]


# ----------------------------------------------------------- provider info


def test_package_name_is_the_canonical_name_of_the_distribution() -> None:
    entry_point = provider_entry_point()
    assert entry_point.value == "airflow_provider_datazone.get_provider_info:get_provider_info"
    assert entry_point.dist is not None
    assert entry_point.load()()["package-name"] == canonicalize_name(entry_point.dist.name) == DISTRIBUTION


def test_provider_info_follows_the_schema() -> None:
    info = get_provider_info()
    jsonschema.Draft7Validator(read_schema("provider_info.schema.json")).validate(info)
    # The schema of provider.yaml is stricter for some keys, such as the fields of a connection.
    source = read_schema("provider.yaml.schema.json")
    known = {key: source["properties"][key] for key in info if key in source["properties"]}
    jsonschema.Draft7Validator({**source, "properties": known, "required": []}).validate(
        {key: info[key] for key in known}
    )


def test_provider_info_has_no_unknown_keys() -> None:
    if airflow_version < Version("3"):
        pytest.skip("Airflow 2 has fewer keys and ignores the others")
    assert set(get_provider_info()) <= set(read_schema("provider_info.schema.json")["properties"])


def test_field_behaviour_follows_the_schema() -> None:
    schema = read_schema("customized_form_field_behaviours.schema.json")
    behaviour = DataZoneHook.get_ui_field_behaviour()
    jsonschema.Draft7Validator(schema).validate(behaviour)
    (connection_type,) = get_provider_info()["connection-types"]
    declared = connection_type["ui-field-behaviour"]
    assert behaviour == {key.replace("-", "_"): value for key, value in declared.items()}
    assert set(declared["placeholders"]) == {"login", "password"}


def test_classes_in_provider_info_can_be_imported() -> None:
    paths = set(re.findall(r"'(airflow_provider_datazone\.[\w.]+)'", str(get_provider_info())))
    assert HOOK_CLASS in paths
    for path in paths:
        assert pkgutil.resolve_name(path) is not None


@pytest.mark.parametrize("kind", ["hooks", "operators", "sensors", "triggers"])
def test_provider_info_has_the_module_of_each_kind(kind: str) -> None:
    named = {module for group in get_provider_info().get(kind, []) for module in group["python-modules"]}
    folder = Path(airflow_provider_datazone.__file__).parent / kind
    # The other modules are internal.
    files = (file.stem for file in folder.glob("datazone.py"))
    assert named == {f"airflow_provider_datazone.{kind}.{name}" for name in files}


def test_provider_info_imports_no_other_modules() -> None:
    code = (
        "import __future__, sys, typing; before = set(sys.modules)\n"
        "import airflow_provider_datazone.get_provider_info\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.split() == [
        "airflow_provider_datazone",
        "airflow_provider_datazone.get_provider_info",
    ]


# -------------------------------------------------------- provider manager


def test_provider_manager_has_a_testable_hook() -> None:
    hook = ProvidersManager().hooks[CONNECTION_TYPE]
    assert hook is not None
    assert (hook.hook_class_name, hook.package_name, hook.hook_name, hook.connection_testable) == (
        HOOK_CLASS,
        DISTRIBUTION,
        "Amazon DataZone",
        True,
    )


@pytest.mark.skipif(not has_form, reason="needs flask_appbuilder")
def test_provider_manager_has_the_connection_form() -> None:
    manager = ProvidersManager()
    fields = {
        f.field_name for f in manager.connection_form_widgets.values() if f.package_name == DISTRIBUTION
    }
    assert fields == FORM_FIELDS
    behaviour = manager.field_behaviours[CONNECTION_TYPE]
    assert behaviour["hidden_fields"] == UI_FIELD_BEHAVIOUR["hidden-fields"]
    assert behaviour["relabeling"] == UI_FIELD_BEHAVIOUR["relabeling"]


def test_connection_returns_the_hook(catalog: Catalog) -> None:
    hook = Connection(conn_id="datazone_default", conn_type=CONNECTION_TYPE).get_hook()
    assert type(hook) is DataZoneHook
    assert hook.aws_conn_id == "datazone_default"
    run = hook.get_metadata_generation_run(catalog.start_run(), domain_identifier=catalog.domain_identifier)
    assert run.asset_id == catalog.asset_identifier


# -------------------------------------------------------- connection test


def connection_body(endpoint_url: str, **extra: Any) -> dict[str, Any]:
    """Return a connection as sent by the UI, where unset fields are empty strings."""
    defaults = dict.fromkeys(FORM_FIELDS, "") | {
        "region_name": "us-east-1",
        "endpoint_url": endpoint_url,
        "aws_session_token": SECRETS["token"],
        "config_kwargs": NO_RETRIES,
    }
    return {
        "connection_id": "tested",
        "conn_type": CONNECTION_TYPE,
        "login": SECRETS["login"],
        "password": SECRETS["password"],
        "extra": json.dumps(defaults | extra),
    }


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def connection_test(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[bool, str]]:
    def test(endpoint_url: str, **extra: Any) -> tuple[bool, str]:
        body = connection_body(endpoint_url, **extra)
        connection = Connection(conn_id=body.pop("connection_id"), **body)
        # Like the UI, set the connection in the environment, where the hook reads it by name.
        monkeypatch.setenv("AIRFLOW_CONN_TESTED", connection.as_json())
        passed, message = connection.test_connection()
        assert not any(secret in message for secret in SECRETS.values())
        assert "\n" not in message
        return passed, message

    return test


@pytest.fixture
def rejecting_sts() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = (
                "<ErrorResponse><Error><Type>Sender</Type><Code>SignatureDoesNotMatch</Code>"
                f"<Message>{REJECTED_SIGNATURE}</Message></Error></ErrorResponse>"
            ).encode()
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_connection_test_with_a_domain_reads_the_domain(
    connection_test: Callable[..., tuple[bool, str]], catalog: Catalog
) -> None:
    domain = catalog.domain_identifier
    passed, message = connection_test(catalog.server.endpoint_url, domain_identifier=domain)
    assert passed, message
    assert domain in message
    assert "AVAILABLE" in message
    assert catalog.server.request_counts["GetDomain"] == 1


def test_connection_test_with_an_unknown_domain_fails_with_the_error_of_the_service(
    connection_test: Callable[..., tuple[bool, str]], datazone: DataZoneServer
) -> None:
    passed, message = connection_test(datazone.endpoint_url, domain_identifier="dzd-nosuchdomain")
    assert not passed
    assert "ResourceNotFoundException" in message
    assert "Check the domain 'dzd-nosuchdomain' and the AWS Region 'us-east-1'." in message
    # Airflow tests a connection with a temporary id, which would only confuse a reader.
    assert "tested" not in message.lower()


def test_connection_test_without_permission_fails_with_the_error_of_the_service(
    connection_test: Callable[..., tuple[bool, str]], catalog: Catalog
) -> None:
    catalog.server.fail("GetDomain", "AccessDeniedException", message="not for you")
    domain = catalog.domain_identifier
    passed, message = connection_test(catalog.server.endpoint_url, domain_identifier=domain)
    assert not passed
    assert "AccessDeniedException" in message
    assert "not for you. Check the domain" in message
    assert "must allow datazone:GetDomain" in message


def test_connection_test_with_an_unreachable_endpoint_fails(
    connection_test: Callable[..., tuple[bool, str]],
) -> None:
    endpoint_url = closed_port()
    passed, message = connection_test(endpoint_url, domain_identifier="dzd-any")
    assert not passed
    assert f'Could not connect to the endpoint URL: "{endpoint_url}' in message
    assert message.endswith("Check the AWS Region and the endpoint URL.")


def test_connection_test_without_a_region_fails_and_suggests_a_fix(
    connection_test: Callable[..., tuple[bool, str]], datazone: DataZoneServer
) -> None:
    passed, message = connection_test(datazone.endpoint_url, domain_identifier="dzd-any", region_name="")
    assert not passed
    assert message.endswith("Set the AWS Region, 'region_name' in the extra.")


def test_connection_test_without_a_domain_calls_sts(
    connection_test: Callable[..., tuple[bool, str]], datazone: DataZoneServer
) -> None:
    sts = {"sts": {"endpoint_url": datazone.endpoint_url}}
    passed, message = connection_test(datazone.endpoint_url, service_config=sts)
    assert passed, message
    assert "Account='123456789012'" in message
    assert datazone.request_counts.total() == 0


def test_invalid_signature_error_does_not_contain_secrets(
    connection_test: Callable[..., tuple[bool, str]], catalog: Catalog
) -> None:
    catalog.server.fail("GetDomain", "UnrecognizedClientException", message=REJECTED_SIGNATURE)
    domain = catalog.domain_identifier
    passed, message = connection_test(catalog.server.endpoint_url, domain_identifier=domain)
    assert not passed
    assert "does not match the signature" in message
    assert message.endswith("Check the AWS Access Key ID and the AWS Secret Access Key.")


def test_invalid_signature_error_of_sts_does_not_contain_secrets(
    connection_test: Callable[..., tuple[bool, str]], rejecting_sts: str
) -> None:
    passed, message = connection_test("", service_config={"sts": {"endpoint_url": rejecting_sts}})
    assert not passed
    assert "does not match the signature" in message


# -------------------------------------------------------------- API server

API_SERVER_SCRIPT = """
import json, sys
from airflow.api_fastapi.app import create_app
from fastapi.testclient import TestClient

with TestClient(create_app()) as client:
    token = client.get("/auth/token").json()["access_token"]
    for method, path, body in json.loads(sys.argv[1]):
        response = client.request(method, path, json=body, headers={"Authorization": f"Bearer {token}"})
        print("RESPONSE", json.dumps([response.status_code, response.json()]))
"""


def request_api_server(*requests: tuple[str, str, Any]) -> list[Any]:
    """Send requests to Airflow's API server as an administrator, in a new process."""
    completed = subprocess.run(
        [sys.executable, "-c", API_SERVER_SCRIPT, json.dumps(requests)],
        env=os.environ
        | {
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert completed.returncode == 0, completed.stderr
    assert provider_warnings(completed.stdout + completed.stderr) == []
    responses = [
        json.loads(line.removeprefix("RESPONSE "))
        for line in completed.stdout.splitlines()
        if line.startswith("RESPONSE ")
    ]
    assert [status for status, _ in responses] == [200] * len(requests), responses
    return [body for _, body in responses]


class ApiServerResponses(NamedTuple):
    """What the API server returns: the forms of all connections, and tests of a right and a wrong connection."""

    domain: str
    forms: Any
    passed: Any
    failed: Any


@pytest.fixture(scope="module")
def api_server_responses(airflow_database: None, datazone_server: DataZoneServer) -> ApiServerResponses:
    """Send all requests to one API server, which takes seconds to start."""
    datazone_server.reset()
    domain = make_catalog(datazone_server).domain_identifier
    tests = (
        connection_body(datazone_server.endpoint_url, domain_identifier=identifier)
        for identifier in (domain, "dzd-nosuchdomain")
    )
    return ApiServerResponses(
        domain,
        *request_api_server(
            ("GET", "/ui/connections/hook_meta", None),
            *(("POST", "/api/v2/connections/test", body) for body in tests),
        ),
    )


@on_airflow_3
def test_api_server_returns_the_connection_form(api_server_responses: ApiServerResponses) -> None:
    by_type = {form["connection_type"]: form for form in api_server_responses.forms}
    form = by_type[CONNECTION_TYPE]
    assert (form["hook_class_name"], form["hook_name"]) == (HOOK_CLASS, "Amazon DataZone")
    if not api_server_has_form:
        assert form["standard_fields"] is form["extra_fields"] is by_type["aws"]["standard_fields"] is None
        return
    assert form["extra_fields"].keys() == FORM_FIELDS
    for field in form["extra_fields"].values():
        assert field["value"] is None
        assert field["description"]
        assert field["schema"]["type"] == ["string", "null"]
        assert field["schema"]["title"]
    standard = form["standard_fields"]
    assert standard["login"]["title"] == "AWS Access Key ID"
    assert standard["password"]["title"] == "AWS Secret Access Key"
    assert all(standard[name]["hidden"] for name in ("host", "port", "url_schema"))


@on_airflow_3
def test_api_server_tests_a_connection(api_server_responses: ApiServerResponses) -> None:
    domain, _, passed, failed = api_server_responses
    assert passed["status"], passed
    assert domain in passed["message"]
    assert not failed["status"]
    assert "ResourceNotFoundException" in failed["message"]


def test_command_line_tests_a_connection(catalog: Catalog, airflow_database: None) -> None:
    body = connection_body(catalog.server.endpoint_url, domain_identifier=catalog.domain_identifier)
    connection = Connection(conn_id=body.pop("connection_id"), **body)
    completed = run_airflow(
        "connections",
        "test",
        "tested",
        AIRFLOW_CONN_TESTED=connection.as_json(),
        AIRFLOW__CORE__TEST_CONNECTION="Enabled",
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert "Connection success" in completed.stdout
    assert provider_warnings(completed.stdout + completed.stderr) == []
    assert not any(secret in completed.stdout + completed.stderr for secret in SECRETS.values())
