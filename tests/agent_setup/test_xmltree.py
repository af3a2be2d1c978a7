"""XML from outside is read within bounds, or refused in one line."""

from __future__ import annotations

import time

import pytest

from agent_setup import hwloc, xmltree
from agent_setup.errors import DiscoveryError

LAUGHS = "".join('<!ENTITY l{} "{}">'.format(n, f"&l{n - 1};" * 10) for n in range(1, 10))


@pytest.mark.parametrize(
    ("xml", "said"),
    [
        (f'<!DOCTYPE t [<!ENTITY l0 "lol">{LAUGHS}]><t>&l9;</t>', "declares the entity 'l0'"),
        ('<!DOCTYPE t [<!ENTITY x SYSTEM "file:///etc/passwd">]><t>&x;</t>', "entity 'x'"),
        ('<!DOCTYPE t [<!ENTITY % p SYSTEM "http://x/"> %p;]><t/>', "entity 'p'"),
        ("<t>&x;</t>", "not XML: undefined entity"),
        ("<object>" * 200, "nested deeper than 100"),
        ("<t>" + "<o/>" * (xmltree.MAX_ELEMENTS + 1), "more than 1000000 elements"),
        ("<t " + "x" * xmltree.MAX_BYTES, "more than 64 MiB"),
        ("", "not XML: no element found"),
        ("<t><o></t>", "not XML: mismatched tag"),
        ("<t/>\0", "not XML"),
        ("<t>\ud800</t>", "not XML"),
        ("\x1f\x8b", "not XML"),
        ("<t/><t/>", "not XML: junk after document element"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_hostile_documents_are_refused_in_one_line_and_at_once(xml: str, said: str) -> None:
    started = time.process_time()
    with pytest.raises(DiscoveryError) as refusal:
        hwloc.parse(xml, "machine.xml")
    assert said in str(refusal.value)
    assert str(refusal.value).startswith("machine.xml: ")
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 200
    assert time.process_time() - started < 20  # one second on a free core


def test_the_definition_that_hwloc_names_is_not_fetched() -> None:
    xml = '<!DOCTYPE topology SYSTEM "hwloc2.dtd"><topology><object type="Machine"/></topology>'
    assert xmltree.parse(xml, "x").find("object") is not None
