"""Every stored sample has a test."""

from __future__ import annotations

import pytest

from tests.integration.stored_samples.samples import samples
from tests.integration.stored_samples.test_events import BATCH_OUTCOMES, ERROR_EVENTS, RUN_OUTCOMES
from tests.integration.stored_samples.test_rows import ROWS

NAMES = {
    "triggers": {
        "run: first arguments",
        "run: deferred by the sensor",
        "run: deferred by the sensor with one type, Region and botocore_config",
        "run: deferred by the start operator",
        "run: defaults",
        "run: every argument",
        "run: boto3's own credentials, certificates not verified",
        "run: botocore_config from an object",
        "batch: first arguments, rows not readable",
        "batch: nothing started, deferred by the operator",
        "batch: under way, deferred again at a checkpoint",
        "batch: second try, deferred by the operator",
        "batch: quota used up, a run active",
        "batch: publishing, deferred again at a checkpoint",
        "batch: defaults",
        "batch: every argument",
        "watcher: defaults",
        "watcher: every argument",
    },
    "asset_state": {"watcher: defaults, a run active", "watcher: every argument, a run active"},
    "events": {
        *RUN_OUTCOMES,
        *ERROR_EVENTS,
        *BATCH_OUTCOMES,
        "start: own run SUCCEEDED",
        "start: own run FAILED",
        "start: adopted run CANCELED",
        "start: timeout",
    },
    "task_state": {
        "run: started",
        "run: succeeded",
        "run: second run after one that failed",
        "run: adopted",
        "run: answer to Start lost",
        "run: client token of the user",
        "batch: nothing started",
        "batch: succeeded",
        "batch: under way",
        "batch: under way in the second try",
        "batch: failed",
    },
    "rows": set(ROWS),
}


@pytest.mark.parametrize("kind", NAMES)
def test_samples_and_expectations_have_the_same_names(kind: str):
    assert {sample.values[0]["name"] for sample in samples(kind, "")} == NAMES[kind]
