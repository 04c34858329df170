"""The Airflow connection: AWS identity, Region, default domain and project, and its test."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from airflow_provider_datazone.advice import connection_advice, permission_advice
from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.get_provider_info import CONNECTION_TYPE
from airflow_provider_datazone.inputs import (
    to_botocore_config,
    to_connection_id,
    to_text,
    to_verify,
)
from airflow_provider_datazone.metadata_generation import sanitize
from airflow_provider_datazone.metrics import count_response
from airflow_provider_datazone.redaction import (
    connection_secrets,
    longest_first,
    proxy_secrets,
    redact,
    remove_headers,
)
from airflow_provider_datazone.service_errors import UNEXPECTED_TYPE_ERRORS, is_denied_role, is_permanent

if TYPE_CHECKING:
    from typing_extensions import Self


class DataZoneConnectionHook(AwsBaseHook):
    """
    The base of ``DataZoneHook``: it reads a connection of type ``aws`` or ``awsdatazone`` and builds clients.

    Unlike ``AwsBaseHook`` it fails when a named connection does not exist or cannot be read, so that no task
    runs with another identity.

    :param aws_conn_id: The Airflow connection. ``DataZoneHook`` documents all parameters in detail.
    :param region_name: AWS Region.
    :param verify: Whether to verify TLS certificates, or the path of a CA bundle.
    :param config: Configuration of the botocore client.
    :raises ValueError: A parameter is invalid.
    """

    conn_type = CONNECTION_TYPE
    hook_name = "Amazon DataZone"

    def __init__(
        self,
        aws_conn_id: str | None = "aws_default",
        *,
        region_name: str | None = None,
        verify: bool | str | None = None,
        config: Config | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            aws_conn_id=to_connection_id(aws_conn_id),
            region_name=to_text("region_name", region_name),
            verify=to_verify(verify),
            config=to_botocore_config(config),
            client_type="datazone",
        )

    # ------------------------------------------------- default domain and project

    def resolve_domain_identifier(self, domain_identifier: str | None = None) -> str:
        """
        Return the argument, or the connection's default domain.

        :param domain_identifier: The caller's argument.
        :raises ValueError: There is neither.
        """
        return self._resolve("domain_identifier", domain_identifier)

    def resolve_owning_project_identifier(self, owning_project_identifier: str | None = None) -> str:
        """
        Return the argument, or the connection's default project.

        :param owning_project_identifier: The caller's argument.
        :raises ValueError: There is neither.
        """
        return self._resolve("owning_project_identifier", owning_project_identifier)

    def _resolve(self, name: str, argument: str | None) -> str:
        try:
            value = to_text(name, argument) or self._connection_default(name)
        except NotConfiguredError as error:
            raise NotConfiguredError(
                f"{str(error).rstrip('.')}, in the argument or in the extra of the connection "
                f"(aws_conn_id={self.aws_conn_id!r})."
            ) from None
        if value is not None:
            return value
        key = f"{name!r}"
        if self.conn_config.conn_type != CONNECTION_TYPE:
            key += " under 'service_config.datazone'"
        raise NotConfiguredError(
            f"{name} is required: pass it to the task, or set {key} in the extra of the connection "
            f"(aws_conn_id={self.aws_conn_id!r})."
        )

    def _connection_default(self, name: str) -> str | None:
        places: list[dict[str, str]] = [self.service_config]
        if self.conn_config.conn_type == CONNECTION_TYPE:
            places.insert(0, self.conn_config.extra_config)
        found = (to_text(name, place.get(name)) for place in places)
        return next((value for value in found if value is not None), None)

    # ------------------------------------------------------- the connection itself

    @cached_property
    def conn_config(self) -> AwsConnectionWrapper:
        """
        The Airflow connection in the Amazon provider's wrapper (cached).

        :raises AirflowNotFoundException: The connection is named and does not exist.
        :raises ValueError: It cannot be used, for example because its extra is not a JSON object.
        """
        connection = self._find_connection()
        extra = {} if connection is None else self._parse_extra(connection)
        try:
            config = self._wrap(connection, extra)
            if config.service_config in ("", None):
                config.service_config = {}
            if not all(isinstance(service, dict) for service in config.service_config.values()):
                raise ValueError("'service_config' must have an object for each service")
            # Empty settings of an `aws` connection must not hide a default. An empty `verify` would turn
            # verification off in some versions of botocore.
            config.verify = to_verify(config.verify)
            if isinstance(config.region_name, str):
                config.region_name = to_text("region_name", config.region_name)
            config.profile_name = config.profile_name or None
            config.endpoint_url = config.endpoint_url or None
            if config.botocore_config is not None:
                config.botocore_config = _with_certificate_pairs(config.botocore_config)
            config.service_config = {
                name: {key: value for key, value in service.items() if value not in ("", None)}
                for name, service in config.service_config.items()
            }
        except (BotoCoreError, *UNEXPECTED_TYPE_ERRORS) as error:
            secrets = connection_secrets(connection and connection.password, extra)
            description = sanitize(redact(secrets, f"{type(error).__name__}: {error}"))
            # Without its cause, which repeats values of the connection.
            raise NotConfiguredError(
                f"The connection {self.aws_conn_id!r} cannot be used: {description}"
            ) from None
        return config

    def _wrap(self, connection: Any, extra: dict[str, Any]) -> AwsConnectionWrapper:
        if connection is not None and connection.conn_type == CONNECTION_TYPE:
            # The wrapper warns about connection types other than `aws`. The form stores empty fields as empty
            # strings, which must not hide a default.
            extra = {key: value for key, value in extra.items() if value not in ("", None)}
            connection = AwsConnectionWrapper.from_connection_metadata(
                conn_id=connection.conn_id, login=connection.login, password=connection.password, extra=extra
            )
            connection.conn_type = CONNECTION_TYPE
        return AwsConnectionWrapper(
            conn=connection, region_name=self._region_name, botocore_config=self._config, verify=self._verify
        )

    def _find_connection(self) -> Any:
        if not self.aws_conn_id:
            return None
        try:
            return self.get_connection(self.aws_conn_id)
        except (AirflowNotFoundException, ImportError) as error:
            # Airflow 3.0 raises ImportError outside of a running task, after it has looked in the
            # environment.
            if isinstance(error, ImportError) and "SUPERVISOR_COMMS" not in str(error):
                raise
            # The Amazon provider would use the machine's credentials: a task under a wrong identity. Only the
            # default connection may be missing.
            if self.aws_conn_id != self.default_conn_name:
                raise AirflowNotFoundException(
                    f"The connection {self.aws_conn_id!r} is not defined. Check the spelling of aws_conn_id, "
                    "define the connection, or pass aws_conn_id=None to use boto3's own credential chain."
                ) from None
            self.log.warning(
                "Connection %r is not defined: using boto3's own credential chain.", self.aws_conn_id
            )
            return None

    def _parse_extra(self, connection: Any) -> dict[str, Any]:
        """Parse the extra. Airflow itself ignores an extra that is not JSON, with the role or keys in it."""
        try:
            extra = json.loads(connection.extra) if connection.extra else {}
            if isinstance(extra, dict):
                return extra
            problem = f"it is a {type(extra).__name__}"
        except (ValueError, RecursionError) as error:
            problem = str(error)
        raise NotConfiguredError(
            f"The extra of connection {self.aws_conn_id!r} must be a JSON object: {problem}"
        )

    # ------------------------------------------------------------------- clients

    # The session of the client, if it was opened before.
    _session: Any = None

    def open_session(self) -> None:
        """
        Open the session of the client, and look up its credentials.

        Assuming a role, querying the instance metadata and running a credential process may take as long as
        a time-out.
        """
        self._session = session = super().get_session(region_name=self.region_name)
        credentials = session.get_credentials()
        if credentials is not None:
            credentials.get_frozen_credentials()

    def get_session(self, region_name: str | None = None, deferrable: bool = False) -> Any:
        """Return the session that was opened, or a new one."""
        if self._session is not None and region_name == self.region_name and not deferrable:
            return self._session
        return super().get_session(region_name, deferrable)

    def get_client_type(self, *args: Any, **kwargs: Any) -> Any:
        """
        Return a client as the Amazon provider does, after a check of the certificate files it uses.

        :raises ValueError: A file cannot be read. Requests would fail every time, some with an error that
            looks transient.
        """
        _check_certificates(self.verify, self.config)
        client = super().get_client_type(*args, **kwargs)
        # A session holds the endpoints of all AWS services, which take more memory than the client.
        self._session = None
        # With aiobotocore, it is a context manager that returns the client.
        if hasattr(client, "meta"):
            client.meta.events.register("response-received.datazone", count_response)
        return client

    @property
    def secrets(self) -> list[str]:
        """The secrets that an error may repeat: of the connection and of proxies, the longest first."""
        return longest_first(
            {
                *connection_secrets(self.conn_config.password, self.conn_config.extra_config),
                *proxy_secrets([*(self.config.proxies or {}).values(), *getproxies().values()]),
            }
        )

    def _redacted(self, message: str) -> str:
        # Without the connection, since the test may have failed to read it.
        secrets = self.secrets if "conn_config" in self.__dict__ else []
        return sanitize(redact(secrets, remove_headers(message)))

    def for_polling(self, max_connections: int) -> Self:
        """
        Return a hook on the same connection, without another lookup, for a caller that retries requests
        itself.

        Its client sends each request once, so that the caller's rate holds, and with short time-outs, so that
        a thread is soon free again. Time-outs of the connection or of ``config`` take precedence.

        :param max_connections: The number of threads that send requests.
        """
        hook = type(self)(
            self.aws_conn_id, region_name=self._region_name, verify=self._verify, config=self._config
        )
        defaults = Config(connect_timeout=10, read_timeout=30, max_pool_connections=max_connections)
        hook.conn_config = AwsConnectionWrapper(
            conn=self.conn_config,
            botocore_config=defaults.merge(self.config).merge(Config(retries={"total_max_attempts": 1})),
        )
        return hook

    def close(self) -> None:
        """Close the client, if there is one."""
        if "conn" in self.__dict__:
            self.conn.close()

    @property
    def known_region(self) -> str | None:
        """The client's Region, or the configured one without a client: building it may be what failed."""
        region: str | None = self.conn_region_name if "conn" in self.__dict__ else self.region_name
        return region

    # ----------------------------------------------------------------------- test

    def test_connection(self) -> tuple[bool, str]:
        """
        Test the connection: read its default domain if it has one, else call STS for the identity.

        .. seealso::
            https://docs.aws.amazon.com/datazone/latest/APIReference/API_GetDomain.html
        """
        try:
            domain_identifier = self._connection_default("domain_identifier")
            if not domain_identifier:
                passed, message = super().test_connection()
                return passed, self._redacted(message)
            domain = self.conn.get_domain(identifier=domain_identifier)
        except NotConfiguredError as error:
            return False, sanitize(remove_headers(str(error)))
        except Exception as error:
            # Without the connection's ID: Airflow makes one up for the test.
            message = self._redacted(str(error)).rstrip(".")
            return False, " ".join([f"{message}.", *self._test_advice(error)])
        name = f"{domain['name']!r} " if domain.get("name") else ""
        return True, sanitize(
            f"Domain {name}({domain_identifier}) is {domain.get('status', 'there')}. "
            "This proves datazone:GetDomain alone: tasks need other permissions, too."
        )

    def _test_advice(self, error: Exception) -> Iterator[str]:
        yield from connection_advice(error)
        if is_permanent(error) and not is_denied_role(error):
            domain = self._connection_default("domain_identifier")
            yield f"Check the domain {domain!r} and the AWS Region {self.known_region!r}."
        yield from permission_advice(error)


def _check_certificates(verify: bool | str | None, config: Any) -> None:
    """
    Read the certificate files that a client uses.

    :param verify: The hook's ``verify``.
    :param config: The client's botocore configuration.
    :raises ValueError: A file cannot be read.
    """
    proxy = getattr(config, "proxies_config", None) or {}
    bundles = {"verify": verify, "proxy_ca_bundle in botocore_config": proxy.get("proxy_ca_bundle")}
    files = {
        "client_cert in botocore_config": getattr(config, "client_cert", None),
        "proxy_client_cert in botocore_config": proxy.get("proxy_client_cert"),
    }
    try:
        for name, path in bundles.items():  # noqa: B007
            if isinstance(path, str):
                # As botocore does it: a directory is not accepted.
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
        for name, paths in files.items():  # noqa: B007
            for path in [paths] if isinstance(paths, str) else paths or ():
                with Path(path).open("rb"):
                    pass
    except (OSError, ValueError) as error:
        raise NotConfiguredError(
            f"{name} must be the path of a file with certificates in PEM format, got "
            f"{sanitize(repr(path), length=200)}: {sanitize(str(error))}"
        ) from None


def _with_certificate_pairs(config: Config) -> Config:
    """
    Return a configuration in which a pair of certificate and key is a tuple.

    JSON has only lists, and botocore ignores a list, so that it would send no certificate.
    """
    proxies_config = getattr(config, "proxies_config", None)
    pairs: dict[str, Any] = {}
    if isinstance(config.client_cert, list):
        pairs["client_cert"] = tuple(config.client_cert)
    if isinstance(proxies_config, dict) and isinstance(proxies_config.get("proxy_client_cert"), list):
        pairs["proxies_config"] = {
            **proxies_config,
            "proxy_client_cert": tuple(proxies_config["proxy_client_cert"]),
        }
    return config.merge(Config(**pairs)) if pairs else config
