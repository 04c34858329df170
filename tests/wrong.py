"""Generators of invalid values and HTTP responses, and checks for every error and log line."""

from __future__ import annotations

import copy
import html
import json
import logging
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st

from airflow_provider_datazone.hooks import datazone as hook_module
from airflow_provider_datazone.hooks.datazone import DataZoneHook
from tests.conftest import Clock

# Scales the number of examples: above 1 for manual runs, below 1 for additional Airflow versions.
EXAMPLES = float(os.environ.get("DATAZONE_TEST_EXAMPLES", "1"))


def fuzz(max_examples: int) -> Callable[[Any], Any]:
    """
    Return settings that try the same examples in every run, or random ones if `EXAMPLES` is above 1.

    "The same" if the same modules are imported: Hypothesis also tries the constants that it finds in them.
    """
    return settings(
        max_examples=max(1, round(max_examples * EXAMPLES)),
        deadline=None,
        derandomize=EXAMPLES <= 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# ----------------------------------------------------------------------- values

FORGED = "\n[2026-01-01T00:00:00.000+0000] ERROR - FORGED \x1b[31mred\x1b[0m\r"
texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            " ",
            "0",
            "None",
            "{{ params.run }}",
            "../..",
            "a/b?c=d#e",
            "%0a%s%(name)s{0}",
            "\0",
            "\ud800",
            "\u2028FORGED",
            "\u202eFORGED",
            "FAILED",
            "monthly quota",
            FORGED,
        ]
    ),
    # Drawn by name, because hypothesis prints the drawn value.
    st.sampled_from(["long", "long and forged"]).map(
        {"long": "x" * 100_000, "long and forged": FORGED * 1000}.get
    ),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from([2**63, 10**400, 1e300]), texts
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


def _locations(value: Any) -> list[tuple[Any, Any]]:
    """Return every container in `value` with each of its keys or indexes."""
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    else:
        return []
    return [(value, key) for key, _ in inner] + [
        location for _, item in inner for location in _locations(item)
    ]


@st.composite
def spoiled(draw: Any, good: Any) -> Any:
    """Return a valid value with up to three members missing, null, replaced, added or repeated."""
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(0, 3))):
        locations = _locations(value)
        if not locations:
            break
        # Drawn by index: sampling from thousands of locations takes hypothesis longer than the tested code.
        container, key = locations[draw(st.integers(0, min(len(locations), 100) - 1))]
        spoil = draw(st.sampled_from(["drop", "null", "change", "add", "many"]))
        if spoil == "drop":
            del container[key]
        elif spoil == "null":
            container[key] = None
        elif spoil == "change":
            container[key] = draw(values)
        elif spoil == "many":
            # About 100 kB.
            container[key] = [container[key]] * (100_000 // (100 + len(json.dumps(container[key]))))
        elif isinstance(container, dict):
            container[draw(texts)] = draw(values)
        else:
            container.append(draw(values))
    return value


# -------------------------------------------------------------------- responses


@dataclass
class Answer:
    """An HTTP response."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Answer({self.body[:500]!r}, {self.status}, {self.headers})"


def render(value: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(json.dumps(value).encode(), status, headers)


CODES = [
    "ValidationException",
    "ResourceNotFoundException",
    "AccessDeniedException",
    "ConflictException",
    "ThrottlingException",
    "InternalServerException",
    "ServiceQuotaExceededException",
    "ExpiredTokenException",
    "InvalidSignatureException",
    "SomethingNewException",
]
content_types = st.sampled_from(
    ["application/json", "text/html", "application/xml", "text/plain; charset=utf-16", "nonsense", ""]
)
LONG_BODIES = {
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "page": f"<!DOCTYPE html><title>{FORGED}</title>{'<p>' * 30_000}".encode(),
    "number": b'{"id": ' + b"9" * 5000 + b"}",
}
bodies = st.one_of(
    values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=50),
    st.sampled_from(
        [
            b"",
            b"{",
            b"null",
            b"\xef\xbb\xbf{}",
            "\xe9".encode("latin-1"),
            "{}".encode("utf-16"),
            f"<html><body>{FORGED}</body></html>".encode(),
        ]
    ),
    st.sampled_from(sorted(LONG_BODIES)).map(LONG_BODIES.get),
)


@st.composite
def errors(draw: Any) -> Answer:
    """Return an error response, as DataZone or a proxy in front of it might send one."""
    body = draw(
        st.one_of(
            bodies,
            st.fixed_dictionaries(
                {},
                optional={
                    "message": st.one_of(texts, values),
                    "Message": st.one_of(texts, values),
                    "__type": st.one_of(st.sampled_from(CODES), texts, values),
                    "code": st.one_of(texts, values),
                },
            ).map(lambda error: json.dumps(error).encode()),
        )
    )
    headers = {"Content-Type": draw(content_types)}
    code = draw(st.sampled_from([None, *CODES, "\x1b[31mFORGED", "a:b#c"]))
    if code is not None:
        headers["x-amzn-ErrorType"] = code
    status = draw(
        st.sampled_from([301, 307, 400, 401, 402, 403, 404, 408, 409, 413, 429, 500, 502, 503, 504, 599])
    )
    return Answer(body, status, headers)


@st.composite
def nearly_valid(draw: Any, good: Any) -> Answer:
    """Return a successful response whose body is invalid in a few members."""
    value, status = draw(spoiled(good)), draw(st.sampled_from([200, 200, 200, 201, 202]))
    return render(value, status, **{"Content-Type": draw(content_types)})


def answers(good: Any) -> st.SearchStrategy[Answer]:
    """Return a strategy of responses: half of them nearly valid, the others errors or arbitrary bodies."""
    return st.one_of(nearly_valid(good), nearly_valid(good), errors(), bodies.map(Answer))


def make_run(identifier: str, status: str = "FAILED") -> dict[str, Any]:
    return {
        "domainId": DOMAIN,
        "id": identifier,
        "target": {"type": "ASSET", "identifier": "asset1", "revision": "2"},
        "status": status,
        "types": ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"],
        "createdAt": 1767323045.0,
        "createdBy": "someone",
        "owningProjectId": "project1",
        "typeStats": [
            {"type": "BUSINESS_DESCRIPTIONS", "status": "SUCCEEDED"},
            {"type": "BUSINESS_NAMES", "status": "FAILED", "errorMessage": f"no names{FORGED}"},
        ],
    }


class Service:
    """An HTTP endpoint whose responses come from the function in `answer`."""

    def __init__(self) -> None:
        self.answer: Callable[[str, str, bytes], Answer] = lambda method, path, body: Answer(b"{}")
        self.requests: list[tuple[str, str, bytes]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Buffer writes: otherwise, the second part of a response waits until the first is acknowledged.
            wbufsize = -1
            disable_nagle_algorithm = True

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = (self.command, self.path, body)
                service.requests.append(request)
                answer = service.answer(*request)
                self.send_response_only(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)
                self.wfile.flush()

            do_GET = do_POST = do_PUT = answer  # noqa: N815

            def log_message(self, *arguments: Any) -> None:
                """Do not log requests."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Service:
        self._thread.start()
        return self

    def __exit__(self, *arguments: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


CONNECTION = "wrong"
DOMAIN = "dzd-1"
ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SESSION_TOKEN = "IQoJb3JpZ2luX2VjEXAMPLETOKEN//////////wEaCXVz=="


def make_connection(endpoint_url: str, **extra: Any) -> str:
    return json.dumps(
        {
            "conn_type": "awsdatazone",
            "login": ACCESS_KEY,
            "password": SECRET_KEY,
            "extra": {
                "region_name": "us-east-1",
                "endpoint_url": endpoint_url,
                "aws_session_token": SESSION_TOKEN,
                # Disable botocore's retries: they hide the package's behavior and are slow.
                "config_kwargs": {"retries": {"total_max_attempts": 1}},
            }
            | extra,
        }
    )


@contextmanager
def serve() -> Iterator[Service]:
    """Point the connection to a local endpoint. A fake clock and high rate limits avoid waiting."""
    with Service() as service, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONNECTION.upper()}", make_connection(service.endpoint_url))
        for option in ("MAX_REQUESTS_PER_SECOND", "MAX_STARTS_PER_SECOND"):
            monkeypatch.setenv(f"AIRFLOW__DATAZONE__{option}", "100000")
        monkeypatch.setattr(hook_module, "time", Clock())
        yield service


# ------------------------------------------------------------------------ tasks


def make_hook() -> DataZoneHook:
    """Return a hook with a client. Tests share it, because building a client takes longer than a test."""
    hook = DataZoneHook(CONNECTION)
    hook._log = LOG
    hook.conn  # noqa: B018
    return hook


def make_task(cls: Any, hook: DataZoneHook, **arguments: Any) -> Any:
    task = cls(**{"task_id": "task", "aws_conn_id": CONNECTION, "domain_identifier": DOMAIN} | arguments)
    task.__dict__["hook"] = hook
    task._log = task._cached_logger = LOG
    hook._last_status.clear()
    return task


# ----------------------------------------------------------------------- checks


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collect the records of `LOG`, each formatted with its traceback."""
    lines: list[str] = []
    formatter = logging.Formatter("%(message)s")
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: lines.append(formatter.format(record))  # type: ignore[method-assign]
    LOG.addHandler(handler)
    try:
        yield lines
    finally:
        LOG.removeHandler(handler)


LOG = logging.getLogger("tests.wrong")
LOG.setLevel(logging.DEBUG)
LOG.propagate = False


def check_told(text: str, *secrets: str) -> None:
    """Check that a text contains no forged line and no secret."""
    for line in text.split("\n"):
        assert line.isprintable(), f"not printable: {line[:200]!r}"
        assert not line.startswith("[2026-01-01"), "forged"
    for secret in (SECRET_KEY, SESSION_TOKEN, *secrets):
        encodings = {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], html.escape(secret)}
        for encoding in encodings:
            assert encoding not in text, f"contains {encoding!r}: {text[:1000]}"


def check_log(lines: list[str], *secrets: str) -> None:
    """Check that each message is one line, except tracebacks."""
    for line in lines:
        check_told(line, *secrets)
        assert "\n" not in line or "Traceback (most recent call last):" in line, f"two lines: {line!r}"
        assert len(line) < 10_000 or "Traceback" in line


def check_error(error: BaseException, *about: str, secrets: tuple[str, ...] = ()) -> None:
    """Check that a message is one line with each text of `about`, and that its traceback is safe to log."""
    message = str(error)
    assert message.isprintable(), f"not one line: {message[:500]!r}"
    for part in about:
        assert part in message, f"{part!r} is not in {message[:500]!r}"
    assert len(message) < 10_000, f"{len(message)} characters: {message[:500]}"
    check_told("".join(traceback.format_exception(type(error), error, error.__traceback__)), *secrets)
