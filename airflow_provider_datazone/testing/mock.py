"""The local DataZone within the process: ``mock_datazone``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

from moto import mock_aws
from moto.core.config import DefaultConfig

from .controls import DataZoneControls

T = TypeVar("T", bound=Callable[..., Any])


class MockDataZone(DataZoneControls):
    """Moto's ``mock_aws`` including Amazon DataZone, as a context manager and a decorator."""

    def __init__(self, config: DefaultConfig | None = None) -> None:
        self._mock = mock_aws(config=config)

    def __enter__(self) -> MockDataZone:
        self.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()

    def __call__(self, function: T) -> T:
        """Decorate a function or a class."""
        decorated: Any = self._mock(function)
        return cast("T", decorated)

    def start(self) -> None:
        """Start the mock. Its backends are empty, unless another mock is active: they share one state."""
        self._mock.start()

    def stop(self) -> None:
        """Stop the mock and delete its state, unless another mock is active."""
        self._mock.stop()


@overload
def mock_datazone(function: T) -> T: ...


@overload
def mock_datazone(function: None = None, config: DefaultConfig | None = None) -> MockDataZone: ...


def mock_datazone(function: T | None = None, config: DefaultConfig | None = None) -> T | MockDataZone:
    """Moto's ``mock_aws`` including Amazon DataZone.

    Use it as a decorator of a function or class, with or without parentheses, or as a context manager that
    returns the :class:`DataZoneControls`. Requests of boto3 clients do not leave the process. As in moto, a
    mock within another mock, for example one of the whole session, shares its state and deletes nothing.

    :param function: the function or class to decorate
    :param config: moto's configuration
    """
    mock = MockDataZone(config)
    return mock if function is None else mock(function)
