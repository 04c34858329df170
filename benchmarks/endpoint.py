"""
An endpoint that responds like DataZone, fast enough not to affect the measurements.

``waits`` serves runs ``r0`` to ``r<N-1>``. Their time starts when a client has polled each run once. All are
active for a while, then some end one after the other, then all others at once. ``starts`` begins without runs
and throttles starts and accepted predictions above the account's limits. ``GET /report`` returns the requests
with their times, and the end times or the assets of the runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

PAGE_SIZE = 50
TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
PATH = re.compile(r"/v2/domains/[^/]+/(metadata-generation-runs|notebook-runs)(?:/([^/]+))?")
ACCEPT_PATH = re.compile(r"/v2/domains/[^/]+/assets/([^/]+)/accept-predictions")
PUBLISH_PATH = re.compile(r"/v2/domains/[^/]+/listings/change-set")


class Runs:
    """
    A fixed set of runs, and the requests about them.

    :param number: The number of runs.
    :param staggered: The number of runs that end one after the other. All others end at once.
    :param idle: Seconds from the poll of the last run to the end of the first.
    :param over: Seconds within which the staggered runs end.
    :param gap: Seconds from then to the end of all others.
    """

    def __init__(self, number: int, staggered: int, idle: float, over: float, gap: float) -> None:
        self.ids = [f"r{index}" for index in range(number)]
        durations = [idle + over * index / staggered for index in range(staggered)]
        durations += [idle + over + gap] * (number - staggered)
        # The runs that end next are not next to each other in the list.
        random.Random(0).shuffle(durations)
        self.durations = dict(zip(self.ids, durations, strict=True))
        self.unpolled = set(self.ids)
        self.started_at: float | None = None
        self.requests: list[tuple[float, str, int]] = []
        self._body = {run: self._render(run) for run in self.ids}

    def _render(self, run: str) -> str:
        return json.dumps(
            {
                "domainId": "dzd_benchmark",
                "id": run,
                "target": {"type": "ASSET", "identifier": f"asset-{run}", "revision": "1"},
                "types": TYPES,
                "createdAt": "2026-01-01T00:00:00Z",
                "createdBy": "benchmark",
                "owningProjectId": "project",
                "notebookId": "notebook",
            }
        )[:-1]

    def _status(self, run: str) -> str:
        age = 0.0 if self.started_at is None else time.monotonic() - self.started_at
        duration = self.durations[run]
        # Half of the time in each active status, so that List returns runs in both.
        return "SUBMITTED" if age < duration / 2 else "IN_PROGRESS" if age < duration else "SUCCEEDED"

    def _mark_polled(self, runs: list[str]) -> None:
        self.unpolled.difference_update(runs)
        if self.started_at is None and not self.unpolled:
            self.started_at = time.monotonic()

    def _record(self, operation: str) -> None:
        age = 0.0 if self.started_at is None else time.monotonic() - self.started_at
        active = 0
        if operation == "List, first page":
            active = sum(age < duration for duration in self.durations.values())
        self.requests.append((time.monotonic(), operation, active))

    def get(self, run: str) -> str:
        self._record("Get")
        status = self._status(run)
        self._mark_polled([run])
        stats = [{"type": name, "status": status} for name in TYPES]
        return f'{self._body[run]}, "status": "{status}", "typeStats": {json.dumps(stats)}}}'

    def get_notebook(self, run: str) -> str:
        self._record("Get")
        status = {"SUBMITTED": "QUEUED", "IN_PROGRESS": "RUNNING"}.get(self._status(run), "SUCCEEDED")
        self._mark_polled([run])
        return f'{self._body[run]}, "status": "{status}"}}'

    def list(self, status: str | None, size: int, token: str | None) -> str:
        """Return a page. As in the local DataZone, a token names the last run of the previous page."""
        self._record("List, first page" if status == "SUBMITTED" and token is None else "List")
        page: list[tuple[str, str]] = []
        position = int(token) + 1 if token else 0
        following = None
        for index in range(position, len(self.ids)):
            run = self.ids[index]
            run_status = self._status(run)
            if status in (None, run_status):
                if len(page) == size:
                    break
                page.append((run, run_status))
                following = index
        else:
            following = None
        self._mark_polled([run for run, _ in page])
        items = ", ".join(f'{self._body[run]}, "status": "{run_status}"}}' for run, run_status in page)
        return f'{{"items": [{items}]' + (f', "nextToken": "{following}"}}' if following is not None else "}")

    def report(self) -> str:
        ended_at: dict[str, float] = {}
        if self.started_at is not None:
            ended_at = {run: self.started_at + duration for run, duration in self.durations.items()}
        return json.dumps({"started_at": self.started_at, "ended_at": ended_at, "requests": self.requests})

    def respond(self, target: str, _: bytes) -> tuple[int, str]:
        url = urlsplit(target)
        if url.path == "/report":
            return 200, self.report()
        match = PATH.fullmatch(url.path)
        if match is None or (match[2] and unquote(match[2]) not in self.durations):
            return 404, '{"message": "not found"}'
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if match[1] == "notebook-runs" and match[2]:
            return 200, self.get_notebook(unquote(match[2]))
        if match[2]:
            return 200, self.get(unquote(match[2]))
        size = min(int(query.get("maxResults", PAGE_SIZE)), PAGE_SIZE)
        return 200, self.list(query.get("status"), size, query.get("nextToken"))


class TokenBucket:
    """
    A limit of requests per second.

    :param limit: The limit, also the burst after a pause.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._tokens, self._updated_at = limit, time.monotonic()

    def take(self) -> bool:
        """Return whether another request is allowed."""
        now = time.monotonic()
        self._tokens = min(self._tokens + (now - self._updated_at) * self.limit, self.limit)
        self._updated_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Starts:
    """
    Runs that a client starts, that are active for a while and then succeed, and assets that it publishes.

    :param run_seconds: The duration of a run.
    :param starts: The allowed starts per second.
    :param accepts: The allowed requests per second that accept predictions.
    """

    def __init__(self, run_seconds: float, starts: float, accepts: float) -> None:
        self.run_seconds = run_seconds
        self._starts, self._accepts = TokenBucket(starts), TokenBucket(accepts)
        self.runs: dict[str, tuple[float, str, str]] = {}
        # In the order of their starts, which is also the order of their ends.
        self.active: dict[str, None] = {}
        self.by_token: dict[str, str] = {}
        self.requests: list[tuple[float, str, int]] = []
        # The accepted and the published assets.
        self.changed: dict[str, list[str]] = {"Accept": [], "Publish": []}

    def _remove_ended(self) -> None:
        now = time.monotonic()
        while self.active and now - self.runs[run := next(iter(self.active))][0] >= self.run_seconds:
            del self.active[run]

    def _render(self, run: str, status: str, **more: Any) -> dict[str, Any]:
        _, asset, created_at = self.runs[run]
        return {
            "domainId": "dzd_benchmark",
            "id": run,
            "status": status,
            "target": {"type": "ASSET", "identifier": asset},
            "types": TYPES,
            "createdAt": created_at,
            "createdBy": "benchmark",
            "owningProjectId": "project",
        } | more

    def start(self, body: bytes) -> tuple[int, str]:
        request = json.loads(body)
        run = self.by_token.get(request["clientToken"])
        if run is None:
            if not self._starts.take():
                return self._throttle()
            run = f"r{len(self.runs)}"
            created_at = datetime.now(timezone.utc).isoformat()
            self.runs[run] = (time.monotonic(), request["target"]["identifier"], created_at)
            self.active[run] = None
            self.by_token[request["clientToken"]] = run
        self.requests.append((time.monotonic(), "Start", len(self.active)))
        return 201, json.dumps(self._render(run, "SUBMITTED"))

    def _throttle(self) -> tuple[int, str]:
        self.requests.append((time.monotonic(), "throttled", len(self.active)))
        return 429, '{"message": "Rate exceeded"}'

    def accept(self, asset: str) -> tuple[int, str]:
        if not self._accepts.take():
            return self._throttle()
        self._change("Accept", asset)
        return 200, json.dumps({"domainId": "dzd_benchmark", "assetId": asset, "revision": "2"})

    def publish(self, asset: str) -> tuple[int, str]:
        self._change("Publish", asset)
        listing = {"listingId": f"listing-of-{asset}", "listingRevision": "1", "status": "CREATING"}
        return 200, json.dumps(listing)

    def _change(self, operation: str, asset: str) -> None:
        self.requests.append((time.monotonic(), operation, len(self.active)))
        self.changed[operation].append(asset)

    def _status(self, run: str) -> str:
        age = time.monotonic() - self.runs[run][0]
        return "SUBMITTED" if age < 1 else "IN_PROGRESS" if age < self.run_seconds else "SUCCEEDED"

    def respond(self, target: str, body: bytes) -> tuple[int, str]:
        self._remove_ended()
        url = urlsplit(target)
        if url.path == "/report":
            assets = [run[1] for run in self.runs.values()]
            return 200, json.dumps({"requests": self.requests, "assets": assets, "changed": self.changed})
        if match := ACCEPT_PATH.fullmatch(url.path):
            return self.accept(match[1])
        if PUBLISH_PATH.fullmatch(url.path):
            return self.publish(json.loads(body)["entityIdentifier"])
        match = PATH.fullmatch(url.path)
        if match is None or (match[2] and match[2] not in self.runs):
            return 404, '{"message": "not found"}'
        if body:
            return self.start(body)
        if match[2]:
            self.requests.append((time.monotonic(), "Get", len(self.active)))
            status = self._status(match[2])
            stats = [{"type": name, "status": status} for name in TYPES]
            return 200, json.dumps(self._render(match[2], status, typeStats=stats))
        self.requests.append((time.monotonic(), "List", len(self.active)))
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        after = int(query.get("nextToken", -1))
        runs = [run for run in self.active if int(run[1:]) > after and self._status(run) == query["status"]]
        page = runs[:PAGE_SIZE]
        response: dict[str, Any] = {"items": [self._render(run, query["status"]) for run in page]}
        if len(runs) > PAGE_SIZE:
            response["nextToken"] = page[-1][1:]
        return 200, json.dumps(response)


ERRORS = {404: b"ResourceNotFoundException", 429: b"ThrottlingException"}


class Http(asyncio.Protocol):
    """The part of HTTP/1.1 that requests over persistent connections need."""

    def __init__(self, respond: Callable[[str, bytes], tuple[int, str]]) -> None:
        self._respond = respond
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            length = LENGTH.search(head)
            body_end = end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < body_end:
                return
            body, self._received = self._received[end + 4 : body_end], self._received[body_end:]
            status, text = self._respond(head.split(b" ", 2)[1].decode(), body)
            content = text.encode()
            error = b"x-amzn-ErrorType: %s\r\n" % ERRORS[status] if status in ERRORS else b""
            self._transport.write(
                b"HTTP/1.1 %d -\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s"
                % (status, error, len(content), content)
            )


@contextmanager
def running(kind: str, *plan: float) -> Iterator[str]:
    """Serve runs in a subprocess, and yield its URL."""
    command = [sys.executable, __file__, kind, *map(str, plan)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def report(url: str) -> dict[str, Any]:
    """Return the report of an endpoint."""
    with urllib.request.urlopen(f"{url}/report", timeout=60) as response:
        result: dict[str, Any] = json.load(response)
    return result


async def serve(service: Runs | Starts) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Http(service.respond), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    waits = kinds.add_parser("waits")
    for name in ("number", "staggered"):
        waits.add_argument(name, type=int)
    for name in ("idle", "over", "gap"):
        waits.add_argument(name, type=float)
    starts = kinds.add_parser("starts")
    for name in ("run_seconds", "starts", "accepts"):
        starts.add_argument(name, type=float)
    arguments = vars(parser.parse_args())
    kind = Runs if arguments.pop("kind") == "waits" else Starts
    asyncio.run(serve(kind(**arguments)))


if __name__ == "__main__":
    main()
