"""An HTTP proxy that records the responses of the local DataZone."""

from __future__ import annotations

import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import urlsplit

TIMEOUT = 30
# Headers that describe a connection and not a response. The proxy sends its own.
CONNECTION_HEADERS = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}


class RecordingProxy(ThreadingHTTPServer):
    """
    Forwards requests to a server, and records the responses before a client drops members that it does not know.

    :param target: the URL of the server
    """

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        #: The responses in the format of botocore: status_code, headers (in lower case) and body.
        self.responses: list[dict[str, Any]] = []
        self._target = urlsplit(target).netloc
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> RecordingProxy:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def forward(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> dict[str, Any]:
        connection = HTTPConnection(self._target, timeout=TIMEOUT)
        try:
            # The client's signature covers the Host header, so the proxy does not change it.
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            recorded = {
                "status_code": response.status,
                "headers": {name.lower(): value for name, value in response.getheaders()},
                "body": response.read(),
            }
        finally:
            connection.close()
        self.responses.append(recorded)
        return recorded


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Send the headers and the body in one packet.
    wbufsize = -1

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        proxy = cast("RecordingProxy", self.server)
        response = proxy.forward(self.command, self.path, body, dict(self.headers))
        self.send_response(response["status_code"])
        for name, value in response["headers"].items():
            if name not in CONNECTION_HEADERS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(response["body"])))
        self.end_headers()
        self.wfile.write(response["body"])

    do_DELETE = do_GET = do_PATCH = do_POST = do_PUT = forward  # noqa: N815

    def log_message(self, *args: Any) -> None:
        pass
