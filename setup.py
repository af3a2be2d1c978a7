"""Adds to setup.cfg the two requirements that only exist in this tree.

pymesos asks for `http-parser` and katsdptelstate for `python-lzf`, which are to be had as C source only (and
the former does not compile on Python 3.11 or later). ``compat/`` has small local distributions of the same
names. A direct reference makes pip take those, so that a plain ``pip install .`` needs no compiler; it has to
be an absolute URL, which is why it is computed. For wheels that travel to other machines, set
``SDP_PLAIN_REQUIREMENTS=1`` and ship the wheels of ``compat/*`` beside them.
"""

import os
from pathlib import Path

from setuptools import setup
from setuptools.config.setupcfg import read_configuration

COMPAT = Path(__file__).resolve().parent / "compat"


def local(name: str) -> str:
    """Return the requirement for one of the local distributions."""
    if os.environ.get("SDP_PLAIN_REQUIREMENTS"):
        return name
    return f"{name} @ {(COMPAT / name).as_uri()}"


options = read_configuration(COMPAT.parent / "setup.cfg")["options"]
extras = {name: list(needs) for name, needs in options["extras_require"].items()}
setup(
    install_requires=[*options["install_requires"], local("http-parser")],
    extras_require=extras | {"pipelines": [*extras["pipelines"], local("python-lzf")]},
)
