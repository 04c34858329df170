"""
An endpoint that answers as DataZone does, fast enough not to be what is measured.

``waits`` knows runs ``r0`` to ``r<N-1>``. Once each of them has been looked at, the plan starts: all are
active for a while, then some end one after the other, then all others at once. ``starts`` knows no run until
one is started, and refuses starts beyond the account's limit. ``GET /report`` tells what happened, and when
which request came.
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


class Runs:
    """
    The runs, how they go on, and what was asked about them.

    :param number: How many there are.
    :param staggered: How many of them end one after the other; all others end at once.
    :param idle: Seconds between the moment when all have been looked at and the first end.
    :param over: Seconds within which the staggered ones end.
    :param gap: Seconds from then to the end of all others.
    """

    def __init__(self, number: int, staggered: int, idle: float, over: float, gap: float) -> None:
        self.ids = [f"r{index}" for index in range(number)]
        after = [idle + over * index / staggered for index in range(staggered)]
        after += [idle + over + gap] * (number - staggered)
        # Those that end next stand anywhere in the list.
        random.Random(0).shuffle(after)
        self.life = dict(zip(self.ids, after, strict=True))
        self.unseen = set(self.ids)
        self.started: float | None = None
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
        age = 0.0 if self.started is None else time.monotonic() - self.started
        life = self.life[run]
        # Half of its life each, so that List has something in both statuses.
        return "SUBMITTED" if age < life / 2 else "IN_PROGRESS" if age < life else "SUCCEEDED"

    def _see(self, runs: list[str]) -> None:
        self.unseen.difference_update(runs)
        if self.started is None and not self.unseen:
            self.started = time.monotonic()

    def _note(self, operation: str) -> None:
        age = 0.0 if self.started is None else time.monotonic() - self.started
        active = sum(age < life for life in self.life.values()) if operation == "List, first page" else 0
        self.requests.append((time.monotonic(), operation, active))

    def get(self, run: str) -> str:
        self._note("Get")
        status = self._status(run)
        self._see([run])
        stats = [{"type": name, "status": status} for name in TYPES]
        return f'{self._body[run]}, "status": "{status}", "typeStats": {json.dumps(stats)}}}'

    def get_notebook(self, run: str) -> str:
        self._note("Get")
        status = {"SUBMITTED": "QUEUED", "IN_PROGRESS": "RUNNING"}.get(self._status(run), "SUCCEEDED")
        self._see([run])
        return f'{self._body[run]}, "status": "{status}"}}'

    def list(self, status: str | None, size: int, token: str | None) -> str:
        """Answer one page; as with the local DataZone, a token says after which run to go on."""
        self._note("List, first page" if status == "SUBMITTED" and token is None else "List")
        page: list[tuple[str, str]] = []
        position = int(token) + 1 if token else 0
        following = None
        for index in range(position, len(self.ids)):
            run = self.ids[index]
            found = self._status(run)
            if status in (None, found):
                if len(page) == size:
                    break
                page.append((run, found))
                following = index
        else:
            following = None
        self._see([run for run, _ in page])
        items = ", ".join(f'{self._body[run]}, "status": "{found}"}}' for run, found in page)
        return f'{{"items": [{items}]' + (f', "nextToken": "{following}"}}' if following is not None else "}")

    def report(self) -> str:
        started = self.started
        ends = {} if started is None else {run: started + life for run, life in self.life.items()}
        return json.dumps({"started": started, "ends": ends, "requests": self.requests})

    def answer(self, target: str, _: bytes) -> tuple[int, str]:
        url = urlsplit(target)
        if url.path == "/report":
            return 200, self.report()
        match = PATH.fullmatch(url.path)
        if match is None or (match[2] and unquote(match[2]) not in self.life):
            return 404, '{"message": "not found"}'
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if match[1] == "notebook-runs" and match[2]:
            return 200, self.get_notebook(unquote(match[2]))
        if match[2]:
            return 200, self.get(unquote(match[2]))
        size = min(int(query.get("maxResults", PAGE_SIZE)), PAGE_SIZE)
        return 200, self.list(query.get("status"), size, query.get("nextToken"))


class Starts:
    """
    Runs that are started, live for a while and succeed.

    :param life: Seconds.
    :param limit: Starts a second that the account may make; so many at once, after a pause.
    """

    def __init__(self, life: float, limit: float) -> None:
        self.life = life
        self.limit = limit
        self.runs: dict[str, tuple[float, str, str]] = {}
        # In the order in which they were started, and so in that in which they end.
        self.active: dict[str, None] = {}
        self.by_token: dict[str, str] = {}
        self.requests: list[tuple[float, str, int]] = []
        self._left, self._since = limit, time.monotonic()

    def _sweep(self) -> None:
        now = time.monotonic()
        while self.active and now - self.runs[run := next(iter(self.active))][0] >= self.life:
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
            now = time.monotonic()
            self._left = min(self._left + (now - self._since) * self.limit, self.limit)
            self._since = now
            if self._left < 1:
                self.requests.append((now, "refused", len(self.active)))
                return 429, '{"message": "Rate exceeded"}'
            self._left -= 1
            run = f"r{len(self.runs)}"
            created_at = datetime.now(timezone.utc).isoformat()
            self.runs[run] = (now, request["target"]["identifier"], created_at)
            self.active[run] = None
            self.by_token[request["clientToken"]] = run
        self.requests.append((time.monotonic(), "Start", len(self.active)))
        return 201, json.dumps(self._render(run, "SUBMITTED"))

    def _status(self, run: str) -> str:
        age = time.monotonic() - self.runs[run][0]
        return "SUBMITTED" if age < 1 else "IN_PROGRESS" if age < self.life else "SUCCEEDED"

    def answer(self, target: str, body: bytes) -> tuple[int, str]:
        self._sweep()
        url = urlsplit(target)
        if url.path == "/report":
            return 200, json.dumps(
                {"requests": self.requests, "assets": [run[1] for run in self.runs.values()]}
            )
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
        found = [run for run in self.active if int(run[1:]) > after and self._status(run) == query["status"]]
        page = found[:PAGE_SIZE]
        answer: dict[str, Any] = {"items": [self._render(run, query["status"]) for run in page]}
        if len(found) > PAGE_SIZE:
            answer["nextToken"] = page[-1][1:]
        return 200, json.dumps(answer)


ERRORS = {404: b"ResourceNotFoundException", 429: b"ThrottlingException"}


class Http(asyncio.Protocol):
    """Just as much of HTTP/1.1 as requests over a connection that is kept take."""

    def __init__(self, answer: Callable[[str, bytes], tuple[int, str]]) -> None:
        self._answer = answer
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            length = LENGTH.search(head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < whole:
                return
            body, self._received = self._received[end + 4 : whole], self._received[whole:]
            status, text = self._answer(head.split(b" ", 2)[1].decode(), body)
            answer = text.encode()
            error = b"x-amzn-ErrorType: %s\r\n" % ERRORS[status] if status in ERRORS else b""
            self._transport.write(
                b"HTTP/1.1 %d -\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s"
                % (status, error, len(answer), answer)
            )


@contextmanager
def running(kind: str, *plan: float) -> Iterator[str]:
    """Serve runs in a process of its own; yield the address."""
    command = [sys.executable, __file__, kind, *map(str, plan)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def report(url: str) -> dict[str, Any]:
    """Return what has happened at an endpoint."""
    with urllib.request.urlopen(f"{url}/report", timeout=60) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


async def serve(service: Runs | Starts) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Http(service.answer), "127.0.0.1", 0, backlog=4096)
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
    for name in ("life", "limit"):
        starts.add_argument(name, type=float)
    arguments = vars(parser.parse_args())
    kind = Runs if arguments.pop("kind") == "waits" else Starts
    asyncio.run(serve(kind(**arguments)))


if __name__ == "__main__":
    main()
