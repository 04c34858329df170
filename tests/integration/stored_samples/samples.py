"""
What earlier versions have written to Airflow's database, read by the version of today.

The samples are in ``tests/samples``, one file for each kind:

- ``triggers.json``: the class path and the arguments of deferred tasks' triggers.
- ``events.json``: what triggers yielded, with what else the task resumes with (``next_kwargs``).
- ``task_state.json``: the task state store of a task (Airflow 3.3 and later), all keys.
- ``rows.json``: packed rows of a batch.

Never change or remove a sample: somewhere, a database has it. When a version writes something new, add one to the end
of its file:

1. Have the code itself write it: defer a task, run its trigger, let a task store its state, as in
   ``tests/integration/batch`` and ``tests/integration/operators``. The domain, project, assets and runs have the identifiers of the other samples.
2. Give it a ``name`` that says what it is, and in ``written_by`` the version that writes it. A sample of the same
   meaning keeps the name of the earlier ones, so that the expectations of the tests hold for it, too.
3. For a new name, add it to ``NAMES`` in ``test_all_samples.py``, and say in one of the tests what a task makes of it.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from airflow_provider_datazone.idempotency import RunRequest, token_of
from airflow_provider_datazone.operators.datazone import (
    DataZoneBatchMetadataGenerationOperator,
)
from airflow_provider_datazone.testing import models
from tests.conftest import REPOSITORY, Catalog
from tests.integration.batch.tasks import make_context
from tests.integration.submission.tries import runs_of

if TYPE_CHECKING:
    from airflow_provider_datazone.testing import DataZoneServer

# In all samples.
DOMAIN, PROJECT, ASSET, RUN = "dzd-sampledomain", "sampleproject1", "sampleasset001", "samplerun00001"
TYPES = ["BUSINESS_DESCRIPTIONS", "BUSINESS_NAMES"]
# What the client tokens of the batches are made of, in every version.
IDENTITY = "airflow-d513d058570d2606d515705cce4f897d7a9f6f3642e66364dd58204624a27a8f"
# The client token of the first run for the first asset of a batch, in every version.
BATCH_TOKEN = "airflow-897a0af54cb14c4f602eb99ee1c8eefec6f4088e76f08021dc3f27c432cde88e"
FIRST_BATCH = "0.1.0 in development, the first batch operator"


def samples(kind: str, *prefixes: str) -> list[Any]:
    """Return the samples of a kind whose names begin so, for ``parametrize``."""
    path = REPOSITORY / "tests" / "samples" / f"{kind}.json"
    return [
        pytest.param(sample, id=f"{sample['name']} ({sample['written_by']})")
        for sample in json.loads(path.read_text(encoding="utf-8"))
        if sample["name"].startswith(prefixes)
    ]


class StoredRow(NamedTuple):
    """What all versions store of an asset, read without the code of today."""

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


class SampleCatalog(Catalog):
    """A domain with the assets and the runs of the samples, under the same identifiers."""

    def __init__(self, server: DataZoneServer) -> None:
        super().__init__(server, DOMAIN, PROJECT, ASSET)
        client = server.client()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models, "_new_id", lambda: DOMAIN.removeprefix("dzd-"))
            role = "arn:aws:iam::123456789012:role/DataZoneDomainExecution"
            client.create_domain(name="local", domainExecutionRole=role)
            patch.setattr(models, "_new_id", lambda: PROJECT)
            client.create_project(domainIdentifier=DOMAIN, name="local")
            for number in range(1, 6):
                patch.setattr(models, "_new_id", lambda asset=f"sampleasset{number:03}": asset)
                server.create_asset(domain_identifier=DOMAIN, project_identifier=PROJECT)
        # Runs that a test itself starts end at once.
        server.set_run_outcome(polls=0, times=None)

    def add_run(
        self, run: str = RUN, asset: str = ASSET, *, status: str = "IN_PROGRESS", token: str | None = None
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models, "_new_id", lambda: run)
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
        :param active: The status of those that are active by the rows.
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
    # On Airflow 3.0 a deferred task says in which try it was.
    return make_context(**{"task_id": task_id, "pushed": {"deferred_in_try": 1}} | arguments)


def make_batch(rows: list[StoredRow], **arguments: Any) -> DataZoneBatchMetadataGenerationOperator:
    known = {
        "task_id": "generate",
        "asset_identifiers": [row.asset for row in rows],
        "types": TYPES,
        "domain_identifier": DOMAIN,
        "owning_project_identifier": PROJECT,
        "aws_conn_id": "datazone_default",
        "poll_interval": 0.02,
        "deferrable": False,
    }
    return DataZoneBatchMetadataGenerationOperator(**known | arguments)
