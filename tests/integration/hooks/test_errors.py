"""The hook raises errors that are classified as transient, permanent or neither."""

from __future__ import annotations

import itertools
import json
import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError, CredentialRetrievalError

from airflow_provider_datazone import service_errors
from airflow_provider_datazone.exceptions import MalformedResponseError, NotConfiguredError
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.service_errors import is_permanent, is_transient
from airflow_provider_datazone.testing.backend.responses import DataZoneResponse
from tests.wrong import DOMAIN, Answer, make_hook, render, serve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Catalog


@pytest.mark.parametrize(
    "code", ["ExpiredTokenException", "UnrecognizedClientException", "ConflictException"]
)
def test_errors_left_to_airflow_retries_are_neither_permanent_nor_transient(
    hook: DataZoneHook, catalog: Catalog, code: str
):
    catalog.server.fail("GetMetadataGenerationRun", code)
    with pytest.raises(ClientError, match=code) as refused:
        hook.wait_for_metadata_generation_run("run1", domain_identifier=catalog.domain_identifier)
    assert not is_permanent(refused.value)
    assert not is_transient(refused.value)


@pytest.fixture
def renewed(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Define a connection with a credential process, and return a function that sets their expiration."""
    output = tmp_path / "credentials.json"

    def provide(expiration: str) -> None:
        keys = {"AccessKeyId": "AKIA", "SecretAccessKey": "secret", "Expiration": expiration}
        output.write_text(json.dumps({"Version": 1, **keys}), "utf-8")

    config = tmp_path / "config"
    config.write_text(f"[profile renewed]\ncredential_process = cat {output}\n", "utf-8")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    connection = json.loads(catalog.server.connection)
    connection |= {"login": None, "password": None}
    connection["extra"] |= {"profile_name": "renewed"}
    monkeypatch.setenv("AIRFLOW_CONN_RENEWED", json.dumps(connection))
    return provide


@pytest.mark.parametrize("is_built", [True, False], ids=["client built", "no client"])
def test_credentials_that_expired_again_are_rejected_credentials(
    catalog: Catalog, renewed: Callable[[str], None], is_built: bool
):
    """botocore raises a RuntimeError for them, also from inside a request."""
    hook = DataZoneHook("renewed")
    # Within ten minutes of the expiration, botocore renews them before each request.
    renewed((datetime.now(timezone.utc) + timedelta(minutes=5)).isoformat())
    if is_built:
        hook.get_asset(catalog.asset_identifier, domain_identifier=catalog.domain_identifier)
    renewed("2026-01-01T00:00:00Z")
    with pytest.raises(CredentialRetrievalError, match="still expired") as raised:
        hook.get_asset(catalog.asset_identifier, domain_identifier=catalog.domain_identifier)
    assert service_errors.is_rejected_credentials(raised.value)
    assert not is_permanent(raised.value)
    assert not is_transient(raised.value)


def test_session_looks_up_the_credentials_before_a_client_is_built(
    catalog: Catalog, renewed: Callable[[str], None], tmp_path: Path
):
    """A poller builds one client at a time, and a credential process may take long."""
    renewed((datetime.now(timezone.utc) + timedelta(hours=1)).isoformat())
    hook = DataZoneHook("renewed")
    hook.open_session()
    (tmp_path / "credentials.json").unlink()
    hook.get_asset(catalog.asset_identifier, domain_identifier=catalog.domain_identifier)


def test_modeled_exception_classes_of_the_client_can_be_caught(hook: DataZoneHook, catalog: Catalog):
    with pytest.raises(
        hook.conn.exceptions.ResourceNotFoundException, match="Requested prediction cannot be found in domain"
    ):
        hook.get_metadata_generation_run("unknownrun", domain_identifier=catalog.domain_identifier)


def test_malformed_response_raises_malformed_response_error(hook: DataZoneHook, catalog: Catalog):
    catalog.server.fail("GetMetadataGenerationRun", "malformed")
    with pytest.raises(MalformedResponseError, match="unknownrun"):
        hook.get_metadata_generation_run("unknownrun", domain_identifier=catalog.domain_identifier)


def test_signature_details_are_removed_from_the_error(hook: DataZoneHook, catalog: Catalog):
    catalog.server.fail(
        "GetMetadataGenerationRun",
        "UnrecognizedClientException",
        message="The request signature does not match.\n\nThe Canonical String for this request should have been\n"
        "x-amz-security-token:SECRET",
    )
    with pytest.raises(ClientError, match="does not match") as refused:
        hook.get_metadata_generation_run("run1", domain_identifier=catalog.domain_identifier)
    assert "SECRET" not in str(refused.value)
    assert "SECRET" not in str(refused.value.response)


@pytest.mark.parametrize("place", ["configuration", "environment"])
@pytest.mark.parametrize(
    "password", ["Sup3rSecret", "Sup3rSecret#1", "9#Sup3rSecret", "Sup3rSecret/1", "Sup3r%53ecret"]
)
def test_password_of_a_proxy_is_redacted(
    define_connection: Callable[..., None], monkeypatch: pytest.MonkeyPatch, place: str, password: str
):
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    config: dict[str, Any] = {"retries": {"total_max_attempts": 1}}
    url = f"http://127.0.0.1:{password}@127.0.0.1:9"
    if place == "environment":
        monkeypatch.setenv("http_proxy", url)
    else:
        monkeypatch.delenv("http_proxy", raising=False)
        config["proxies"] = {"http": url}
    define_connection(region_name="us-east-1", endpoint_url="http://127.0.0.1:9", domain_identifier="dzd-1")
    hook = DataZoneHook("mine", config=config)
    with pytest.raises((BotoCoreError, NotConfiguredError)) as lost:
        hook.get_metadata_generation_run("run1")
    passed, message = hook.test_connection()
    assert not passed
    for shown in (str(lost.value), str(vars(lost.value)), message):
        assert not re.search("Sup3r(S|%53)ecret", shown)


def set_get_response(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    """Make the local DataZone respond to Get with a value."""
    monkeypatch.setattr(
        DataZoneResponse,
        "get_metadata_generation_run",
        lambda self: (200, {}, value if isinstance(value, (str, bytes)) else json.dumps(value)),
    )


@pytest.mark.parametrize(
    "answer",
    [
        "null",
        "[]",
        "5",
        '"text"',
        "[" * 100_000,
        {"typeStats": 5},
        {"typeStats": ["FAILED"]},
        {"target": "asset1"},
        {"createdAt": "not a\n\x1b[31mtime"},
        {"createdAt": []},
    ],
    ids=lambda answer: json.dumps(answer)[:40],
)
def test_response_that_botocore_cannot_parse_is_malformed_and_transient(
    hook: DataZoneHook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, answer: Any
):
    good = {"domainId": catalog.domain_identifier, "id": "run1", "status": "FAILED"}
    set_get_response(monkeypatch, good | answer if isinstance(answer, dict) else answer)
    with pytest.raises(MalformedResponseError, match=r"run 'run1', domain 'dzd.*connection") as malformed:
        hook.get_metadata_generation_run("run1", domain_identifier=catalog.domain_identifier)
    assert is_transient(malformed.value)
    # The traceback does not contain the response body either.
    assert malformed.value.__suppress_context__
    assert str(malformed.value).isprintable()


def test_html_page_of_a_proxy_is_truncated_in_the_error(
    hook: DataZoneHook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    page = "<!DOCTYPE html>\n" + "<p>Forbidden" * 10_000
    monkeypatch.setattr(
        DataZoneResponse, "get_metadata_generation_run", lambda self: (403, {"status": 403}, page)
    )
    with pytest.raises(ClientError, match="Forbidden") as refused:
        hook.get_metadata_generation_run("run1", domain_identifier=catalog.domain_identifier)
    assert len(str(refused.value)) < 3000
    assert str(refused.value).isprintable()
    assert "(run 'run1', domain" in str(refused.value)


@pytest.mark.parametrize("tokens", [["a", "b"], [5], [["a"]]])
def test_repeated_or_invalid_next_token_ends_the_list_with_an_error(
    hook: DataZoneHook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tokens: list[Any]
):
    next_tokens = itertools.cycle(tokens)
    monkeypatch.setattr(
        DataZoneResponse,
        "list_metadata_generation_runs",
        lambda self: (200, {}, json.dumps({"items": [], "nextToken": next(next_tokens)})),
    )
    with pytest.raises(MalformedResponseError, match=r"same page|nextToken that is not a string"):
        list(hook.list_metadata_generation_runs(domain_identifier=catalog.domain_identifier))


def test_list_item_that_is_not_a_run_raises_an_error(
    hook: DataZoneHook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        DataZoneResponse, "list_metadata_generation_runs", lambda self: (200, {}, '{"items": [null]}')
    )
    with pytest.raises(MalformedResponseError, match="of asset 'asset1', domain"):
        list(
            hook.list_metadata_generation_runs(
                asset_identifier="asset1", domain_identifier=catalog.domain_identifier
            )
        )


@pytest.mark.parametrize("identifier", ["\ud800", "run\udfff"])
def test_unencodable_identifier_raises_an_error_without_a_request(
    hook: DataZoneHook, catalog: Catalog, identifier: str
):
    before = len(catalog.server.requests)
    with pytest.raises(NotConfiguredError, match=r"cannot be sent.*\(run '") as error:
        hook.get_metadata_generation_run(identifier, domain_identifier=catalog.domain_identifier)
    assert repr(identifier) in str(error.value)
    assert is_permanent(error.value)
    assert not is_transient(error.value)
    assert catalog.server.requests[before:] == []


@pytest.mark.parametrize("revision", [None, 5, ["2"]])
@pytest.mark.parametrize("answer", ["accept_predictions", "reject_predictions"])
def test_response_without_a_revision_is_malformed(
    hook: DataZoneHook, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, answer: str, revision: Any
):
    body = json.dumps({"revision": revision, "assetRevision": revision})
    monkeypatch.setattr(DataZoneResponse, answer, lambda self: (200, {}, body))
    with pytest.raises(MalformedResponseError, match=r"without \w*evision \(asset 'asset1', domain"):
        getattr(hook, answer)("asset1", domain_identifier=catalog.domain_identifier, rule="ALL")


CLASSIFIERS = {
    name: getattr(service_errors, f"is_{name}")
    for name in ("throttling", "transient", "permanent", "not_found", "conflict", "rejected_credentials")
}
PAGE = b"<html><body>Sorry</body></html>"
REJECTED = [
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
]


@pytest.mark.parametrize(
    ("status", "code", "kinds"),
    [
        (429, "ThrottlingException", {"throttling", "transient"}),
        (400, "Throttling", {"throttling", "transient"}),
        (400, "TooManyRequestsException", {"throttling", "transient"}),
        # Responses of a proxy in front of DataZone, which sends an HTML page for each status.
        (429, None, {"throttling", "transient"}),
        (428, None, set()),
        (500, None, {"transient"}),
        (503, None, {"transient"}),
        (499, None, set()),
        (500, "InternalServerException", {"transient"}),
        (400, "InternalServerException", {"transient"}),
        (400, "RequestTimeout", {"transient"}),
        (400, "ValidationException", {"permanent"}),
        (401, "UnauthorizedException", {"permanent"}),
        (403, "AccessDeniedException", {"permanent"}),
        (404, "ResourceNotFoundException", {"permanent", "not_found"}),
        (409, "ConflictException", {"conflict"}),
        # The quota may be raised, and a monthly quota is reset.
        (402, "ServiceQuotaExceededException", set()),
        (400, "SomethingNewException", set()),
        *((403, code, {"rejected_credentials"}) for code in REJECTED),
    ],
)
def test_error_is_classified_by_its_code_and_status(status: int, code: str | None, kinds: set[str]):
    with serve() as service:
        service.answer = lambda *request: (
            Answer(PAGE, status, {"Content-Type": "text/html"})
            if code is None
            else render({"message": "no"}, status, **{"x-amzn-ErrorType": code})
        )
        with pytest.raises(ClientError) as refused:
            make_hook().get_metadata_generation_run("run1", domain_identifier=DOMAIN)
    assert {name for name, matches in CLASSIFIERS.items() if matches(refused.value)} == kinds


IAM_DENIAL = (
    "User: arn:aws:iam::1:user/airflow is not authorized to perform: datazone:GetAsset on resource: x "
)


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        (
            "because no identity-based policy allows the datazone:GetAsset action",
            "IAM denies this: the IAM policy of the connection's principal must allow datazone:GetAsset",
        ),
        (
            "because no resource-based policy allows the datazone:GetAsset action",
            "IAM denies this: the resource-based policy has to allow datazone:GetAsset, too.",
        ),
        (
            "because no permissions boundary allows the datazone:GetAsset action",
            "IAM denies this: the permissions boundary has to allow datazone:GetAsset, too.",
        ),
        (
            "with an explicit deny in a service control policy",
            "IAM denies this: the service control policy denies datazone:GetAsset explicitly, whatever other",
        ),
        (
            "with an explicit deny in an identity-based policy: arn:aws:iam::1:policy/x",
            "IAM denies this: the identity-based policy denies datazone:GetAsset explicitly, whatever other",
        ),
    ],
    ids=["identity", "resource", "boundary", "denied by SCP", "denied by identity"],
)
def test_advice_names_the_policy_that_denies_a_request(
    hook: DataZoneHook, catalog: Catalog, reason: str, advice: str
):
    catalog.server.fail("GetAsset", "AccessDeniedException", message=IAM_DENIAL + reason)
    with pytest.raises(ClientError) as denied:
        hook.get_asset(catalog.asset_identifier, domain_identifier=catalog.domain_identifier)
    assert advice in str(denied.value)
