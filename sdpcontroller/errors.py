"""Exceptions of the controller.

::

    ControllerError
    ├── ConfigError        a product configuration that is refused: path, value, rule
    ├── CommandError       a command that cannot be done now; has changed nothing or was undone
    └── StoreError         the configuration database cannot be used
        └── FencedError    another controller has taken over: this one may not write any more
"""

from __future__ import annotations


class ControllerError(Exception):
    """Root of everything that the controller raises on purpose; the message is for people."""


class ConfigError(ControllerError):
    """A product configuration that is refused."""


class CommandError(ControllerError):
    """A command that cannot be done now."""


class StoreError(ControllerError):
    """The configuration database cannot be used."""


class FencedError(StoreError):
    """Another controller has taken over."""
