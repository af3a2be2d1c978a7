"""The parts of a product configuration that are not streams: ``config`` and ``simulation``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag

from sdpcontroller.config.fields import Flag, Model, Name, NonNegative, Positive, Text
from sdpcontroller.config.sky import parse_source, parse_target

TaskName = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
Image = Annotated[Text, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./:@-]*$")]


def _check_source(description: str) -> str:
    parse_source(description)
    return description


def _check_target(description: str) -> str:
    parse_target(description)
    return description


class Develop(Model):
    """Ways to run on machines that are not those of the observatory."""

    any_gpu: Flag = Field(
        False, description="Whether any GPU will do; kept, not used here: no program asks for one."
    )
    disable_ibverbs: Flag = Field(
        False,
        description="Whether the kernel's network stack is used instead of ibverbs; the programs of this "
        "project always use it.",
    )
    less_resources: Flag = Field(
        False, description="Whether requests are cut to what a small test machine has."
    )
    data_timeout: NonNegative = Field(
        0.0,
        description="Of MeerKAT: how long a program's input may be silent [s]; kept, not used here.",
    )
    vlbi_recorder_protocol: Literal["udps", "udpsnor"] = Field(
        "udps", description="Of MeerKAT's VLBI recorder; kept, not used here."
    )


def _develop_kind(value: Any) -> str:
    return "options" if isinstance(value, Mapping | Develop) else "flag"


DevelopOption: TypeAlias = Annotated[
    Annotated[Flag, Tag("flag")] | Annotated[Develop, Tag("options")],
    Discriminator(_develop_kind),
]


class ServiceOverride(Model):
    """Changes to one task of the graph, for tests and emergencies."""

    config: Mapping[str, Any] = Field(
        {}, description="Merged over the settings that the task is started with."
    )
    host: Text | None = Field(None, description="The only host where the task may run.")
    taskinfo: Mapping[str, Any] = Field(
        {},
        description="Of MeerKAT: merged over the task's description for Mesos; kept, not used here: a document "
        "does not decide what is run.",
    )


class VlbiMeta(Model):
    """Settings of MeerKAT's VLBI metadata."""

    mode: Literal["antab", "pass_through", "disabled"] = Field(
        "antab", description="Kept, not used here."
    )


class Options(Model):
    """How the product is run (``config``)."""

    develop: DevelopOption = Field(
        False, description="true: all of the development options; or which of them."
    )
    image_tag: Image | None = Field(
        None, description="Tag of the container images. Default: the controller's."
    )
    image_overrides: Mapping[Name, Image] = Field(
        {},
        description="Full reference of a container image, by the kind of the program (`ingest`, `cal`, …).",
    )
    service_overrides: Mapping[TaskName, ServiceOverride] = Field(
        {}, description="Changes to single tasks, by the task's name."
    )
    shutdown_delay: NonNegative = Field(
        0.0,
        le=3600,
        description="Wait between the last capture and the end of the tasks, unless it is forced [s].",
    )
    mirror_sensors: Flag = Field(
        True,
        description="Whether the tasks' own sensors are mirrored; if not, what they complain of raises no "
        "alarms.",
    )
    wrapper: Text | None = Field(
        None, description="Of MeerKAT: address of a wrapper script; kept, not used here."
    )
    vlbimeta: VlbiMeta | None = Field(None, description="Of MeerKAT; kept, not used here.")

    @property
    def development(self) -> Develop:
        """The development options that hold: `develop` with true and false written out."""
        if isinstance(self.develop, Develop):
            return self.develop
        on = bool(self.develop)
        return Develop(any_gpu=on, disable_ibverbs=on, less_resources=on)


class Replay(Model):
    """A recorded observation instead of a model of the sky (our extension)."""

    file: Text = Field(
        description="Folder of a MeasurementSet, as the simulator's machine sees it."
    )
    rate: Positive = Field(
        1.0, le=1e6, description="Seconds of the observation per second of the simulation [1]."
    )


class Simulation(Model):
    """What simulated streams show (``simulation``)."""

    sources: tuple[Annotated[Text, AfterValidator(_check_source)], ...] = Field(
        (),
        max_length=10_000,
        description="katpoint descriptions of radec sources with flux models [Jy over MHz].",
    )
    clock_ratio: Positive = Field(
        1.0,
        le=1e6,
        description="Seconds of the wall clock per second of the simulation [1]; below 1 is faster. "
        "MeerKAT's 0 (as fast as possible) is refused: an unlimited sender loses data.",
    )
    start_time: Positive | None = Field(
        None, description="Unix time at which the simulation starts [s]. Default: now."
    )
    target: Annotated[Text, AfterValidator(_check_target)] | None = Field(
        None,
        description="katpoint description of the first target (ours). Default: the first source.",
    )
    seed: Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)] = Field(
        1, description="Seed of noise and gains (ours) [1]."
    )
    replay: Replay | None = Field(None, description="Recorded observation to send instead (ours).")

    @property
    def speed(self) -> float:
        """Seconds of the observation per second of the wall clock."""
        rate = self.replay.rate if self.replay is not None else 1.0
        return rate / self.clock_ratio
