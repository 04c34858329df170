"""The local DataZone runs in the process, without a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import moto.backend_index
import pytest
from botocore.config import Config
from moto import mock_aws

from airflow_provider_datazone.testing import (
    DataZoneControls,
    mock_datazone,
    registration,
)
from tests.integration.testing.clients import Runs


class TestMockDatazone:
    @mock_datazone
    def test_mock_decorates_a_function_without_parentheses(self) -> None:
        assert Runs(DataZoneControls()).finish()

    @mock_datazone()
    def test_mock_decorates_a_function_with_parentheses(self) -> None:
        assert DataZoneControls().client().list_domains()["items"] == []

    def test_mock_decorates_a_class(self) -> None:
        @mock_datazone
        class TestSomething:
            def test_it(self) -> int:
                return len(DataZoneControls().client().list_domains()["items"])

            def helper(self) -> str:
                return "still there"

        assert TestSomething().test_it() == 0
        assert TestSomething().helper() == "still there"

    def test_each_use_starts_empty(self) -> None:
        with mock_datazone() as datazone:
            datazone.create_asset()
            datazone.fail("*", "AccessDeniedException", times=None)
            datazone.set_run_outcome(status="FAILED", times=None)
        with mock_datazone() as datazone:
            assert datazone.client().list_domains()["items"] == []
            runs = Runs(datazone)
            assert runs.status(runs.finish()) == "SUCCEEDED"

    def test_controls_send_no_request_to_aws_without_a_mock(self) -> None:
        with mock_datazone() as datazone:
            datazone.create_asset()
        for call in (datazone.client, datazone.create_asset, DataZoneControls().client):
            with pytest.raises(RuntimeError, match="start mock_datazone"):
                call()

    def test_mock_within_a_mock_shares_its_state(self) -> None:
        with mock_aws():
            with mock_datazone() as datazone:
                datazone.create_asset()
            assert len(DataZoneControls().client().list_domains()["items"]) == 1

    def test_import_names_the_extra_if_moto_is_too_old(self, tmp_path: Path) -> None:
        (tmp_path / "moto").mkdir()
        (tmp_path / "moto/__init__.py").touch()
        imported = subprocess.run(
            [sys.executable, "-c", "import airflow_provider_datazone.testing"],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert imported.stderr.splitlines()[-1].endswith("install airflow-provider-amazon-datazone[testing]")

    def test_other_services_of_moto_are_available(self) -> None:
        with mock_datazone():
            sts = boto3.client("sts", region_name="us-east-1")
            assert sts.get_caller_identity()["Account"] == "123456789012"

    def test_mock_aws_supports_datazone(self) -> None:
        with mock_aws():
            assert boto3.client("datazone", region_name="eu-west-1").list_domains()["items"] == []

    @pytest.mark.parametrize(
        "options",
        [
            {"region_name": "us-east-1"},
            {"region_name": "us-east-1", "config": Config(use_dualstack_endpoint=True)},
            {"region_name": "us-east-1", "config": Config(use_fips_endpoint=True)},
            {"region_name": "us-gov-west-1"},
            {"region_name": "cn-north-1"},
            {"region_name": "us-east-1", "endpoint_url": "https://datazone.us-east-1.amazonaws.com"},
        ],
    )
    def test_every_endpoint_of_the_service_is_mocked(self, options: dict[str, Any]) -> None:
        with mock_datazone():
            assert boto3.client("datazone", **options).list_domains()["items"] == []

    def test_second_registration_has_no_effect(self) -> None:
        before = list(moto.backend_index.backend_url_patterns)
        registration.register()
        assert moto.backend_index.backend_url_patterns == before

    def test_accounts_are_isolated_as_in_moto(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with mock_datazone() as datazone:
            datazone.create_asset()
            monkeypatch.setenv("MOTO_ACCOUNT_ID", "111122223333")
            assert datazone.client().list_domains()["items"] == []
