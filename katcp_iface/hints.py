"""How long clients ought to wait for the replies to requests, as KATCP 5.1 has it.

The request is ``?request-timeout-hint``, and the flag ``T`` of the protocol, which is told to each client as it
connects, says that it is there: clients that know it (katcp-python's, which MeerKAT's control system uses) then
ask for all hints at once, and again when the interface changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sdpcontroller.control import (
    CaptureDone,
    CaptureInit,
    Command,
    ConfigureProduct,
    ControlPlane,
    DeconfigureProduct,
    LookUpImage,
    ReconfigureProduct,
    RestartTask,
    SetTransmission,
    ShutDown,
)

NO_HINT: Final = 0.0
"""What the protocol has for a request that is answered soon."""
COMMANDS: Final[Mapping[str, type[Command[Any]]]] = {
    "capture-done": CaptureDone,
    "capture-init": CaptureInit,
    "capture-start": SetTransmission,
    "capture-stop": SetTransmission,
    "image-lookup": LookUpImage,
    "product-configure": ConfigureProduct,
    "product-deconfigure": DeconfigureProduct,
    "product-reconfigure": ReconfigureProduct,
    "sdp-shutdown": ShutDown,
    "task-restart": RestartTask,
}
"""What is done by the requests that may take long."""


def hints(control: ControlPlane) -> dict[str, float]:
    """Return the hints, in seconds, of the requests that have one, in the order of their names."""
    limits = control.limits()
    return {name: limits[command] for name, command in COMMANDS.items() if command in limits}
