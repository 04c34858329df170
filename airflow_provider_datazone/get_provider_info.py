"""The provider's metadata, which Airflow reads at startup. It imports nothing, to keep startup fast."""

from __future__ import annotations

from typing import Any

# Not `datazone`: that connection type belongs to another product's provider. No underscore: Airflow 3.0
# warns about one at every lookup.
CONNECTION_TYPE = "awsdatazone"

# Fields of the connection form in addition to login, password and extra. Airflow stores them in the extra.
CONNECTION_FIELDS = {
    "domain_identifier": ("Domain", "Default domain ID for tasks, e.g. dzd-1234abcd5678ef"),
    "owning_project_identifier": (
        "Owning project",
        "Default project ID for tasks: the project that owns the assets",
    ),
    "region_name": ("AWS Region", "e.g. us-east-1; leave empty to use the machine's own"),
    "role_arn": (
        "Role to assume",
        "e.g. arn:aws:iam::123456789012:role/airflow; leave empty to assume no role",
    ),
    "endpoint_url": ("Endpoint URL", "leave empty for the Region's own endpoint"),
}

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["host", "schema", "port"],
    "relabeling": {"login": "AWS Access Key ID", "password": "AWS Secret Access Key"},
    # None for the connection's own fields: Airflow 2 would show their description twice, Airflow 3 only shows
    # the description.
    "placeholders": {
        "login": "leave empty to use the credentials of the machine",
        "password": "leave empty to use the credentials of the machine",
    },
}

# The options of the section `datazone` of Airflow's configuration.
CONFIG_OPTIONS: dict[str, dict[str, str]] = {
    "max_requests_per_second": {
        "description": (
            "Maximum number of Get and List requests per second of a triggerer, for all\n"
            "waits in an AWS account and Region. It slows down while DataZone throttles.\n"
            "Batches publish at most as many assets per second, in addition.\n"
        ),
        "version_added": "0.1.0",
        "type": "float",
        "example": "5",
        "default": "10",
    },
    "max_starts_per_second": {
        "description": (
            "Maximum number of metadata generation runs that batches start per second, for\n"
            "all batches of a process in an AWS account and Region. DataZone allows 10.\n"
        ),
        "version_added": "0.1.0",
        "type": "float",
        "example": "5",
        "default": "10",
    },
    "max_accepts_per_second": {
        "description": (
            "Maximum number of requests per second that accept predictions, for all\n"
            "batches of a process in an AWS account and Region. DataZone allows 20.\n"
        ),
        "version_added": "0.2.0",
        "type": "float",
        "example": "5",
        "default": "20",
    },
}

_INTEGRATION = "Amazon DataZone"


def get_provider_info() -> dict[str, Any]:
    """
    Return the provider's metadata.

    :return: A dict that matches ``provider_info.schema.json`` of every supported Airflow version. Airflow
        ignores keys that it does not know.
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
            kind: [{"integration-name": _INTEGRATION, "python-modules": [f"{package}.{kind}.datazone"]}]
            for kind in ("hooks", "operators", "sensors", "triggers")
        },
        "extra-links": [f"{package}.links.datazone.DataZoneDomainLink"],
        "connection-types": [
            {
                "connection-type": CONNECTION_TYPE,
                "hook-class-name": f"{package}.hooks.datazone.DataZoneHook",
                "hook-name": _INTEGRATION,
                # Airflow 3.2 and later reads these; earlier versions call the hook's methods, with the same
                # result.
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": {
                    name: {"label": label, "description": description, "schema": {"type": ["string", "null"]}}
                    for name, (label, description) in CONNECTION_FIELDS.items()
                },
            }
        ],
        "config": {
            "datazone": {
                "description": "Request rates of the provider for Amazon DataZone.",
                "options": CONFIG_OPTIONS,
            },
        },
    }
