"""Tests that settle claims which no chapter shows: each leaves its numbers for the ledger."""

import json
from pathlib import Path

import pytest

from lib import claims

RECORDS = Path("_build/settled_by_tests")


@pytest.fixture
def settle(request):
    """`claims.measure`, leaving a record that names this test file."""

    def settle(id, effects=None, **regimes):
        settlement = claims.measure(id, effects, **regimes)
        source = str(request.path.relative_to(Path.cwd()))
        RECORDS.mkdir(parents=True, exist_ok=True)
        text = json.dumps(settlement.record() | {"settled_by": source}, indent=1)
        (RECORDS / f"{id}.json").write_text(text)
        return settlement

    return settle
