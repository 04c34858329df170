"""
Validate arguments and convert them to plain values, before a request is sent or a client token is made.

Airflow passes the output of a mapped task as a lazy sequence whose ``repr`` changes while it is read, and
native rendering turns the revision ``"7"`` into an integer. A template that renders to an empty string counts
as an argument that was not passed.
"""

from __future__ import annotations

import math
import os
import threading
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Set as AbstractSet
from decimal import Decimal
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from jinja2 import Undefined
from jinja2.exceptions import UndefinedError

from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.metadata_generation import sanitize
from airflow_provider_datazone.service_errors import UNEXPECTED_TYPE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import XComArg

    # A templated parameter accepts a value, a template, or the output of another task.
    TemplatedText = str | XComArg
    TemplatedTypes = Sequence[str | XComArg] | XComArg
    TemplatedChoices = Sequence[Mapping[str, Any] | XComArg] | str | XComArg
    TemplatedAssets = Iterable[str | Mapping[str, str | XComArg | None] | XComArg] | XComArg

DEFAULT_CONNECTION = "aws_default"
# The value of `signature_version` for unsigned requests in a connection's extra, and in JSON.
_UNSIGNED = "unsigned"
_AWS_PARAMETERS = frozenset({"aws_conn_id", "region_name", "verify"})
_FLAGS = ("allow_partial_success", "cancel_on_kill", "deferrable", "publish", "wait_for_completion")


def to_text(name: str, value: Any) -> str | None:
    """
    Return an identifier, a revision or another short string, ``None`` if it is blank.

    :param name: The parameter, for the error message.
    :param value: A string, or an integer, since native rendering turns ``"7"`` into one.
    :raises ValueError: It is neither, or an identifier that begins or ends with whitespace.
    """
    value = _defined(name, value)
    if isinstance(value, str):
        text = _as_str(value)
        if not text.strip():
            return None
        if name.endswith("identifier") or name == "aws_conn_id":
            _check_ends(name, text)
        return text
    if isinstance(value, Integral) and not isinstance(value, bool):
        return _digits(name, int(value))
    if value is not None:
        raise NotConfiguredError(f"{name} must be a string, got {_shown(value)}.")
    return None


def _check_ends(name: str, identifier: str) -> None:
    """
    Reject an identifier that begins or ends with whitespace or another invisible character.

    No identifier of DataZone does. DataZone would answer "not found", and only the quotes would show why.
    """
    ends = (("begin", identifier[0]), ("end", identifier[-1]))
    for how, character in ends:
        # Whitespace, control characters, and characters without a width.
        if character.isspace() or unicodedata.category(character) in ("Cc", "Cf"):
            what = "a space" if character == " " else f"the character {sanitize(repr(character))}"
            raise NotConfiguredError(f"{name} must not {how} with {what}, got {_shown(identifier)}.")


def is_rendered_list(value: Any) -> bool:
    """Whether an item is a string such as ``"['a']"``, to which a template inside a list may render."""
    return isinstance(value, str) and value.lstrip()[:1] in ("[", "{")


def native_advice(value: Any) -> str:
    """Return advice for a template that rendered to a string instead of a list, with a leading space."""
    if not isinstance(value, str):
        return ""
    return " For a template, set render_template_as_native_obj=True on the DAG."


def require_text(name: str, value: Any) -> str:
    """
    Return a required identifier.

    :param name: The parameter, for the error message.
    :param value: As for :func:`to_text`.
    :raises ValueError: It is blank, or not a string.
    """
    text = to_text(name, value)
    if text is None:
        raise NotConfiguredError(
            f"{name} is required, and must not be blank. Did its template render to an empty string or None?"
        )
    return text


def to_plain(name: str, value: Any) -> Any:
    """
    Return a value that consists of lists, dicts, strings, numbers, booleans and ``None`` only.

    :param name: The parameter, for the error message, which omits the value because it may be sensitive.
    :param value: A JSON value, or sequences and mappings of such; a lazy sequence is read.
    :return: The value, ``None`` for a blank string.
    :raises ValueError: It contains something that JSON cannot represent.
    """
    try:
        plain = _plain(name, value)
    except RecursionError:
        raise NotConfiguredError(f"{name} is nested too deeply.") from None
    return None if isinstance(plain, str) and not plain.strip() else plain


def to_number(name: str, value: Any) -> float | None:
    """
    Return a number, or ``None``.

    :param name: The parameter, for the error message.
    :param value: A real number of any type, or ``None``.
    :raises ValueError: It is not a number, or not finite.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        raise NotConfiguredError(f"{name} must be a number, got {_shown(value)}.")
    return _number(name, value)


def to_flag(name: str, value: Any) -> bool:
    """
    Return a boolean.

    :param name: The parameter, for the error message.
    :param value: A boolean, 0 or 1. A string is rejected, since ``"False"`` would count as true.
    :raises ValueError: It is something else.
    """
    if isinstance(value, Integral) and value in (0, 1):
        return bool(value)
    raise NotConfiguredError(f"{name} must be True or False, got {_shown(value)}.")


def to_connection_id(value: Any) -> str | None:
    """
    Return the ID of the connection to use.

    :param value: ``None`` selects boto3's own credential chain. A blank string selects the default
        connection: the template of an unset variable renders to one, and is not a request for the machine's
        identity.
    :raises ValueError: It is not a string.
    """
    return None if value is None else to_text("aws_conn_id", value) or DEFAULT_CONNECTION


def to_verify(value: Any) -> bool | str | None:
    """
    Return whether to verify TLS certificates, or the path of a CA bundle.

    :param value: A boolean, a path, or ``"True"`` or ``"False"`` in any case, as a template renders them. A
        blank string is ``None``, the default: several botocore versions would treat it as ``False``.
    :raises ValueError: It is something else.
    """
    value = _defined("verify", value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise NotConfiguredError(
            f"verify must be True, False or the path of a CA bundle, got {_shown(value)}."
        )
    word = value.strip().lower()
    if word in ("true", "false"):
        return word == "true"
    return _as_str(value) if word else None


def to_botocore_options(config: Any) -> dict[str, Any] | None:
    """
    Return a botocore configuration as a JSON dict, since Airflow stores a trigger's arguments as JSON.

    :param config: Options for ``botocore.config.Config``, or such an object.
    :raises ValueError: It is neither, or an option cannot be represented in JSON.
    """
    if config is None:
        return None
    # botocore has no public attribute for the options of a Config object.
    options = getattr(config, "_user_provided_options", config)
    if not isinstance(options, Mapping):
        raise NotConfiguredError(
            # Without the value, which may contain a proxy's password.
            "botocore_config must be a dict of options for botocore.config.Config, got a "
            f"{type(config).__name__}."
        )
    options = {name: _UNSIGNED if value is UNSIGNED else value for name, value in options.items()}
    plain: dict[str, Any] = _plain("botocore_config", options)
    return plain


def to_botocore_config(config: Any) -> Config | None:
    """
    Return a botocore configuration.

    :param config: Options for ``botocore.config.Config``, such an object, or ``None``.
    :raises ValueError: It is neither, or has an invalid option.
    """
    if config is None or isinstance(config, Config):
        return config
    arguments = dict(to_botocore_options(config) or {})
    if arguments.get("signature_version") == _UNSIGNED:
        arguments["signature_version"] = UNSIGNED
    try:
        return Config(**arguments)
    except (BotoCoreError, *UNEXPECTED_TYPE_ERRORS) as error:
        description = sanitize(f"{type(error).__name__}: {error}")
        raise NotConfiguredError(f"botocore_config cannot be used: {description}") from None


def validate_types(types: Sequence[str]) -> list[str]:
    """
    Return run types as a list.

    :param types: The ``types`` argument: a sequence of strings, which may be lazy.
    :raises ValueError: It is empty, or not a list of strings: for example, its template rendered to a string.
    """
    listed = to_plain("types", types)
    if not isinstance(listed, list):
        # A string would be read as one type per character.
        raise NotConfiguredError(
            f"types must be a list of run types, got {sanitize(repr(listed))}.{native_advice(listed)}"
        )
    if rendered := [item for item in listed if is_rendered_list(item)]:
        raise NotConfiguredError(
            f"types must be a list of run types, got the item {sanitize(repr(rendered[0]))}."
            f"{native_advice(rendered[0])}"
        )
    if not listed:
        raise NotConfiguredError("types must name at least one run type, got an empty list.")
    if not all(isinstance(run_type, str) for run_type in listed):
        raise NotConfiguredError(f"types must be a list of strings, got {sanitize(repr(listed))}.")
    return listed


def validate_interval(name: str, seconds: Any) -> float:
    """
    Return the seconds between two polls.

    :param name: The parameter, for the error message.
    :param seconds: The number, above 0: a wait without a pause would poll as fast as it can.
    :raises ValueError: It is not a number above 0.
    """
    number = validate_seconds(name, seconds)
    if number <= 0:
        raise NotConfiguredError(f"{name} must be above 0 seconds, got {seconds!r}.")
    return number


def validate_seconds(name: str, seconds: Any) -> float:
    """
    Return a number of seconds that a timer can wait.

    :param name: The parameter, for the error message.
    :param seconds: The number.
    :raises ValueError: It is not a number, is negative, or is too large for a timer.
    """
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    # Timers accept neither more seconds nor NaN.
    if not is_number or not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise NotConfiguredError(f"{name} must be a number of seconds, got {sanitize(repr(seconds))}.")
    return float(seconds)


class PlainInputs:
    """Mixin that converts the arguments of operators and sensors; it precedes the base class."""

    template_fields: Sequence[str]
    aws_conn_id: Any
    region_name: Any
    verify: Any
    botocore_config: Any

    @property
    def _hook_parameters(self) -> dict[str, Any]:
        return {
            "aws_conn_id": to_connection_id(self.aws_conn_id),
            "region_name": to_text("region_name", self.region_name),
            "verify": to_verify(self.verify),
            "config": to_botocore_options(self.botocore_config),
        }

    def _do_render_template_fields(self, *args: Any, **kwargs: Any) -> None:
        is_named = self.aws_conn_id is not None
        super()._do_render_template_fields(*args, **kwargs)  # type: ignore[misc]
        if is_named and self.aws_conn_id is None:
            # A template that rendered to None is not a request for the machine's identity.
            self.aws_conn_id = ""

    def _resolve_inputs(self) -> None:
        """
        Convert the arguments. A task calls this before it uses them.

        :raises ValueError: An argument is invalid.
        """
        # A subclass of a user may have more fields.
        names = dict.fromkeys(
            name
            for cls in type(self).__mro__
            if cls.__module__.startswith(f"{__package__}.")
            for name in vars(cls).get("template_fields", ())
        )
        for name in names:
            # The assets of a batch are converted one by one, so that an error can name the item.
            if name not in _AWS_PARAMETERS and name != "asset_identifiers":
                convert: Callable[[str, Any], Any] = to_plain if name in ("choices", "types") else to_text
                setattr(self, name, convert(name, getattr(self, name)))
        for name in _FLAGS:
            if hasattr(self, name):
                setattr(self, name, to_flag(name, getattr(self, name)))


def _plain(name: str, value: Any) -> Any:
    value = _defined(name, value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _as_str(value)
    if isinstance(value, (Real, Decimal)):
        return _number(name, value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise NotConfiguredError(f"{name} has a key that is not a string.")
        return {_as_str(key): _plain(name, item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, memoryview)):
        items = [_plain(name, item) for item in value]
        # The order of a set differs between processes, and a retry must send the same request.
        return sorted(items, key=repr) if isinstance(value, AbstractSet) else items
    raise NotConfiguredError(
        f"{name} must consist of lists, dicts, strings and numbers, got a {type(value).__name__}."
    )


def _defined(name: str, value: Any) -> Any:
    """Return the value, ``None`` for an undefined variable of a native template."""
    if isinstance(value, Undefined):
        try:
            return str(value) or None
        except UndefinedError as error:
            raise NotConfiguredError(f"{name} cannot be rendered: {sanitize(str(error))}") from None
    return value


def _as_str(value: str) -> str:
    # A plain str, also for a subclass such as a str Enum, which would be serialized as something else.
    return str.__str__(value)


def _digits(name: str, number: int) -> str:
    try:
        return str(number)
    except ValueError:
        raise NotConfiguredError(f"{name} must be a string, got a number with too many digits.") from None


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (OverflowError, ValueError):
        raise NotConfiguredError(f"{name} has a number that is too large, or is not a number.") from None
    if not math.isfinite(number):
        raise NotConfiguredError(f"{name} has a number that is not finite: {number}.")
    return int(value) if isinstance(value, Integral) else number


def _shown(value: Any) -> str:
    return sanitize(repr(value), length=200)
