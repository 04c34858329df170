"""
Convert what users, templates and upstream tasks pass to plain values, before anything is sent or hashed.

Airflow passes the output of a mapped task as a lazy sequence whose ``repr`` changes while it is read, native
rendering makes an integer of a revision, and a template may render to nothing. A value that renders to
nothing counts as not passed.
"""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Set as AbstractSet
from decimal import Decimal
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from botocore import UNSIGNED
from jinja2 import Undefined
from jinja2.exceptions import UndefinedError

from airflow_provider_datazone.exceptions import NotConfiguredError
from airflow_provider_datazone.metadata_generation import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import XComArg

    # What a templated parameter takes: a value, a template, or the output of another task.
    TemplatedText = str | XComArg
    TemplatedTypes = Sequence[str | XComArg] | XComArg
    TemplatedChoices = Sequence[Mapping[str, Any] | XComArg] | str | XComArg
    TemplatedAssets = Iterable[str | Mapping[str, str | XComArg | None] | XComArg] | XComArg

DEFAULT_CONNECTION = "aws_default"
# How a connection's extra, and a `botocore_config` in JSON, name requests without a signature.
_UNSIGNED = "unsigned"
_AWS_PARAMETERS = frozenset({"aws_conn_id", "region_name", "verify"})
_FLAGS = ("allow_partial_success", "cancel_on_kill", "deferrable", "wait_for_completion")


def to_text(name: str, value: Any) -> str | None:
    """
    Return an identifier, a revision or another short text, ``None`` if there is nothing in it.

    :param name: The parameter, for the error.
    :param value: A string, or an integer: native rendering makes one of ``"7"``.
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
        raise NotConfiguredError(f"{name} must be a text, got {_shown(value)}.")
    return None


def _check_ends(name: str, identifier: str) -> None:
    """
    Refuse an identifier that begins or ends with what cannot be seen: no identifier of DataZone has it there.

    DataZone would answer that it does not know the identifier, and only the quotes would show why.
    """
    ends = (("begin", identifier[0]), ("end", identifier[-1]))
    for how, character in ends:
        # Whitespace, control characters, and such as have no width.
        if character.isspace() or unicodedata.category(character) in ("Cc", "Cf"):
            what = "a space" if character == " " else f"the character {one_line(repr(character))}"
            raise NotConfiguredError(f"{name} must not {how} with {what}, got {_shown(identifier)}.")


def is_rendered_list(value: Any) -> bool:
    """Whether an item is a list or a dict as text, which is what a template in a list renders to."""
    return isinstance(value, str) and value.lstrip()[:1] in ("[", "{")


def native_advice(value: Any) -> str:
    """Return a sentence, with a space before it, on how a template renders to something else than a text."""
    if not isinstance(value, str):
        return ""
    return " For a template, set render_template_as_native_obj=True on the DAG."


def require_text(name: str, value: Any) -> str:
    """
    Return an identifier that a request cannot do without.

    :param name: The parameter, for the error.
    :param value: As for :func:`to_text`.
    :raises ValueError: There is nothing in it, or it is not a text.
    """
    text = to_text(name, value)
    if text is None:
        raise NotConfiguredError(
            f"{name} is required, got {_shown(value)}. Did its template render to nothing?"
        )
    return text


def to_plain(name: str, value: Any) -> Any:
    """
    Return a value as lists, dicts, strings, numbers, booleans and ``None`` alone.

    :param name: The parameter, for the error, which does not show the value: it may be sensitive.
    :param value: JSON, or sequences and mappings that hold it; a lazy sequence is read.
    :return: The value, ``None`` for a text with nothing in it.
    :raises ValueError: Something in it cannot be sent as JSON.
    """
    try:
        plain = _plain(name, value)
    except RecursionError:
        raise NotConfiguredError(f"{name} is nested too deeply.") from None
    return None if isinstance(plain, str) and not plain.strip() else plain


def to_number(name: str, value: Any) -> float | None:
    """
    Return a number, ``None`` if there is none.

    :param name: The parameter, for the error.
    :param value: Any kind of real number.
    :raises ValueError: It is not a number, or not a finite one.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        raise NotConfiguredError(f"{name} must be a number, got {_shown(value)}.")
    return _number(name, value)


def to_flag(name: str, value: Any) -> bool:
    """
    Return a boolean.

    :param name: The parameter, for the error.
    :param value: A boolean, or 0 or 1. A text is refused: ``"False"`` would count as true.
    :raises ValueError: It is something else.
    """
    if isinstance(value, Integral) and value in (0, 1):
        return bool(value)
    raise NotConfiguredError(f"{name} must be True or False, got {_shown(value)}.")


def to_connection_id(value: Any) -> str | None:
    """
    Return the connection to use.

    :param value: ``None`` stands for boto3's own credential chain. A text with nothing in it, which is what a
        template of an unset variable renders to, stands for the default connection: the identity of the
        machine is only used where it was asked for.
    :raises ValueError: It is not a text.
    """
    return None if value is None else to_text("aws_conn_id", value) or DEFAULT_CONNECTION


def to_verify(value: Any) -> bool | str | None:
    """
    Return whether to verify TLS certificates, or the path of a CA bundle.

    :param value: ``True`` and ``False`` may also come as text, in any case, as a template renders them. A
        text with nothing in it is ``None``, the default: several botocore versions take it for ``False``.
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
    Return a botocore configuration as a dict that is JSON: a trigger is stored in Airflow's database.

    :param config: Options for ``botocore.config.Config``, or such an object.
    :raises ValueError: It is neither, or an option cannot be stored.
    """
    if config is None:
        return None
    # botocore has no public way back from the object to what it was made of.
    options = getattr(config, "_user_provided_options", config)
    if not isinstance(options, Mapping):
        raise NotConfiguredError(
            # Not the value, as a proxy's password may be in it.
            "botocore_config must be a dict of options for botocore.config.Config, got a "
            f"{type(config).__name__}."
        )
    options = {name: _UNSIGNED if value is UNSIGNED else value for name, value in options.items()}
    plain: dict[str, Any] = _plain("botocore_config", options)
    return plain


def to_config_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments for ``botocore.config.Config``, from :func:`to_botocore_options`."""
    arguments = dict(options)
    if arguments.get("signature_version") == _UNSIGNED:
        arguments["signature_version"] = UNSIGNED
    return arguments


class PlainInputs:
    """Mixin for operators and sensors, in front of their base class: their arguments become plain values."""

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
            # A template that rendered to None does not ask for the identity of the machine.
            self.aws_conn_id = ""

    def _resolve_inputs(self) -> None:
        """
        Convert the arguments; to be called before a task uses them.

        :raises ValueError: One of them cannot be used.
        """
        for name in self.template_fields:
            # The assets of a batch are converted one by one, so that an error can say which one it is.
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
            raise NotConfiguredError(f"{name} has a key that is not a text.")
        return {_as_str(key): _plain(name, item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, memoryview)):
        items = [_plain(name, item) for item in value]
        # The order of a set differs from process to process, and a retry must send what the first try sent.
        return sorted(items, key=repr) if isinstance(value, AbstractSet) else items
    raise NotConfiguredError(
        f"{name} must be made of lists, dicts, texts and numbers, and has a {type(value).__name__}."
    )


def _defined(name: str, value: Any) -> Any:
    """Return a value, ``None`` for a variable that a native template may leave undefined."""
    if isinstance(value, Undefined):
        try:
            return str(value) or None
        except UndefinedError as error:
            raise NotConfiguredError(f"{name} cannot be rendered: {one_line(str(error))}") from None
    return value


def _as_str(value: str) -> str:
    # Of a subclass, an Enum for example, which is stored as something else.
    return str.__str__(value)


def _digits(name: str, number: int) -> str:
    try:
        return str(number)
    except ValueError:
        raise NotConfiguredError(f"{name} must be a text, got a number with too many digits.") from None


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (OverflowError, ValueError):
        raise NotConfiguredError(f"{name} has a number that is too large, or is not a number.") from None
    if not math.isfinite(number):
        raise NotConfiguredError(f"{name} has a number that is not finite: {number}.")
    return int(value) if isinstance(value, Integral) else number


def _shown(value: Any) -> str:
    return one_line(repr(value), length=200)
