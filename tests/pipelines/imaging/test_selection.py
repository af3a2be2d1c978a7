from __future__ import annotations

import pytest

from pipelines.common.telescope import telescope_of
from pipelines.imaging.errors import UnknownTargetError
from pipelines.imaging.selection import choose_target

FIELD, CAL, OTHER = ("Field", ["target"]), ("J0408", ["bpcal"]), ("Other", ["target"])


def test_the_only_target_that_is_no_calibrator_is_taken() -> None:
    assert choose_target([CAL, FIELD], None) == "Field"
    assert choose_target([CAL, FIELD, FIELD], None) == "Field"
    assert choose_target([CAL], None) == "J0408"


def test_a_calibrator_can_be_asked_for() -> None:
    assert choose_target([CAL, FIELD], "J0408") == "J0408"


@pytest.mark.parametrize("wanted", ["field", "", "Mars"])
def test_an_unknown_target_is_answered_with_those_that_there_are(wanted: str) -> None:
    with pytest.raises(UnknownTargetError, match="'J0408', 'Field'"):
        choose_target([CAL, FIELD], wanted)


def test_between_two_the_user_chooses() -> None:
    with pytest.raises(UnknownTargetError, match=r"--target among 'J0408', 'Field', 'Other'"):
        choose_target([CAL, FIELD, OTHER], None)


def test_without_tracks_there_is_nothing_to_choose() -> None:
    with pytest.raises(UnknownTargetError, match="no track"):
        choose_target([], None)


@pytest.mark.parametrize(
    ("antennas", "telescope"),
    [(["m000", "m063"], "MeerKAT"), (["m000", "ea01"], ""), (["ea01", "ea02"], ""), ([], "")],
)
def test_only_meerkats_own_antennas_make_it_meerkat(antennas: list[str], telescope: str) -> None:
    assert telescope_of(antennas) == telescope
