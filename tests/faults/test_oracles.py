"""The oracles of the soak themselves."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.faults.bench.bench import Bench
from tests.faults.bench.oracles import settled
from tests.faults.bench.patience import Patience


class Told:
    """What a bench is told: the database first, then the sensors."""

    def __init__(self, *sensors: str, records: tuple[str, ...]) -> None:
        self._sensors, self._records = list(sensors), list(records)

    async def products(self) -> dict[str, str]:
        return {"q": "idle"}

    async def sensors(self, pattern: str) -> dict[str, str]:
        return {"q.state": "idle", "q.display.l0_0.state": self._sensors.pop(0)}

    async def table(self, name: str) -> dict[str, Any]:
        if name == "product":
            return {"q": {"graph_id": "q-1"}}
        attempts = self._records.pop(0).split()
        return {
            f"q-1.display.l0_0.{number}": {
                "graph_id": "q-1", "name": "display.l0_0", "state": state
            }
            for number, state in enumerate(attempts)
        }  # fmt: skip

    def patience(self, seconds: float) -> Patience:
        return Patience(seconds, lambda: 0.0)


@pytest.mark.parametrize(
    ("sensors", "records"),
    [
        (("ready", "dead", "ready"), ("dead", "dead", "dead ready")),
        (("dead", "dead", "ready"), ("ready", "dead", "dead ready")),
    ],
)
async def test_a_death_that_only_the_database_or_only_a_sensor_knows_of_is_waited_for(
    sensors: tuple[str, ...], records: tuple[str, ...]
) -> None:
    told = Told(*sensors, records=records)
    assert await settled(cast(Bench, told)) == {"q": "idle"}
    assert not told._sensors and not told._records
