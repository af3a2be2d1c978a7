"""Streams that the science data processor makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sdpcontroller.config.fields import (
    ChannelRange,
    Count,
    Flag,
    Index,
    Model,
    Name,
    NonNegative,
    Number,
    Positive,
)
from sdpcontroller.config.simulated import (
    SimAntennaChannelisedVoltage,
    SimBaselineCorrelationProducts,
    SimTiedArrayChannelisedVoltage,
)
from sdpcontroller.config.stream import Sources, Stream

_CORRELATION = frozenset(
    {"cbf.baseline_correlation_products", "sim.cbf.baseline_correlation_products"}
)
_BEAM = frozenset({"cbf.tied_array_channelised_voltage", "sim.cbf.tied_array_channelised_voltage"})
_VIS = frozenset({"sdp.vis"})
_CAL = frozenset({"sdp.cal"})
_FLAGS = frozenset({"sdp.flags"})
_CONTINUUM = frozenset({"sdp.continuum_image"})

ParameterName = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]


class Vis(Stream):
    """Visibilities: received, averaged and flagged (L0)."""

    SOURCES: ClassVar[Sources] = ((_CORRELATION,),)
    type: Literal["sdp.vis"] = Field(description="Type of the stream.")
    src_streams: tuple[Name, ...] = Field(
        min_length=1, max_length=1, description="The correlation products that are received."
    )
    output_int_time: Positive = Field(
        description="Time between output dumps [s]; rounded to a multiple of the correlator's."
    )
    continuum_factor: Count = Field(
        description="Channels that are averaged into one [count]; divides the channels of the output range."
    )
    output_channels: ChannelRange | None = Field(
        None, description="Correlator channels [first, last + 1) to keep [channel]. Default: all."
    )
    excise: Flag = Field(
        True, description="Whether samples with interference are left out of the averages."
    )
    archive: Flag = Field(True, description="Whether the stream is written to a data set.")


class CalParameters(Model):
    """What the calibration pipeline can be told; what is not given, it chooses itself."""

    preferred_refants: tuple[Name, ...] | None = Field(
        None, min_length=1, max_length=256, description="Reference antennas in order of preference."
    )
    k_solint: Positive | None = Field(
        None, description="Interval of delay solutions [s]; kept, not used here."
    )
    k_chan_sample: Count | None = Field(
        None,
        description="Every how many channels the delay solver uses one [channel]; kept, not used here.",
    )
    k_bchan: Index | None = Field(None, description="First channel of the delay solver [channel].")
    k_echan: Index | None = Field(
        None, description="End of the channels of the delay solver [channel]."
    )
    kcross_chanave: Count | None = Field(
        None,
        description="Channels averaged for cross-polarisation delays [channel]; kept, not used here.",
    )
    bp_solint: Positive | None = Field(
        None, description="Interval of bandpass solutions [s]; kept, not used here."
    )
    g_solint: Positive | None = Field(None, description="Interval of gain solutions [s].")
    g_bchan: Index | None = Field(None, description="First channel of the gain solver [channel].")
    g_echan: Index | None = Field(
        None, description="End of the channels of the gain solver [channel]."
    )
    rfi_calib_nsigma: Positive | None = Field(
        None, description="Threshold of the flagger on calibrators [sigma]; kept, not used here."
    )
    rfi_targ_nsigma: Positive | None = Field(
        None, description="Threshold of the flagger on targets [sigma]; kept, not used here."
    )
    rfi_windows_freq: tuple[Count, ...] | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="Windows of the flagger [channel]; kept, not used here.",
    )
    rfi_average_freq: Count | None = Field(
        None, description="Channels averaged before flagging [channel]; kept, not used here."
    )
    rfi_targ_spike_width_freq: Positive | None = Field(
        None, description="Width of interference on targets [channel]; kept, not used here."
    )
    rfi_calib_spike_width_freq: Positive | None = Field(
        None, description="Width of interference on calibrators [channel]; kept, not used here."
    )
    rfi_spike_width_time: Positive | None = Field(
        None, description="Duration of interference [s]; kept, not used here."
    )
    rfi_extend_freq: Index | None = Field(
        None, description="Channels that flags are widened by [channel]; kept, not used here."
    )
    rfi_freq_chunks: Count | None = Field(
        None, description="Pieces that the band is flagged in [count]; kept, not used here."
    )


class Cal(Stream):
    """Calibration solutions: delays, bandpasses, gains."""

    SOURCES: ClassVar[Sources] = ((_VIS,),)
    type: Literal["sdp.cal"] = Field(description="Type of the stream.")
    src_streams: tuple[Name, ...] = Field(
        min_length=1, max_length=1, description="The visibilities that are solved for."
    )
    parameters: CalParameters = Field(
        CalParameters(), description="Settings of the calibration pipeline."
    )
    max_scans: Count = Field(
        1000, description="Scans of one capture block at most [count]; kept, not used here."
    )
    buffer_time: Positive = Field(
        1500.0, description="Visibilities that the pipeline holds at most [s]."
    )


class Flags(Stream):
    """Better flags for visibilities, made with the calibration solutions."""

    SOURCES: ClassVar[Sources] = ((_VIS, _CAL),)
    type: Literal["sdp.flags"] = Field(description="Type of the stream.")
    src_streams: tuple[Name, ...] = Field(
        min_length=2, max_length=2, description="[visibilities, calibration]."
    )
    archive: Flag = Field(description="Whether the flags are written to a data set.")
    rate_ratio: Number = Field(
        8.0, gt=1, description="How much faster than real time flags are sent at most [1]."
    )


class ContinuumImage(Stream):
    """Continuum images of the targets of a capture block, made when it is over."""

    SOURCES: ClassVar[Sources] = ((_FLAGS,), (_VIS, _CAL))
    type: Literal["sdp.continuum_image"] = Field(description="Type of the stream.")
    src_streams: tuple[Name, ...] = Field(
        min_length=1,
        max_length=2,
        description="[flags]; or [visibilities, calibration], ours: straight from the visibilities "
        "with the solutions applied.",
    )
    min_time: Positive = Field(
        900.0, description="Targets observed for less time in total are not imaged [s]."
    )
    max_realtime: NonNegative | None = Field(
        None,
        description="The imager is stopped after this time [s]. Default: the batch task's limit.",
    )
    parameters: Mapping[ParameterName, Any] = Field(
        {},
        description="Settings of the imager, by name: "
        "those of `pipelines.catalogue.IMAGER_PARAMETERS`.",
    )
    uvblavg_parameters: Mapping[ParameterName, Any] = Field(
        {}, description="Settings of MeerKAT's averaging step, by name; kept, not used here."
    )
    mfimage_parameters: Mapping[ParameterName, Any] = Field(
        {}, description="Settings of MeerKAT's continuum imager, by name; kept, not used here."
    )


class SpectralImageParameters(Model):
    """What the spectral imager can be told; what is not given, it chooses itself."""

    robustness: Number | None = Field(None, description="Robustness of the weighting [1].")
    grid_oversample: Count | None = Field(
        None, description="Oversampling of the grid [1]; kept, not used here."
    )
    kernel_image_oversample: Count | None = Field(
        None, description="Oversampling of the gridding kernel's image [1]; kept, not used here."
    )
    w_slices: Count | None = Field(None, description="Slices in w [count]; kept, not used here.")
    aa_width: Positive | None = Field(
        None, description="Width of the anti-aliasing kernel [cell]; kept, not used here."
    )
    kernel_width: Count | None = Field(
        None, description="Width of the gridding kernel [cell]; kept, not used here."
    )
    eps_w: Positive | None = Field(
        None, description="Level where w-kernels are cut off [1]; kept, not used here."
    )
    primary_beam_cutoff: Positive | None = Field(
        None, description="Beam power below which pixels are discarded [1]; kept, not used here."
    )
    psf_cutoff: Positive | None = Field(
        None, description="Level that fixes the size of the PSF patch [1]; kept, not used here."
    )
    psf_limit: Positive | None = Field(
        None, description="Largest PSF patch, of the image [1]; kept, not used here."
    )
    loop_gain: Positive | None = Field(None, description="Gain of one minor cycle [1].")
    major_gain: Positive | None = Field(
        None, description="Gain of one major cycle [1]; kept, not used here."
    )
    threshold: Positive | None = Field(None, description="CLEAN down to this many sigma [sigma].")
    major: Count | None = Field(None, description="Major cycles at most [count].")
    minor: Count | None = Field(None, description="Minor cycles per major one at most [count].")
    border: Positive | None = Field(
        None, description="Border that is not cleaned, of the image [1]; kept, not used here."
    )
    clean_mode: Literal["I", "IQUV"] | None = Field(
        None, description="Stokes parameters in which peaks are sought."
    )


class SpectralImage(Stream):
    """Images of every channel, made when the capture block is over."""

    SOURCES: ClassVar[Sources] = ((_FLAGS,), (_FLAGS, _CONTINUUM))
    type: Literal["sdp.spectral_image"] = Field(description="Type of the stream.")
    src_streams: tuple[Name, ...] = Field(
        min_length=1, max_length=2, description="[flags] or [flags, continuum image to subtract]."
    )
    min_time: Positive = Field(
        3600.0, description="Targets observed for less time in total are not imaged [s]."
    )
    output_channels: ChannelRange | None = Field(
        None,
        description="Channels [first, last + 1) of the flags to image [channel]. Default: all.",
    )
    parameters: SpectralImageParameters = Field(
        SpectralImageParameters(), description="Settings of the imager."
    )


class Beamformer(Stream):
    """A beam of both polarisations, written to disk."""

    SOURCES: ClassVar[Sources] = ((_BEAM, _BEAM),)
    type: Literal["sdp.beamformer"] = Field(description="Type of the stream.")
    src_streams: tuple[Name, ...] = Field(
        min_length=2, max_length=2, description="The two polarisations of the beam."
    )
    store: Literal["ram", "ssd"] = Field("ssd", description="What the data is written to.")


class BeamformerEngineering(Stream):
    """A beam of both polarisations, written at full rate for a short time."""

    SOURCES: ClassVar[Sources] = ((_BEAM, _BEAM),)
    type: Literal["sdp.beamformer_engineering"] = Field(description="Type of the stream.")
    src_streams: tuple[Name, ...] = Field(
        min_length=2, max_length=2, description="The two polarisations of the beam."
    )
    store: Literal["ram", "ssd"] = Field("ram", description="What the data is written to.")
    output_channels: ChannelRange | None = Field(
        None, description="Channels [first, last + 1) to write [channel]. Default: all."
    )


Output = Annotated[
    SimAntennaChannelisedVoltage
    | SimBaselineCorrelationProducts
    | SimTiedArrayChannelisedVoltage
    | Vis
    | Cal
    | Flags
    | ContinuumImage
    | SpectralImage
    | Beamformer
    | BeamformerEngineering,
    Field(discriminator="type"),
]
