"""``python -m airflow_provider_datazone.testing``: a local Amazon DataZone until it is interrupted."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import threading

from .server import DataZoneServer


def main(argv: list[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM.

    :param argv: the command line's arguments. Default: those of the process
    :return: the exit status
    """
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_datazone.testing", description="Serve a local Amazon DataZone."
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=5005, help="the port to listen on, 0 for any (%(default)s)"
    )
    arguments = parser.parse_args(argv)

    # SIGTERM ends it as Ctrl-C does; a shell that puts it in the background has Ctrl-C ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    server = DataZoneServer(arguments.host, arguments.port)
    try:
        server.start()
    except (OSError, OverflowError) as error:
        print(f"Cannot listen on {arguments.host}:{arguments.port}: {error}", file=sys.stderr)
        return 1
    try:
        print(f"Amazon DataZone (local) at {server.endpoint_url}; Ctrl-C ends it.")
        print(f"export AIRFLOW_CONN_AWS_DEFAULT={shlex.quote(server.connection)}")
        print(
            "AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing "
            f"aws datazone list-domains --region us-east-1 --endpoint-url {server.endpoint_url}",
            flush=True,
        )
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
