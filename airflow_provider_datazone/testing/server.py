"""The local Amazon DataZone over HTTP."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any, ClassVar
from urllib.parse import urlsplit

from moto.moto_server import werkzeug_app
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler, select_address_family
from werkzeug.wrappers import Request

from .control_api import CONTROL_PATH, respond
from .controls import ACCESS_KEY, SECRET_KEY, DataZoneControls
from .http_responses import MOTO_PATH, is_for_datazone, respond_as_datazone, respond_as_moto
from .local_responses import STOPPING, error_response
from .scenario import request_lock

logger = logging.getLogger(__name__)

# Seconds in which clients must read their responses when the server stops.
STOP_SECONDS = 5.0
# Only newer moto releases have their own handler.
_MotoRequestHandler: Any = getattr(werkzeug_app, "MotoRequestHandler", WSGIRequestHandler)


class _RequestHandler(_MotoRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: ARG002
        logger.debug(message, *args)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        # The superclass fails for URLs that it cannot decode.
        logger.debug("%r %s %s", self.requestline, code, size)

    def version_string(self) -> str:
        return "amazon.com"

    def run_wsgi(self) -> None:
        try:
            urlsplit(self.path)
        except ValueError as error:
            self.send_error(400, str(error))
            return
        super().run_wsgi()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Respond to a request that cannot be read. The superclass would send HTML."""
        reason = message or explain or HTTPStatus(code).phrase
        _, headers, body = error_response(int(code), "ValidationException", reason)
        content = body.encode() if isinstance(body, str) else body
        self.send_response(code, HTTPStatus(code).phrase)
        for name, value in {**headers, "Content-Length": len(content), "Connection": "close"}.items():
            if name != "server":
                self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)


class _HTTPServer(ThreadedWSGIServer):
    """Keeps track of the threads that handle requests, so that the server can wait for them when it stops."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections: dict[threading.Thread, socket.socket] = {}

    def log(self, type: str, message: str, *args: Any) -> None:
        logger.log(logging.ERROR if type == "error" else logging.DEBUG, message, *args)

    def process_request(self, request: Any, client_address: Any) -> None:
        for thread in [thread for thread in self._connections if not thread.is_alive()]:
            del self._connections[thread]
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="datazone-request",
            daemon=True,
        )
        self._connections[thread] = request
        thread.start()

    def finish_requests(self) -> None:
        """Wait for the responses in progress, and close idle connections."""
        for connection in self._connections.values():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        end = time.monotonic() + STOP_SECONDS
        for thread, connection in self._connections.items():
            thread.join(max(end - time.monotonic(), 0))
            # The client may not read its response.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()


class DataZoneServer(DataZoneControls):
    """Amazon DataZone and the other moto services over HTTP on loopback, for use by several processes.

    Use it as a context manager. All servers and mocks of a process share one state, which is deleted when
    the last server stops, and when ``mock_aws`` or ``mock_datazone`` starts or stops: start the mock first
    if you need both. It needs neither AWS credentials nor a network. It accepts requests with any
    credentials until you call ``require_credentials``.

    Other processes can call ``fail``, ``limit``, ``recover``, ``require_credentials``,
    ``require_permissions``, ``set_run_outcome`` and ``set_run_status`` over HTTP, for example
    ``POST /moto-api/datazone/fail`` with the method's arguments as a JSON object.

    :param host: the address to listen on. Default: ``127.0.0.1``
    :param port: the port to listen on. 0 selects any free port. Default: 0
    """

    _running_servers: ClassVar[int] = 0

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self._server: _HTTPServer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def __enter__(self) -> DataZoneServer:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server in a background thread.

        :raises OSError: if the server cannot listen on the address, for example because it is in use
        :raises OverflowError: if the port is above 65535
        :raises RuntimeError: if the server has been started already
        """
        if self._server is not None:
            raise RuntimeError("The server has been started already")
        family = select_address_family(self.host, self.port)
        # If werkzeug created the socket and the port was in use, it would print a message and exit.
        with socket.create_server((self.host, self.port), family=family, backlog=1024) as listener:
            self._stopping = threading.Event()
            self._server = _HTTPServer(
                self.host, self.port, self._application(), _RequestHandler, fd=listener.fileno()
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="datazone-server",
            daemon=True,
        )
        self._thread.start()
        DataZoneServer._running_servers += 1

    def stop(self) -> None:
        """Stop the server: end requests that hang, free the port and join all threads.

        The last server in a process resets moto.
        """
        if self._server is None or self._thread is None:
            return
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.finish_requests()
        self._server = self._thread = None
        DataZoneServer._running_servers -= 1
        if not DataZoneServer._running_servers:
            self.reset()

    def _application(self) -> Any:
        moto = werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app)

        def dispatch(environ: dict[str, Any], start_response: Any) -> Any:
            environ[STOPPING] = self._stopping
            path = environ["PATH_INFO"]
            if f"{path}/".startswith(CONTROL_PATH):
                response = respond(self, Request(environ))
            elif path.startswith(MOTO_PATH):
                # A reset must not occur while a request is handled.
                with request_lock:
                    response = respond_as_moto(moto, environ)
            elif is_for_datazone(path, environ.get("HTTP_AUTHORIZATION", "")):
                response = respond_as_datazone(Request(environ))
            else:
                response = respond_as_moto(moto, environ)
            return response(environ, start_response)

        return dispatch

    @property
    def endpoint_url(self) -> str:
        """The URL of the server.

        :raises RuntimeError: if the server has not been started
        """
        if self._server is None:
            raise RuntimeError("The server has not been started")
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self._server.port}"

    @property
    def connection(self) -> str:
        """An Airflow connection to the server as JSON, for the environment variable ``AIRFLOW_CONN_<ID>``."""
        return json.dumps(
            {
                "conn_type": "awsdatazone",
                "login": ACCESS_KEY,
                "password": SECRET_KEY,
                "extra": {"region_name": "us-east-1", "endpoint_url": self.endpoint_url},
            }
        )
