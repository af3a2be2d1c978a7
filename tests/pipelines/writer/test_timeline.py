"""Dumps sorted into fields and scans."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.writer.timeline import timeline

TIMES = np.arange(10.0)


@st.composite
def samples(draw: st.DrawFn, values: list[str]) -> list[tuple[str, float]]:
    times = draw(st.lists(st.floats(-3, 12), max_size=6, unique=True))
    return [(draw(st.sampled_from(values)), time) for time in sorted(times)]


@given(samples(["a", "b", "c"]), samples(["track", "slew"]))
def test_a_dump_is_tracked_only_if_all_of_it_is(
    targets: list[tuple[str, float]], activities: list[tuple[str, float]]
) -> None:
    seen = timeline(targets, activities, TIMES, 1.0)
    for dump, time in enumerate(TIMES):
        start, end = time - 0.49, time + 0.49
        held = [
            [
                v
                for i, (v, t) in enumerate(s)
                if t <= end and (i + 1 == len(s) or s[i + 1][1] > start)
            ]
            for s in (targets, activities)
        ]
        assert seen.target[dump] == (seen.targets.index(held[0][-1]) if held[0] else -1)
        on_target = bool(held[0]) and len(set(held[0])) == 1
        assert seen.tracking[dump] == (on_target and bool(held[1]) and set(held[1]) == {"track"})
    changes = [
        i
        for i in range(1, 10)
        if (seen.target[i], seen.tracking[i]) != (seen.target[i - 1], seen.tracking[i - 1])
    ]
    assert (np.flatnonzero(np.diff(seen.scan)) + 1).tolist() == changes
    assert seen.scan[0] == 1
