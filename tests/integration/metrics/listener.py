"""A StatsD server on loopback that records the metrics of Airflow processes."""

from __future__ import annotations

import re
import socket
import threading
from typing import Any, NamedTuple

METRIC = re.compile(r"airflow\.(?P<name>[\w.]+)(?P<tags>(?:,[^:]*)?):(?P<value>[-+\d.]+)\|(?P<kind>\w+)")


class Metric(NamedTuple):
    """A metric as it arrived."""

    name: str
    tags: dict[str, str]
    value: float


class StatsDListener:
    """Receives metrics in the background; a context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self._metrics: list[Metric] = []
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._receive, daemon=True)
        #: The options of Airflow's section ``metrics`` that send the metrics here, with their tags.
        self.settings = {
            "STATSD_ON": "True",
            "STATSD_HOST": "127.0.0.1",
            "STATSD_PORT": str(self._socket.getsockname()[1]),
            "STATSD_PREFIX": "airflow",
            # Tags in InfluxDB's format. Without it, StatsD has no tags.
            "STATSD_INFLUXDB_ENABLED": "True",
        }

    def __enter__(self) -> StatsDListener:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._is_closed.set()
        self._thread.join()
        self._socket.close()

    def _receive(self) -> None:
        while not self._is_closed.is_set():
            try:
                packet = self._socket.recv(65536).decode()
            except TimeoutError:
                continue
            for line in packet.splitlines():
                if match := METRIC.match(line):
                    tags = dict(tag.split("=", 1) for tag in match["tags"].split(",") if tag)
                    self._metrics.append(Metric(match["name"], tags, float(match["value"])))

    def values(self, name: str, **tags: str) -> list[float]:
        """Return the values of a metric with these tags, in the order of arrival."""
        return [
            metric.value
            for metric in list(self._metrics)
            if metric.name == name and metric.tags.items() >= tags.items()
        ]

    def total(self, name: str, **tags: str) -> float:
        """Return the sum of a counter with these tags."""
        return sum(self.values(name, **tags))
