"""
The package's metrics, in the backend of Airflow's own: StatsD, Datadog or OpenTelemetry.

Airflow sends them from the process that counts: a worker, or a triggerer.

.. seealso::
    https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/logging-monitoring/metrics.html
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow.providers.common.compat.sdk import Stats
from botocore.exceptions import ClientError

from airflow_provider_datazone.service_errors import is_throttling

log = logging.getLogger(__name__)


def count_response(event_name: str, parsed_response: dict[str, Any] | None = None, **_: Any) -> None:
    """
    Count a request, and whether DataZone throttled it; botocore calls this for every attempt.

    :param event_name: botocore's event, ``response-received.datazone.<operation>``.
    :param parsed_response: The response, ``None`` if there was none.
    """
    operation = event_name.rpartition(".")[2]
    with _without_errors():
        Stats.incr("datazone.requests", tags={"operation": operation})
        if is_throttling(ClientError(parsed_response or {}, operation)):
            Stats.incr("datazone.throttled", tags={"operation": operation})


def count_ended_run(status: str) -> None:
    """
    Count a run that has ended for a task or a batch, or that an asset watcher reports.

    :param status: The run's status.
    """
    with _without_errors():
        Stats.incr("datazone.runs_ended", tags={"status": status})


def report_waits(number: int) -> None:
    """
    Report the number of waits on the pollers of this process.

    :param number: The number of waits.
    """
    with _without_errors():
        Stats.gauge("datazone.waits", number)


@contextmanager
def _without_errors() -> Iterator[None]:
    """Log an error of the metrics backend at DEBUG: no metric is worth a failed request or task."""
    try:
        yield
    except Exception:
        log.debug("A metric could not be sent.", exc_info=True)
