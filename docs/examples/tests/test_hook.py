from airflow_provider_datazone.hooks.datazone import DataZoneHook
from airflow_provider_datazone.testing import mock_datazone


def described(hook, domain):
    found = hook.search_assets(domain_identifier=domain)
    return [asset["name"] for asset in found if "description" in asset]


def test_described_assets_are_found():
    with mock_datazone() as datazone:
        domain, project, _ = datazone.create_asset("orders", description="A row for each order.")
        datazone.create_asset("items", domain_identifier=domain, project_identifier=project)
        assert described(DataZoneHook(None, region_name="us-east-1"), domain) == ["orders"]
