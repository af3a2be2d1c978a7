"""Exceptions of agent set-up.

::

    AgentSetupError
    └── DiscoveryError     the machine cannot be described: a tool is missing, facts are malformed or disagree
"""

from __future__ import annotations


class AgentSetupError(Exception):
    """Root of everything that agent set-up raises on purpose."""


class DiscoveryError(AgentSetupError):
    """The machine cannot be described: a tool is missing, facts are malformed or disagree."""


class ImageError(AgentSetupError):
    """An image cannot be made."""
