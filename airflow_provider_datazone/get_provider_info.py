"""What Airflow reads of this provider when it starts; therefore it imports nothing."""

from __future__ import annotations

from typing import Any

# Not `datazone`: that connection type belongs to another product's provider. No underscore: Airflow 3.0
# warns about one at every look-up.
CONNECTION_TYPE = "awsdatazone"

# Fields of the connection's form beside login, password and extra; all of them are stored in the extra.
CONNECTION_FIELDS = {
    "domain_identifier": ("Domain", "The domain's id, for tasks that name none, e.g. dzd-1234abcd5678ef"),
    "owning_project_identifier": (
        "Owning project",
        "The id of the project that owns the assets, for tasks that name none",
    ),
    "region_name": ("AWS Region", "e.g. us-east-1; leave empty to use the machine's own"),
    "role_arn": ("Role to assume", "e.g. arn:aws:iam::123456789012:role/airflow; leave empty to assume none"),
    "endpoint_url": ("Endpoint URL", "leave empty for the Region's own endpoint"),
}

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["host", "schema", "port"],
    "relabeling": {"login": "AWS Access Key ID", "password": "AWS Secret Access Key"},
    # The connection's own fields have a description, which Airflow 2 would show twice, and Airflow 3 alone.
    "placeholders": {
        "login": "leave empty to use the credentials of the machine",
        "password": "leave empty to use the credentials of the machine",
    },
}

_INTEGRATION = "Amazon DataZone"


def get_provider_info() -> dict[str, Any]:
    """
    Describe the provider.

    :return: As ``provider_info.schema.json`` of each supported Airflow has it; versions that do not know
        a key leave it.
    """
    package = "airflow_provider_datazone"
    return {
        "package-name": "airflow-provider-amazon-datazone",
        "name": "Amazon DataZone",
        "description": "Metadata generation runs of `Amazon DataZone <https://aws.amazon.com/datazone/>`__.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://docs.aws.amazon.com/datazone/",
                "how-to-guide": ["/docs/operators.md", "/docs/waiting.md", "/docs/connection.md"],
                "tags": ["aws"],
            }
        ],
        **{
            room: [{"integration-name": _INTEGRATION, "python-modules": [f"{package}.{room}.datazone"]}]
            for room in ("hooks", "operators", "sensors", "triggers")
        },
        "extra-links": [f"{package}.links.datazone.DataZoneDomainLink"],
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": f"{package}.hooks.datazone.DataZoneHook",
                "hook-name": _INTEGRATION,
                # Read from Airflow 3.2 on; before, the hook's own methods give the same.
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": {
                    name: {"label": label, "description": description, "schema": {"type": ["string", "null"]}}
                    for name, (label, description) in CONNECTION_FIELDS.items()
                },
            }
        ],
        "config": {
            "datazone": {
                "description": "How the provider for Amazon DataZone treats the service.",
                "options": {
                    "max_requests_per_second": {
                        "description": (
                            "Get and List requests a second at most in a triggerer, for all waits in an AWS\n"
                            "account and Region. They slow down by themselves while DataZone throttles.\n"
                        ),
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "5",
                        "default": "10",
                    },
                    "max_starts_per_second": {
                        "description": (
                            "Metadata generation runs that batches start a second at most, for all batches\n"
                            "of a process in an AWS account and Region. DataZone's own limit is 10.\n"
                        ),
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "5",
                        "default": "10",
                    },
                },
            },
        },
    }
