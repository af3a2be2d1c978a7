"""The document for operators shows what the command shows."""

from __future__ import annotations

import re
import shutil
import tomllib

import pytest

from agent_setup import settings
from tests.agent_setup.operations_tables import DOCUMENT, HERE, PLANS, table, table_here, written


@pytest.mark.skipif(not shutil.which("lstopo"), reason="lstopo is not installed")
@pytest.mark.parametrize("name", PLANS)
def test_tables_are_current(name: str) -> None:
    tables = written(DOCUMENT.read_text(encoding="utf-8"))
    assert tables[name] == table(name), "python -m tests.agent_setup.operations_tables"


def test_the_table_of_a_machine_that_exists_has_the_form_of_one_made_here() -> None:
    shown = written(DOCUMENT.read_text(encoding="utf-8"))[HERE].splitlines()
    here = table_here().splitlines()
    for start in ("NUMA node", "interface"):
        columns = [
            next(line for line in lines if line.startswith(start)) for lines in (shown, here)
        ]
        assert columns[0].split() == columns[1].split()
    assert [line.split()[0] for line in shown if line.startswith("lo ")] == ["lo"]


def test_the_example_of_settings_is_accepted_and_complete() -> None:
    found = re.search(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    example = tomllib.loads(found[1])
    assert settings.load(None, [example])
    assert set(example) == set(settings.Settings.model_fields), "every setting is shown"
