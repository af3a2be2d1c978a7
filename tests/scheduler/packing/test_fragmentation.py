"""While graphs come and go, what is scarce stays free; see the benchmark for how much."""

from __future__ import annotations

import numpy as np

from benchmarks.packing_fragmentation import PACKERS, Arrival, Site, cluster, means, run, stream


def test_scarce_agents_stay_free_and_no_more_is_refused() -> None:
    found = {name: means(rows) for name, rows in run(4, 24, 60, 12.0).items()}
    mine = found["ours"]
    for name in ("first fit", "best fit"):
        assert mine["placed"] >= found[name]["placed"]
        assert mine["gpu+nic"] > 1.3 * found[name]["gpu+nic"]
        assert mine["scarce cores"] > 1.3 * found[name]["scarce cores"]


def test_what_leaves_gives_back_all_that_it_held() -> None:
    generator = np.random.default_rng(1)
    agents = cluster(generator, 12)
    for packer in PACKERS.values():
        site = Site(agents, packer)
        arrivals = stream(generator, 12, 4.0)
        placed = [site.take(number, arrival) for number, arrival in enumerate(arrivals)]
        assert any(placed)
        last = max(arrival.leaves for arrival in arrivals)
        site.take(len(arrivals), Arrival(last, last, {}))
        assert list(site.agents.values()) == agents
