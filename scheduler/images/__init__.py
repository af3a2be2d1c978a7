"""From the name of a container image to what exactly it means today: its digest, and its labels.

``sdp-docker-registry:5000/katsdpcal:latest`` is another image tomorrow. A graph is launched with the digests
that its images had when it was configured, so that all its tasks, restarts included, run the same.
"""

from __future__ import annotations

from scheduler.images.credentials import Credentials, read_credentials
from scheduler.images.engine import EngineImages
from scheduler.images.names import ImageName
from scheduler.images.pin import pinned
from scheduler.images.registry import RegistryImages
from scheduler.images.resolver import CachedImages, ImageResolver, ResolvedImage

__all__ = [
    "CachedImages",
    "Credentials",
    "EngineImages",
    "ImageName",
    "ImageResolver",
    "RegistryImages",
    "ResolvedImage",
    "pinned",
    "read_credentials",
]
