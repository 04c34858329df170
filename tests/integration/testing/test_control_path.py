"""Another process uses the controls of the local DataZone over HTTP."""

from __future__ import annotations

import json

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from airflow_provider_datazone.testing import DataZoneServer
from tests.integration.testing.clients import post, signed_client


class TestControlPath:
    @pytest.fixture
    def url(self, server: DataZoneServer) -> str:
        return f"{server.endpoint_url}/moto-api/datazone"

    def test_response_contains_the_control_with_all_its_arguments(self, url: str) -> None:
        body = {"operation": "GetMetadataGenerationRun", "error": "hang", "seconds": 1, "times": None}
        assert post(f"{url}/fail", json.dumps(body).encode()) == (
            200,
            {
                "fail": body
                | {"message": None, "after": False, "asset_identifier": None, "access_key_id": None}
            },
        )
        assert post(f"{url}/recover", b"") == (200, {"recover": {}})

    def test_limit_throttles_requests(self, server: DataZoneServer, url: str) -> None:
        body = b'{"operation": "ListDomains", "per_second": 0.01, "burst": 1}'
        assert post(f"{url}/limit", body)[0] == 200
        client = server.client(config=Config(retries={"total_max_attempts": 1}))
        client.list_domains()
        with pytest.raises(ClientError, match="ThrottlingException"):
            client.list_domains()

    def test_set_run_status_changes_the_status(self, server: DataZoneServer, url: str) -> None:
        domain, project, asset = server.create_asset()
        client = server.client()
        run = client.start_metadata_generation_run(
            domainIdentifier=domain,
            owningProjectIdentifier=project,
            target={"type": "ASSET", "identifier": asset},
            types=["BUSINESS_NAMES"],
        )["id"]
        body = json.dumps({"run_identifier": run, "status": "FAILED"}).encode()
        assert post(f"{url}/set_run_status", body)[0] == 200
        found = client.get_metadata_generation_run(domainIdentifier=domain, identifier=run)
        assert found["status"] == "FAILED"

    def test_path_without_a_control_returns_json(self, url: str) -> None:
        status, response = post(url, b"{}")
        assert status == 404
        assert response["message"].startswith("Unknown control ")

    @pytest.mark.parametrize(
        ("control", "body", "message"),
        [
            ("fail", b"{", "The body must be a JSON object: "),
            ("fail", b"\xff", "The body must be a JSON object: "),
            ("fail", b"[" * 100_000, "The body must be a JSON object: "),
            ("fail", b"[]", "The body must be a JSON object, got []"),
            ("fail", b'{"error": "drop"}', "operation is required"),
            ("fail", b'{"operation": "*", "error": "lost"}', "Unknown error 'lost': use one of "),
            (
                "fail",
                b'{"operation": "*", "error": "drop", "time": 2}',
                "Unknown argument 'time': fail takes operation, error, times, ",
            ),
            ("recover", b'{"all": true}', "Unknown argument 'all': recover takes no arguments"),
            ("fail", b'{"operation": 1}', "operation must be a string, got 1"),
            ("fail", b'{"times": "2"}', 'times must be an integer up to 1,000,000 or null, got "2"'),
            ("fail", b'{"times": true}', "times must be an integer up to 1,000,000 or null, got true"),
            ("fail", b'{"seconds": NaN}', "seconds must be a number up to 1,000,000 or null, got NaN"),
            ("fail", b'{"seconds": 1e999}', "seconds must be a number up to 1,000,000 or null, got Infinity"),
            (
                "set_run_outcome",
                b'{"times": 1000001}',
                "times must be an integer up to 1,000,000 or null, got",
            ),
            (
                "limit",
                b'{"operation": "GetDomain", "per_second": 1e300}',
                "per_second must be a number up to",
            ),
            ("fail", b'{"after": 1}', "after must be true or false, got 1"),
            (
                "set_run_outcome",
                b'{"statuses": {"BUSINESS_NAMES": 1}}',
                'statuses must be a string or an object with strings or null, got {"BUSINESS_NAMES": 1}',
            ),
            ("set_run_outcome", b'{"statuses": "LOST"}', "Unknown final status 'LOST': use one of "),
            ("set_run_status", b'{"run_identifier": "x", "status": null}', "There is no run 'x'"),
        ],
    )
    def test_invalid_arguments_return_an_error_message(
        self, url: str, control: str, body: bytes, message: str
    ) -> None:
        status, response = post(f"{url}/{control}", body)
        assert (status, list(response)) == (400, ["message"])
        assert response["message"].startswith(message)

    def test_unknown_control_or_method_returns_an_error_message(self, url: str) -> None:
        controls = (
            "fail, limit, recover, require_credentials, require_permissions, set_run_outcome, set_run_status"
        )
        for name in ("stop", "endpoint_url", "__init__", ""):
            message = f"Unknown control {name!r}: use one of {controls}"
            assert post(f"{url}/{name}", b"{}") == (404, {"message": message})
        message = "Use POST for recover, got GET"
        assert post(f"{url}/recover", None, "GET") == (405, {"message": message})

    def test_credentials_and_permissions_can_be_required(self, server: DataZoneServer, url: str) -> None:
        keys = {"access_key_id": "other", "secret_access_key": "secret"}
        shown = {"require_credentials": {"access_key_id": "other"}}
        assert post(f"{url}/require_credentials", json.dumps(keys).encode()) == (200, shown)
        assert post(f"{url}/require_permissions", b"") == (200, {"require_permissions": {}})
        with pytest.raises(ClientError, match="InvalidSignatureException"):
            signed_client(server, "other", "wrong").list_domains()
        iam = signed_client(server, service="iam")
        iam.create_user(UserName="sam")
        key = iam.create_access_key(UserName="sam")["AccessKey"]
        secret = key["SecretAccessKey"]
        server.require_credentials(key["AccessKeyId"], secret)
        with pytest.raises(ClientError, match="user/sam is not authorized to perform: datazone:ListDomains"):
            signed_client(server, key["AccessKeyId"], secret).list_domains()

    def test_controls_work_during_failures_and_are_not_recorded(
        self, server: DataZoneServer, url: str
    ) -> None:
        server.require_credentials("other", "secret")
        server.fail("*", "drop", times=None)
        assert post(f"{url}/recover", b"{}")[0] == 200
        assert server.requests == []
