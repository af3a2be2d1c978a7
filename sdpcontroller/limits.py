"""How long commands may take: what a façade tells clients that want to know when to give up.

A command ends by the limits of its steps. Their sums are given here, those of a failure included: whoever
gave up before would not be told why. Most commands take a thousandth of that. Not in the sums are a database
or a Mesos master that is away, a task whose agent does not answer (it is waited for until Mesos gives the
agent up), what a fresh machine has to compile first, another command of the same product that a forced
deconfigure waits for, and the delay that a configuration wants before its tasks end
(``config.shutdown_delay``): clients ask once, before there is a product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pipelines.catalogue import CaptureStage
from scheduler.images import registry
from scheduler.subscription import Timing
from sdpcontroller.control import (
    CaptureDone,
    CaptureInit,
    Command,
    ConfigureProduct,
    DeconfigureProduct,
    LookUpImage,
    ReconfigureProduct,
    RestartTask,
    SetTransmission,
    ShutDown,
)
from sdpcontroller.operations import POWER_OFF_TIMEOUT
from sdpcontroller.products.services import Timeouts
from sdpcontroller.workflows.plan import KILL_GRACE, LAUNCH_TIMEOUT

STARTING_STAGES: Final = 5
"""Tasks in a row, at most, of which each starts when the one before is ready: the graph's READY edges."""
ENDING_STAGES: Final = 4
"""Tasks in a row, at most, of which each is told to end when the one before is dead: its KILL edges."""


def limits(timeouts: Timeouts) -> Mapping[type[Command[Any]], float]:
    """Return the seconds after which a command has certainly been answered; of those that may take long.

    Parameters
    ----------
    timeouts
        How long products wait.
    """
    up = timeouts.fit + STARTING_STAGES * LAUNCH_TIMEOUT
    down = ENDING_STAGES * (KILL_GRACE + 2 * Timing().kill_interval)
    begin = len(CaptureStage) * timeouts.capture_init
    drain = len(CaptureStage) * timeouts.capture_done
    configure = registry.SECONDS + up + down
    deconfigure = drain + down
    return {
        ConfigureProduct: configure,
        DeconfigureProduct: deconfigure,
        ReconfigureProduct: down + configure,
        CaptureInit: begin + drain,
        CaptureDone: drain,
        SetTransmission: timeouts.capture_init,
        RestartTask: up + down + timeouts.capture_init + timeouts.ask,
        ShutDown: deconfigure + down + POWER_OFF_TIMEOUT,
        LookUpImage: registry.SECONDS,
    }
