"""Claims: a sentence about a technique, and the measurement that must agree with it.

`claims.yml` holds the sentences. A chapter measures one and calls `settle`, which computes the
mean effect with its 95 % interval, compares it with the margin and raises when the outcome is
not the one that `claims.yml` states. So the page cannot say what the run did not show.
"""

from __future__ import annotations

import functools
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import yaml

from lib.cards import OUTCOME_WORDS, VERDICT_WORDS, card, in_numbers, inline, regime_html
from lib.intervals import OUTCOMES, Effects, Exact, Interval, interval, outcome

VERDICTS = ("holds", "false", "conditional", "open")


class ClaimError(AssertionError):
    """The measurement does not agree with the sentence."""


@dataclass(frozen=True)
class Measure:
    """What is measured to settle a claim in one regime, decided before measuring.

    effect: what the number is, and which sign the sentence predicts.
    margin: the smallest effect that counts, in `unit`; `why` says why that much.
    outcome: the outcome that the book states.
    """

    effect: str
    margin: float
    unit: str
    why: str
    outcome: str


@dataclass(frozen=True)
class Claim:
    """One row of `claims.yml`."""

    id: str
    chapter: str
    topic: str
    statement: str
    kind: str
    notes: list[str]
    verdict: str
    reason: str
    references: list[str]
    plan: str
    settled_by: str | None
    measured: dict[str, Measure]
    predicts: str = "more"
    where: str | None = None
    where_not: str | None = None
    needs: str | None = None  # "mnist": not run where that is not at hand


def find_claims() -> Path:
    """The path of `claims.yml`: beside `lib` in a checkout, inside it when installed."""
    here = Path(__file__).resolve().parent
    for path in (here.parent / "claims.yml", here / "claims.yml"):
        if path.is_file():
            return path
    raise FileNotFoundError(f"claims.yml is neither in {here.parent} nor in {here}")


@functools.cache
def load(path: Path | None = None) -> dict[str, Claim]:
    """All claims of `claims.yml` by id, checked.

    Raises ValueError naming the row and the field at fault.
    """
    rows = yaml.safe_load((path or find_claims()).read_text(encoding="utf-8"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("claims.yml has to be a list of rows, each with named fields")
    claims = {}
    for row in rows:
        claim = _check(row)
        if claim.id in claims:
            raise ValueError(f"{claim.id}: the id stands twice")
        claims[claim.id] = claim
    return claims


def _check(row: dict) -> Claim:
    row = dict(row)
    name = row.get("id", "a row without id")
    measured = row.pop("measured", None) or {}
    if not isinstance(measured, dict):
        raise ValueError(f"{name}: measured has to name regimes, not {measured!r}")
    try:
        measures = {regime: Measure(**fields) for regime, fields in measured.items()}
        claim = Claim(measured=measures, **row)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None
    if claim.verdict not in VERDICTS:
        raise ValueError(f"{name}: verdict has to be one of {VERDICTS}, not {claim.verdict!r}")
    if claim.predicts not in ("more", "same"):
        raise ValueError(f"{name}: predicts has to be 'more' or 'same', not {claim.predicts!r}")
    conditional = claim.verdict == "conditional"
    if {bool(claim.where), bool(claim.where_not)} != {conditional}:
        raise ValueError(
            f"{name}: where and where_not belong to conditional rows, both of them"
        )
    if claim.needs not in (None, "mnist"):
        raise ValueError(f"{name}: needs has to be 'mnist' or nothing, not {claim.needs!r}")
    for regime, m in measures.items():
        number = isinstance(m.margin, (int, float)) and 0 < m.margin < math.inf
        known = m.outcome in OUTCOMES or (claim.verdict == "open" and m.outcome == "unclear")
        if not (number and known and m.unit and m.why and m.effect):
            raise ValueError(
                f"{name}: {regime} needs effect, margin (a number above 0, written 1.0e-3 and "
                f"not 1e-3), unit, why and outcome, but has {m}"
            )
    if claim.settled_by in (None, "reference") or claim.verdict == "open":
        return claim
    expected = {"where", "where_not"} if conditional else {"claim"}
    if set(measures) != expected:
        raise ValueError(
            f"{name}: measured has to name {sorted(expected)}, not {list(measures)}"
        )
    for regime, m in measures.items():
        as_said = m.outcome == claim.predicts
        if as_said != (regime == "where" or claim.verdict == "holds"):
            raise ValueError(
                f"{name}: {regime} comes out {m.outcome!r} where the sentence predicts "
                f"{claim.predicts!r}: that is not {VERDICT_WORDS[claim.verdict]!r}"
            )
    return claim


@dataclass(frozen=True, repr=False)
class Settlement:
    """A claim and the numbers that settled it; shows itself as a card on the page."""

    claim: Claim
    found: dict[str, Interval]
    effects: dict[str, list[float]]

    def line(self) -> str:
        """One line per regime, in a fixed form."""
        rows = [f"{self.claim.id}  {VERDICT_WORDS[self.claim.verdict]}"]
        for regime, found in self.found.items():
            m = self.claim.measured[regime]
            where = "" if regime == "claim" else f"{regime}: "
            rows.append(f"{where}{in_numbers(found, m)} ({OUTCOME_WORDS[m.outcome]})")
        return "  |  ".join(rows)

    __repr__ = line  # what `display` prints outside a notebook

    def record(self) -> dict:
        """What the ledger keeps of this settlement, as plain JSON."""
        return {
            "id": self.claim.id,
            "regimes": {
                regime: asdict(found)
                | {
                    "margin": self.claim.measured[regime].margin,
                    "effects": self.effects[regime],
                }
                for regime, found in self.found.items()
            },
            **provenance(),
        }

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        shown = {"text/plain": self.line(), "text/html": card(self.claim, self.record())}
        return shown, {"course": {"claim": self.record()}}  # in the metadata, for the ledger


def settle(id: str, effects: Effects | None = None, **regimes: Effects) -> None:
    """Measure claim `id` as `measure` does and put its card on the page, or raise."""
    from IPython.display import display

    display(measure(id, effects, **regimes))


def measure(
    id: str,
    effects: Effects | None = None,
    *,
    where: Effects | None = None,
    where_not: Effects | None = None,
) -> Settlement:
    """Compare measured effects with what `claims.yml` says of claim `id`, or raise.

    effects: shape (n,), one paired effect per seed, for a claim that holds or is false.
    where, where_not: the same for the two regimes of a conditional claim.

    Raises ClaimError when an outcome is not the stated one, KeyError for an unknown id and
    ValueError when the regimes given are not those of the claim.
    """
    claims = load()
    if id not in claims:
        raise KeyError(f"no claim {id!r} in claims.yml")
    claim = claims[id]
    given = {"claim": effects, "where": where, "where_not": where_not}
    given = {regime: x for regime, x in given.items() if x is not None}
    if not given or set(given) != set(claim.measured):
        raise ValueError(
            f"{id} is settled by {sorted(claim.measured) or 'nothing yet'}, "
            f"but got {sorted(given)}"
        )
    found = {regime: interval(x) for regime, x in given.items()}
    for regime, result in found.items():
        _compare(f"{id} ({regime})", result, claim.measured[regime])
    kept = {
        regime: [float(x.value)] if isinstance(x, Exact) else np.asarray(x, float).tolist()
        for regime, x in given.items()
    }
    return Settlement(claim, found, kept)


def check(
    sentence: str,
    effects: Effects,
    *,
    outcome: str = "more",
    margin: float,
    unit: str,
    effect: str = "",
) -> None:
    """Measure a sentence of the chapter's own, one that no note says, or raise ClaimError.

    It is judged like a row of `claims.yml`, but stands only where it is used.
    """
    if outcome not in OUTCOMES:
        raise ValueError(f"outcome has to be one of {OUTCOMES}, but got {outcome!r}")
    found, m = interval(effects), Measure(effect, margin, unit, "", outcome)
    _compare(repr(sentence), found, m)
    from IPython.display import display

    display(
        {
            "text/plain": f"{sentence}  |  {in_numbers(found, m)} ({OUTCOME_WORDS[outcome]})",
            "text/html": '<div class="claim claim-own"><p class="claim-statement">'
            f"{inline(sentence)}</p>{regime_html(found, m)}</div>",
        },
        raw=True,
    )


def _compare(name: str, found: Interval, m: Measure) -> None:
    got = outcome(found, m.margin)
    if got != m.outcome:
        raise ClaimError(
            f"{name}: the book says {m.outcome!r} ({OUTCOME_WORDS[m.outcome]}), "
            f"measured {got!r}: {in_numbers(found, m)}. The effect is: {m.effect}"
        )


def replay(claim: Claim, regime: str, effects: Sequence[float]) -> str:
    """The outcome that recorded effects give for one regime of a claim."""
    x = Exact(effects[0]) if len(effects) == 1 else effects
    return outcome(interval(x), claim.measured[regime].margin)


@functools.cache
def provenance() -> dict:
    """Device, seed and versions of this run."""
    from lib.device import course_seed, device  # here: only a run needs torch

    packages = ("torch", "numpy", "scikit-learn")
    return {
        "device": str(device()),
        "seed": course_seed(),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in packages},
    }


numbers: dict[str, str] = {}


def number(name: str, value: float | str, spec: str = ".1f") -> None:
    """Hand a result to the prose: `{glue:text}` with this name shows it on the page.

    The record has the form that papermill, scrapbook and myst-nb share. A leading plus sign is
    refused: the page would drop it.
    """
    if not isinstance(value, str) and not math.isfinite(value):
        raise ValueError(f"number {name!r} has to be finite, but got {value}")
    text = value if isinstance(value, str) else format(float(value), spec)
    if text.startswith("+"):
        raise ValueError(f"number {name!r} has to do without a plus sign, but got {text!r}")
    if not any(c in text for c in "123456789"):
        text = text.removeprefix("-")  # no negative zero
    numbers[name] = text
    if os.environ.get("COURSE_QUIET"):
        return
    from IPython.display import display

    prefix = "application/papermill.record/"
    display(
        {prefix + "text/plain": text},
        raw=True,
        metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
    )


def records_of(notebook: dict) -> list[dict]:
    """The settlements that an executed notebook (as parsed JSON) left in its outputs."""
    return [
        output["metadata"]["course"]["claim"]
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if "claim" in output.get("metadata", {}).get("course", {})
    ]
