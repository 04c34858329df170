"""``python -m airflow_provider_datazone.testing``: serve a local Amazon DataZone until it is interrupted."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import threading

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_api._internal import mock_random

from .control_api import CONTROL_PATH, CONTROLS
from .server import DataZoneServer

#: The assets of a server that starts with ``--seed``: columns by asset name.
ASSETS = {
    "orders": ("order_id", "customer_id", "amount"),
    "customers": ("customer_id", "name", "country"),
    "products": ("product_id", "title", "price"),
    "shipments": ("shipment_id", "order_id", "shipped_at"),
    "returns": ("return_id", "order_id", "reason"),
}

#: A domain, a project and assets by name: their identifiers.
Seed = tuple[str, str, dict[str, str]]


def main(argv: list[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM.

    :param argv: the command-line arguments. Default: those of the process
    :return: the exit status
    """
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_datazone.testing", description="Serve a local Amazon DataZone."
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=5005, help="the port to listen on, 0 for any free port (%(default)s)"
    )
    parser.add_argument(
        "--seed",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="start with a domain, a project and assets that have the same identifiers every time",
    )
    arguments = parser.parse_args(argv)

    # SIGTERM stops the server like Ctrl-C. SIGINT needs a handler because shells make background processes
    # ignore it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    server = DataZoneServer(arguments.host, arguments.port)
    try:
        try:
            # Requests of other processes would change the identifiers of the seed.
            with DataZoneServer() as seeding:
                seed = _create_assets(seeding) if arguments.seed else None
                server.start()
        except (OSError, OverflowError) as error:
            print(f"Cannot listen on {arguments.host}:{arguments.port}: {error}", file=sys.stderr)
            return 1
        _print_instructions(server, seed)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
    return 0


def _print_instructions(server: DataZoneServer, seed: Seed | None) -> None:
    connection = json.loads(server.connection)
    print(f"Amazon DataZone (local) at {server.endpoint_url}. Press Ctrl-C to stop it.")
    list_command = "list-domains"
    outcome: dict[str, object] = {"statuses": {"BUSINESS_NAMES": "FAILED"}}
    if seed is not None:
        domain, project, assets = seed
        connection["extra"] |= {"domain_identifier": domain, "owning_project_identifier": project}
        list_command = f"search --domain-identifier {domain} --search-scope ASSET"
        outcome = {"asset_identifier": assets["orders"], **outcome}
        print(f"\nDomain:  {domain}\nProject: {project}\nAssets:")
        for name, identifier in assets.items():
            print(f"  {identifier}  {name}")
    print(f"\nConnect Airflow:\nexport AIRFLOW_CONN_DATAZONE_DEFAULT={shlex.quote(json.dumps(connection))}")
    print("\nConnect the AWS CLI:")
    print(
        "AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing "
        f"aws datazone {list_command} --region us-east-1 --endpoint-url {server.endpoint_url}"
    )
    fault = {"operation": "StartMetadataGenerationRun", "error": "AccessDeniedException"}
    for heading, control, body in (
        ("Set the outcome of the next run", "set_run_outcome", outcome),
        ("Make an operation fail once", "fail", fault),
        ("End all failures", "recover", {}),
    ):
        data = shlex.quote(json.dumps(body))
        print(f"\n{heading}:\ncurl {server.endpoint_url}{CONTROL_PATH}{control} -d {data}")
    print(f"\nAll controls, each with a JSON object: {', '.join(CONTROLS)}")
    sys.stdout.flush()


def _create_assets(server: DataZoneServer) -> Seed:
    """Create a domain, a project and assets with the same identifiers in every server."""
    client = server.client()
    try:
        mock_random.seed("domain")
        role = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/DataZoneDomainExecution"
        domain = client.create_domain(name="local", domainExecutionRole=role)["id"]
        mock_random.seed("project")
        project = client.create_project(domainIdentifier=domain, name="local")["id"]
        assets = {}
        for name, columns in ASSETS.items():
            mock_random.seed(name)
            assets[name] = server.create_asset(
                name, domain_identifier=domain, project_identifier=project, columns=columns
            ).asset_identifier
    finally:
        # Airflow may have stored run identifiers of earlier servers, so new ones must differ.
        mock_random.seed()
    return domain, project, assets


if __name__ == "__main__":
    sys.exit(main())
