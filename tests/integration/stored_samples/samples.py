"""
Samples of what earlier versions wrote to Airflow's database; the tests read them with the current version.

The samples are in ``tests/samples``, one file for each kind:

- ``triggers.json``: the class path and the arguments of deferred tasks' triggers.
- ``events.json``: the events of triggers, with the other arguments that the task resumes with (``next_kwargs``).
- ``asset_state.json``: the key and the value that an asset watcher saves (Airflow 3.3 and later), and its arguments.
- ``task_state.json``: all keys in the task state store of a task (Airflow 3.3 and later).
- ``rows.json``: packed rows of a batch.

Never change or remove a sample: a database may still contain such data. When a version writes something new, add a sample
to the end of its file:

1. Generate it with the code: defer a task, run its trigger, or let a task store its state, as in
   ``tests/integration/batch`` and ``tests/integration/operators``. Use the domain, project, asset and run
   identifiers of the other samples.
2. Describe it in ``name``, and set ``written_by`` to the version that writes it. A sample with the same meaning as an
   earlier one has the same name, so that the expectations of the tests apply to it, too.
3. Add a new name to ``NAMES`` in ``test_all_samples.py``, and test how a task handles the sample.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from moto.moto_api._internal import mock_random

from airflow_provider_datazone.idempotency import RunRequest, token_of
from airflow_provider_datazone.operators.datazone import (
    DataZoneBatchMetadataGenerationOperator,
)
from tests.conftest import REPOSITORY, Catalog
from tests.integration.submission.tries import runs_of
from tests.task_context import make_resumed_context

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

# The identifiers in all samples.
DOMAIN, PROJECT, ASSET, RUN = "dzd-sampledomain", "sampleproject1", "sampleasset001", "samplerun00001"
TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
# The identity from which every version derives the client tokens of the batches.
IDENTITY = "airflow-d513d058570d2606d515705cce4f897d7a9f6f3642e66364dd58204624a27a8f"
# The client token of the first run for the first asset of a batch, in every version.
BATCH_TOKEN = "airflow-897a0af54cb14c4f602eb99ee1c8eefec6f4088e76f08021dc3f27c432cde88e"
FIRST_BATCH = "0.1.0 in development, the first batch operator"


def samples(kind: str, *prefixes: str) -> list[Any]:
    """Return the samples of a kind whose names start with one of the prefixes, for ``parametrize``."""
    path = REPOSITORY / "tests" / "samples" / f"{kind}.json"
    return [
        pytest.param(sample, id=f"{sample['name']} ({sample['written_by']})")
        for sample in json.loads(path.read_text(encoding="utf-8"))
        if sample["name"].startswith(prefixes)
    ]


class StoredRow(NamedTuple):
    """The columns of an asset that all versions store, parsed without the code under test."""

    asset: str
    revision: str | None
    project: str
    submission: int
    run: str | None
    status: str | None
    type_stats: list[dict[str, str]]
    error: str | None


def stored_rows(packed: str) -> list[StoredRow]:
    rows = json.loads(zlib.decompress(base64.b85decode(packed)))
    return [StoredRow(*row[: len(StoredRow._fields)]) for row in rows]


def set_next_identifier(patch: pytest.MonkeyPatch, identifier: str) -> None:
    """Set the identifier of the resources that the local DataZone creates next."""
    patch.setattr(mock_random, "get_random_string", lambda **_: identifier)


class SampleCatalog(Catalog):
    """A domain with the assets and runs of the samples, with the same identifiers."""

    def __init__(self, server: DataZoneServer) -> None:
        super().__init__(server, DOMAIN, PROJECT, ASSET)
        client = server.client()
        with pytest.MonkeyPatch.context() as patch:
            set_next_identifier(patch, DOMAIN.removeprefix("dzd-"))
            role = "arn:aws:iam::123456789012:role/DataZoneDomainExecution"
            client.create_domain(name="local", domainExecutionRole=role)
            set_next_identifier(patch, PROJECT)
            client.create_project(domainIdentifier=DOMAIN, name="local")
            for number in range(1, 6):
                set_next_identifier(patch, f"sampleasset{number:03}")
                server.create_asset(domain_identifier=DOMAIN, project_identifier=PROJECT)
        # Runs that a test starts end immediately.
        server.set_run_outcome(polls=0, times=None)

    def add_run(
        self, run: str = RUN, asset: str = ASSET, *, status: str = "IN_PROGRESS", token: str | None = None
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            set_next_identifier(patch, run)
            started = self.server.client().start_metadata_generation_run(
                domainIdentifier=DOMAIN,
                owningProjectIdentifier=PROJECT,
                target={"type": "ASSET", "identifier": asset},
                types=TYPES,
                **({} if token is None else {"clientToken": token}),
            )
        assert started["id"] == run
        self.server.set_run_status(run, status)

    def add_runs_of(self, rows: list[StoredRow], active: str) -> None:
        """
        Add the runs of a batch.

        :param rows: The rows of the batch.
        :param active: The status of the runs that are active according to the rows.
        """
        for row in rows:
            if row.run is not None:
                request = RunRequest(row.asset, TYPES, DOMAIN, row.project, row.revision)
                token = token_of(IDENTITY, request.fingerprint, row.submission)
                self.add_run(row.run, row.asset, status=row.status or active, token=token)

    def runs_of(self, asset: str) -> list[str]:
        return runs_of(Catalog(self.server, DOMAIN, PROJECT, asset))

    @property
    def starts(self) -> int:
        return self.server.request_counts["StartMetadataGenerationRun"]


def deferred_context(task_id: str, **arguments: Any) -> Any:
    # On Airflow 3.0 a deferred task stores its try number in an XCom.
    return make_resumed_context(**{"task_id": task_id} | arguments)


def make_batch(rows: list[StoredRow], **arguments: Any) -> DataZoneBatchMetadataGenerationOperator:
    defaults = {
        "task_id": "generate",
        "asset_identifiers": [row.asset for row in rows],
        "types": TYPES,
        "domain_identifier": DOMAIN,
        "owning_project_identifier": PROJECT,
        "aws_conn_id": "datazone_default",
        "poll_interval": 0.02,
        "deferrable": False,
    }
    return DataZoneBatchMetadataGenerationOperator(**defaults | arguments)
