"""The machinery that compares sentences with measurements, and the ledger it reads."""

import itertools
import json
import math
import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from unittest import mock

import nbformat
import numpy as np
import pytest
import torch
import yaml
from IPython.core.formatters import DisplayFormatter
from scipy import stats

from lib import cards, claims
from lib.claims import ClaimError, Exact, Interval, interval, outcome

ROOT = Path(__file__).resolve().parents[1]
REAL = claims.load()
MINUS = "\N{MINUS SIGN}"

MEASURE = {
    "effect": "test accuracy with less without",
    "margin": 0.5,
    "unit": "points",
    "why": "one test image of two hundred",
    "outcome": "more",
}
ROW = {
    "id": "T-01",
    "chapter": "batch_norm",
    "topic": "speed",
    "statement": "It helps.",
    "kind": "text",
    "notes": ["S0"],
    "verdict": "holds",
    "reason": "Because.",
    "references": [],
    "plan": "Measure.",
    "measured": {"claim": MEASURE},
    "settled_by": "tests/claims/test_batch_norm.py",
}
CONDITIONAL = {
    "verdict": "conditional",
    "where": "a deep network",
    "where_not": "a shallow network",
    "measured": {"where": MEASURE, "where_not": MEASURE | {"outcome": "same"}},
}
GONE = object()


def row(**changes):
    """ROW with changes; GONE removes a field."""
    return {k: v for k, v in (ROW | changes).items() if v is not GONE}


def measured(**changes):
    """`measured` of ROW with changes; GONE removes a field."""
    return {"claim": {k: v for k, v in (MEASURE | changes).items() if v is not GONE}}


@pytest.fixture
def read(tmp_path):
    """Rows, or the text of a file, through `claims.load`."""
    count = itertools.count()

    def read(*rows, text=None):
        path = tmp_path / f"claims{next(count)}.yml"  # load remembers what it read
        path.write_text(yaml.safe_dump(list(rows)) if text is None else text, encoding="utf-8")
        return claims.load(path)

    return read


@pytest.fixture
def book(read, monkeypatch):
    """Make given rows the book's claims."""

    def book(*rows):
        loaded = read(*rows)
        monkeypatch.setattr(claims, "load", lambda: loaded)
        return loaded

    return book


def effects_for(m, wanted=None, n=20):
    """Effects, with some noise, that come out as `wanted` against the margin of a measure."""
    centre = {"more": 2.0, "less": -2.0, "same": 0.0}[wanted or m.outcome]
    return m.margin * (centre + 0.1 * np.linspace(-1, 1, n))


def parse(html):
    """The root of an HTML fragment; fails where tags do not nest."""
    return ET.fromstring("<div>" + html.replace("<br>", "<br/>") + "</div>")


def text_of(element):
    return "".join(element.itertext())


# Interval


def test_interval_by_hand():
    # 1..10: mean 5.5, sample standard deviation sqrt(55/6), t(9) = 2.262157
    found = interval(range(1, 11))
    half = 2.262157 * math.sqrt(55 / 6) / math.sqrt(10)
    assert found.n == 10
    assert (found.effect, found.low, found.high) == pytest.approx(
        (5.5, 5.5 - half, 5.5 + half), rel=1e-6
    )


@pytest.mark.parametrize("n", [10, 11, 20, 64])
def test_interval_is_that_of_scipy(n):
    x = np.random.default_rng(n).normal(3, 2, n)
    low, high = stats.t.interval(0.95, n - 1, loc=x.mean(), scale=stats.sem(x))
    assert interval(x) == Interval(
        pytest.approx(x.mean()), pytest.approx(low), pytest.approx(high), n
    )


def test_interval_contains_the_true_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(0.3, 2.0, (3000, 12))
    inside = [found.low < 0.3 < found.high for found in map(interval, draws)]
    assert abs(np.mean(inside) - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 3000)


def test_interval_of_equal_effects_is_a_point():
    assert interval([0.5] * 10) == Interval(0.5, 0.5, 0.5, 10)


@pytest.mark.parametrize("kind", [list, tuple, np.asarray, torch.tensor])
def test_interval_takes_any_sequence_and_leaves_it(kind):
    values = [float(k) for k in range(10)]
    given = kind(values)
    assert interval(given).effect == 4.5
    assert list(given) == values


def test_interval_of_an_exact_value():
    assert interval(Exact(3)) == Interval(3.0, 3.0, 3.0, 1)
    assert interval(Exact(np.float32(-0.5))) == Interval(-0.5, -0.5, -0.5, 1)


@pytest.mark.parametrize(
    "bad", [[], [1.0] * 9, 1.0, np.ones((10, 1)), np.ones((2, 10)), np.ones((0, 10))]
)
def test_interval_refuses_other_shapes(bad):
    shape = re.escape(str(np.shape(bad)))
    with pytest.raises(ValueError, match=f"effects .* at least 10, .* shape {shape}"):
        interval(bad)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None])
def test_interval_refuses_what_is_not_a_number(bad):
    with pytest.raises(ValueError, match="effects has to be finite, but got"):
        interval([1.0] * 10 + [bad])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_exact_value_has_to_be_finite(bad):
    with pytest.raises(ValueError, match=f"exact effect has to be finite, but got {bad}"):
        interval(Exact(bad))


# Outcome

ABOVE, BELOW = math.nextafter(1, 2), math.nextafter(1, 0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (ABOVE, 2, "more"),
        (1, 2, "unclear"),
        (BELOW, 2, "unclear"),
        (-2, -ABOVE, "less"),
        (-2, -1, "unclear"),
        (-2, -BELOW, "unclear"),
        (-BELOW, BELOW, "same"),
        (0, 0, "same"),
        (0.1, 0.9, "same"),
        (-1, 0, "unclear"),
        (0, 1, "unclear"),
        (-1, 1, "unclear"),
        (0.5, 1.5, "unclear"),
        (-1.5, -0.5, "unclear"),
        (-3, 3, "unclear"),
        (math.nan, math.nan, "unclear"),
    ],
)
def test_outcome_on_each_side_of_each_boundary(low, high, expected):
    assert outcome(Interval((low + high) / 2, low, high, 20), 1.0) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(ABOVE, "more"), (1, "unclear"), (BELOW, "same"), (-1, "unclear"), (-ABOVE, "less")],
)
def test_outcome_of_an_exact_value(value, expected):
    assert outcome(interval(Exact(value)), 1.0) == expected


def test_outcome_of_flipped_effects_is_the_flipped_outcome():
    flipped = {"more": "less", "less": "more", "same": "same", "unclear": "unclear"}
    rng = np.random.default_rng(1)
    seen = Counter()
    for centre in rng.uniform(-3, 3, 200):
        x = rng.normal(centre, 1, 12)
        got = outcome(interval(x), 1.0)
        assert outcome(interval(-x), 1.0) == flipped[got]
        assert outcome(interval(1e-6 * x), 1e-6) == got  # the unit does not matter
        seen[got] += 1
    assert set(seen) == set(flipped)


@pytest.mark.parametrize("margin", [0, -0.5, math.nan, math.inf])
def test_outcome_refuses_a_margin_that_decides_nothing(margin):
    with pytest.raises(ValueError, match=f"margin .*got {margin}"):
        outcome(Interval(0, -1, 1, 20), margin)


# The checker of claims.yml


def test_a_good_row_is_read(read):
    claim = read(row())["T-01"]
    assert claim.measured["claim"] == claims.Measure(**MEASURE)
    assert (claim.predicts, claim.where, claim.where_not) == ("more", None, None)


@pytest.mark.parametrize("settled_by", [None, "reference"])
def test_rows_that_nothing_measures_need_no_measure(read, settled_by):
    read(row(measured=None, settled_by=settled_by))
    read(row(measured=GONE, settled_by=settled_by))


def test_an_open_row_needs_no_measure(read):
    read(row(verdict="open", measured=None, settled_by="chapters/batch_norm.md"))


def test_verdict_prediction_and_outcome_have_to_fit(read):
    for verdict, predicts, found in itertools.product(
        ("holds", "false"), ("more", "same"), ("more", "less", "same")
    ):
        bad = row(verdict=verdict, predicts=predicts, measured=measured(outcome=found))
        if (found == predicts) == (verdict == "holds"):
            assert read(bad)["T-01"].measured["claim"].outcome == found
        else:
            with pytest.raises(ValueError, match=f"T-01: claim comes out '{found}'"):
                read(bad)


def test_a_conditional_row_has_to_hold_where_and_fail_where_not(read):
    kinds = ("more", "less", "same")
    for predicts, yes, no in itertools.product(("more", "same"), kinds, kinds):
        measured = {"where": MEASURE | {"outcome": yes}, "where_not": MEASURE | {"outcome": no}}
        bad = row(**CONDITIONAL | {"predicts": predicts, "measured": measured})
        if yes == predicts and no != predicts:
            assert set(read(bad)["T-01"].measured) == {"where", "where_not"}
        else:
            with pytest.raises(ValueError, match="T-01: where"):
                read(bad)


BAD_ROWS = {
    "verdict unknown": (row(verdict="maybe"), "verdict .*'maybe'"),
    "verdict unquoted": (row(verdict=False), "verdict .*False"),
    "verdict missing": (row(verdict=GONE), "verdict"),
    "predicts less": (row(predicts="less"), "predicts .*'less'"),
    "id missing": (row(id=GONE), "without id.*'id'"),
    "statement missing": (row(statement=GONE), "statement"),
    "settled_by missing": (row(settled_by=GONE), "settled_by"),
    "field unknown": (row(verdct="holds"), "verdct"),
    "where missing": (row(**CONDITIONAL | {"where": GONE}), "where"),
    "where_not missing": (row(**CONDITIONAL | {"where_not": GONE}), "where_not"),
    "where_not empty": (row(**CONDITIONAL | {"where_not": ""}), "where_not"),
    "both regimes on a plain row": (row(where="here", where_not="there"), "conditional"),
    "where on a plain row": (row(where="here"), "conditional"),
    "where_not on a plain row": (row(where_not="there"), "conditional"),
    "where on a waiting plain row": (
        row(where="here", settled_by=None, measured=None),
        "conditional",
    ),
    "needs unknown": (row(needs="minst"), "needs .*'minst'"),
    "measured missing": (row(measured=None), r"measured .*\['claim'\]"),
    "measured empty": (row(measured={}), r"measured .*\['claim'\]"),
    "measured a list": (row(measured=[MEASURE]), "measured"),
    "measured a word": (row(measured="more"), "measured"),
    "plain row with regimes": (row(measured=CONDITIONAL["measured"]), "measured"),
    "regimes without measures": (row(**CONDITIONAL | {"measured": measured()}), "measured"),
    "half of the regimes": (row(**CONDITIONAL | {"measured": {"where": MEASURE}}), "measured"),
    "regime without fields": (row(measured={"claim": None}), "Measure|claim"),
    "open row, outcome unknown": (
        row(verdict="open", measured=measured(outcome="better")),
        "outcome",
    ),
    "open row, margin 0": (
        row(verdict="open", measured=measured(outcome="unclear", margin=0)),
        "margin",
    ),
    "outcome unclear": (row(measured=measured(outcome="unclear")), "outcome"),
    "outcome unknown": (row(measured=measured(outcome="better")), "outcome"),
    "measure with another field": (row(measured=measured(units="points")), "units"),
    "margin 0": (row(measured=measured(margin=0)), "margin"),
    "margin below 0": (row(measured=measured(margin=-1)), "margin"),
    "margin NaN": (row(measured=measured(margin=math.nan)), "margin"),
    "margin infinite": (row(measured=measured(margin=math.inf)), "margin"),
    "margin null": (row(measured=measured(margin=None)), "margin"),
    "margin a word": (row(measured=measured(margin="small")), "margin"),
    **{f"{k} missing": (row(measured=measured(**{k: GONE})), k) for k in MEASURE},
    **{f"{k} empty": (row(measured=measured(**{k: ""})), k) for k in ("effect", "unit", "why")},
}


@pytest.mark.parametrize(("bad", "message"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_refused_by_name(read, bad, message):
    name = "T-01: " if "id" in bad else ""
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        read(row(id="T-00"), bad)


def test_a_margin_that_yaml_takes_for_a_word_is_refused_by_name(read):
    text = yaml.safe_dump([row()])  # YAML 1.1 reads 1e-3 as a word, 1.0e-3 as a number
    assert read(text=text.replace("0.5", "1.0e-3"))["T-01"].measured["claim"].margin == 1e-3
    with pytest.raises(ValueError, match=r"T-01: .*margin"):
        read(text=text.replace("0.5", "1e-3"))


@pytest.mark.parametrize("text", ["", "id: T-01\n", "- T-01\n", "- [T-01]\n", "- null\n"])
def test_a_file_that_is_no_list_of_rows_is_refused(read, text):
    with pytest.raises(ValueError, match=r"row|claims"):
        read(text=text)


def test_an_id_stands_once(read):
    with pytest.raises(ValueError, match="T-01: the id stands twice"):
        read(row(), row(id="T-02"), row(statement="Another."))


def test_the_ledger_is_found_beside_lib_or_inside_it(tmp_path, monkeypatch):
    assert claims.find_claims() == ROOT / "claims.yml"
    here = tmp_path / "lib"
    here.mkdir()
    monkeypatch.setattr(claims, "__file__", str(here / "claims.py"))
    with pytest.raises(FileNotFoundError, match=r"claims\.yml is neither in"):
        claims.find_claims()
    (here / "claims.yml").write_text("")
    assert claims.find_claims() == here / "claims.yml"
    (tmp_path / "claims.yml").write_text("")
    assert claims.find_claims() == tmp_path / "claims.yml"


# Settling

PLAIN = [row(), row(id="T-02", **CONDITIONAL)]


def test_effects_that_agree_settle_a_claim(book):
    book(*PLAIN)
    x = np.linspace(1, 2, 10)
    found = claims.measure("T-01", x)
    assert found.claim.id == "T-01"
    assert found.found == {"claim": interval(x)}
    assert found.effects == {"claim": x.tolist()}
    assert found.line() == (
        "T-01  holds  |  1.5 points, 95 % interval 1.26 to 1.74, 10 seeds; margin 0.5 "
        "(beyond the margin)"
    )


def test_a_conditional_claim_needs_both_regimes_at_once(book):
    book(*PLAIN)
    found = claims.measure("T-02", where=np.linspace(1, 2, 10), where_not=Exact(0))
    assert list(found.found) == ["where", "where_not"]
    assert found.line() == (
        "T-02  holds under conditions  |  where: 1.5 points, 95 % interval 1.26 to 1.74, "
        "10 seeds; margin 0.5 (beyond the margin)  |  where_not: 0 points, exact; margin 0.5 "
        "(within the margin)"
    )


@pytest.mark.parametrize(
    ("id", "given"),
    [
        ("T-01", {}),
        ("T-01", {"where": Exact(1)}),
        ("T-01", {"effects": Exact(1), "where": Exact(1)}),
        ("T-02", {}),
        ("T-02", {"effects": Exact(1)}),
        ("T-02", {"where": Exact(1)}),
        ("T-02", {"where_not": Exact(0)}),
        ("T-02", {"effects": Exact(1), "where": Exact(1), "where_not": Exact(0)}),
    ],
)
def test_other_regimes_are_refused(book, id, given):
    book(*PLAIN)
    with pytest.raises(ValueError, match=rf"{id} is settled by \[.*got \["):
        claims.measure(id, **given)


@pytest.mark.parametrize("given", [{}, {"effects": Exact(1)}, {"where": Exact(1)}])
@pytest.mark.parametrize("settled_by", [None, "reference"])
def test_a_row_without_measure_is_settled_by_nothing(book, settled_by, given):
    book(row(measured=None, settled_by=settled_by))
    with pytest.raises(ValueError, match="T-01 is settled by"):
        claims.measure("T-01", **given)


def test_an_unknown_id_is_refused(book):
    book(*PLAIN)
    with pytest.raises(KeyError, match="no claim 'T-99'"):
        claims.settle("T-99", Exact(1))


@pytest.mark.parametrize("bad", [[1.0] * 9, [math.nan] * 10, np.ones((10, 2))])
def test_settling_refuses_bad_effects(book, bad):
    book(*PLAIN)
    with pytest.raises(ValueError, match="effects has to be"):
        claims.measure("T-01", bad)


def test_effects_that_disagree_raise_and_say_all(book):
    book(*PLAIN)
    with pytest.raises(ClaimError) as told:
        claims.settle("T-01", -np.linspace(1, 2, 10))
    for part in (
        "T-01", "(claim)", "'more'", "'less'", f"{MINUS}1.5 points",
        f"{MINUS}1.74 to {MINUS}1.26", "10 seeds", "margin 0.5", MEASURE["effect"],
    ):  # fmt: skip
        assert part in str(told.value)
    with pytest.raises(ClaimError) as told:
        claims.settle("T-02", where=Exact(1), where_not=Exact(0.7))
    for part in ("T-02", "(where_not)", "'same'", "'more'", "0.7 points", "margin 0.5"):
        assert part in str(told.value)
    with pytest.raises(ClaimError, match=r"T-01 \(claim\).*'more'.*'unclear'"):
        claims.settle("T-01", np.linspace(-10, 12, 10))


def test_a_disagreement_fails_a_test_and_leaves_no_output(book, capsys):
    book(*PLAIN)
    assert issubclass(ClaimError, AssertionError)
    with pytest.raises(ClaimError):
        claims.settle("T-01", Exact(0))
    assert capsys.readouterr().out == ""


def must_raise(id, regime, bad):
    """Settle with effects that agree in every regime but one."""
    given = {r: effects_for(m) for r, m in claims.load()[id].measured.items()} | {regime: bad}
    given = {"effects" if r == "claim" else r: x for r, x in given.items()}
    with pytest.raises(ClaimError, match=rf"{id} \({regime}\)"):
        claims.measure(id, **given)


def check_that_the_machinery_can_say_no(id):
    """Zero effects, flipped signs and, for equalities, shifts to either side are refused."""
    measured = claims.load()[id].measured
    good = {r: effects_for(m) for r, m in measured.items()}
    good = {"effects" if r == "claim" else r: x for r, x in good.items()}
    claims.measure(id, **good)
    for regime, m in measured.items():
        if m.outcome == "same":
            must_raise(id, regime, effects_for(m, "more"))
            must_raise(id, regime, effects_for(m, "less"))
            must_raise(id, regime, Exact(2 * m.margin))
            must_raise(id, regime, Exact(-2 * m.margin))
        else:
            must_raise(id, regime, np.zeros(20))
            must_raise(id, regime, effects_for(m, "same"))
            must_raise(id, regime, Exact(0))
            must_raise(id, regime, -effects_for(m))


def test_the_machinery_can_say_no(book):
    both = {"where": MEASURE | {"outcome": "same"}, "where_not": MEASURE | {"outcome": "less"}}
    book(
        row(),
        row(id="T-02", verdict="false", measured=measured(outcome="less")),
        row(id="T-03", verdict="false", measured=measured(outcome="same")),
        row(id="T-04", predicts="same", measured=measured(outcome="same")),
        row(id="T-05", **CONDITIONAL),
        row(id="T-06", **CONDITIONAL | {"predicts": "same", "measured": both}),
    )
    for id in claims.load():
        check_that_the_machinery_can_say_no(id)


def test_the_machinery_can_say_no_to_every_row_that_is_measured():
    for id, claim in REAL.items():
        if claim.measured and claim.verdict != "open":
            check_that_the_machinery_can_say_no(id)


def test_outside_a_notebook_settling_prints_one_line(book, capsys):
    book(*PLAIN)
    found = claims.measure("T-01", np.linspace(1, 2, 10))
    assert capsys.readouterr().out == ""
    claims.settle("T-01", np.linspace(1, 2, 10))
    assert capsys.readouterr().out == found.line() + "\n"
    found = claims.measure("T-02", where=Exact(1), where_not=Exact(0))
    claims.settle("T-02", where=Exact(1), where_not=Exact(0))
    assert capsys.readouterr().out == found.line() + "\n"


def test_a_notebook_gets_line_card_and_record(book):
    book(*PLAIN)
    found = claims.measure("T-01", np.linspace(1, 2, 10))
    output = output_of(found)
    assert output.data["text/plain"] == found.line()
    assert output.data["text/html"] == cards.card(found.claim, found.record())
    assert claims.records_of(notebook_of(output)) == [found.record()]


def output_of(shown):
    """The output that IPython makes of what a cell displays."""
    data, metadata = DisplayFormatter().format(shown)
    return nbformat.v4.new_output("display_data", data, metadata=metadata)


def notebook_of(*outputs):
    """A notebook with one cell, as it is read from its file."""
    cell = nbformat.v4.new_code_cell("settle(...)", outputs=list(outputs))
    return json.loads(nbformat.writes(nbformat.v4.new_notebook(cells=[cell])))


def shown(call):
    """What a call hands to the notebook, which has to be one thing, and how."""
    with mock.patch("IPython.display.display") as display:
        call()
    display.assert_called_once()
    (given,), options = display.call_args
    return given, options


def test_settling_shows_what_was_measured(book):
    book(*PLAIN)
    given, _ = shown(lambda: claims.settle("T-02", where=Exact(1), where_not=Exact(0)))
    assert given == claims.measure("T-02", where=Exact(1), where_not=Exact(0))


# Sentences of a chapter's own

OWN = "`a` < $b$ & so on"


def test_a_sentence_of_the_chapter_is_judged_and_shown():
    x = np.linspace(1, 2, 10)
    data, options = shown(
        lambda: claims.check(OWN, x, margin=0.5, unit="points", effect="a < b")
    )
    assert data["text/plain"] == (
        f"{OWN}  |  1.5 points, 95 % interval 1.26 to 1.74, 10 seeds; margin 0.5 "
        "(beyond the margin)"
    )
    text = text_of(parse(data["text/html"]))
    for part in ("a < \\(b\\) & so on", "a < b", "1.5 points", "10 seeds", "margin of 0.5"):
        assert part in text
    # the ledger holds what the notes say, and no more
    output = nbformat.v4.new_output("display_data", data, metadata=options.get("metadata", {}))
    assert claims.records_of(notebook_of(output)) == []


@pytest.mark.parametrize("stated", claims.OUTCOMES)
@pytest.mark.parametrize("found", ["more", "less", "same", "unclear"])
def test_a_sentence_of_the_chapter_can_fail(stated, found):
    value = {"more": 2, "less": -2, "same": 0, "unclear": 1}[found]

    def check():
        claims.check(OWN, Exact(value), outcome=stated, margin=1, unit="points")

    if stated == found:
        assert shown(check)
        return
    with pytest.raises(ClaimError) as told:
        check()
    for part in (OWN, f"'{stated}'", f"'{found}'", f"{value} points".replace("-", MINUS)):
        assert part in str(told.value)


def test_a_sentence_of_the_chapter_refuses_bad_input():
    with pytest.raises(ValueError, match=r"outcome has to be one of .*'unclear'"):
        claims.check(OWN, Exact(1), outcome="unclear", margin=1, unit="points")
    with pytest.raises(ValueError, match=r"margin has to be positive.*0"):
        claims.check(OWN, Exact(1), margin=0, unit="points")
    with pytest.raises(ValueError, match="effects has to be"):
        claims.check(OWN, [1.0] * 9, margin=1, unit="points")


# Records


def settlements(book):
    book(*PLAIN)
    return [
        claims.measure("T-01", np.linspace(1, 2, 10, dtype=np.float32)),
        claims.measure("T-02", where=Exact(np.int64(1)), where_not=np.zeros(12)),
    ]


def test_a_record_is_plain_json_and_complete(book):
    for found in settlements(book):
        record = found.record()
        assert json.loads(json.dumps(record, allow_nan=False)) == record
        assert record["id"] == found.claim.id
        assert record["device"] in ("cpu", "cuda")
        assert isinstance(record["seed"], int)
        assert {"python", "torch", "numpy"} <= set(record["versions"])
        for regime, result in record["regimes"].items():
            kept = Interval(*(result[k] for k in ("effect", "low", "high", "n")))
            assert kept == found.found[regime]
            assert len(result["effects"]) == result["n"]


def test_a_record_keeps_the_margin_it_was_judged_by(book):
    # design.md: effect, interval, n, margin, device, seed, versions
    for found in settlements(book):
        for result in found.record()["regimes"].values():
            assert result["margin"] == 0.5


def test_a_record_replays_to_the_outcome_it_was_settled_with(book):
    for found in settlements(book):
        record = json.loads(json.dumps(found.record()))
        for regime, result in record["regimes"].items():
            got = claims.replay(found.claim, regime, result["effects"])
            assert got == found.claim.measured[regime].outcome
            flipped = [-x for x in result["effects"]]
            assert (claims.replay(found.claim, regime, flipped) == got) == (got == "same")


def test_a_record_names_the_seed_of_its_run(book, monkeypatch):
    monkeypatch.setenv("COURSE_SEED", "7")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    claims.provenance.cache_clear()
    try:
        record = settlements(book)[0].record()
    finally:
        claims.provenance.cache_clear()
    assert (record["seed"], record["device"]) == (7, "cpu")


def test_records_are_found_again_in_a_notebook(book):
    first, second = settlements(book)
    v4 = nbformat.v4
    others = [
        v4.new_output("stream", name="stderr", text="a bar"),
        v4.new_output(
            "display_data", {"text/plain": "x"}, metadata={"course": {"figure": "x"}}
        ),
        v4.new_output("execute_result", {"text/plain": "2"}),
        v4.new_output("error", ename="E", evalue="", traceback=[]),
    ]
    notebook = notebook_of(*others, output_of(first), output_of(second))
    notebook["cells"] += notebook_of(output_of(first))["cells"]
    notebook["cells"].insert(0, {"cell_type": "markdown", "metadata": {}, "source": "# Title"})
    expected = [first.record(), second.record(), first.record()]
    assert claims.records_of(notebook) == expected


def test_a_notebook_without_settlements_has_no_records():
    assert claims.records_of({"cells": []}) == []


# The card


def test_a_card_escapes_and_typesets(book):
    statement = 'a < b & c > d; `x < y & z`; $p < q$; it\'s "so"'
    book(row(statement=statement, measured=measured(effect="<i> & `k`", unit="<u>")))
    found = claims.measure("T-01", np.linspace(1, 2, 10))
    root = parse(cards.card(found.claim, found.record()))
    shown = root.find(".//p[@class='claim-statement']")
    assert text_of(shown) == 'a < b & c > d; x < y & z; \\(p < q\\); it\'s "so"'
    assert [e.text for e in shown.findall("code")] == ["x < y & z"]
    math_ = shown.find("span")
    assert math_.text == "\\(p < q\\)"
    assert "math" in math_.get("class").split()
    assert text_of(root.find(".//p[@class='claim-effect']")) == "<i> & k"
    assert "1.5 <u>" in text_of(root)
    assert not root.findall(".//i")
    assert not root.findall(".//u")


def test_a_card_holds_the_numbers_of_the_record(book):
    first, second = settlements(book)
    text = text_of(parse(cards.card(first.claim, first.record())))
    for part in ("T-01", "holds", "1.5 points", "1.26 to 1.74", "10 seeds", "margin of 0.5"):
        assert part in text
    root = parse(cards.card(second.claim, second.record()))
    assert len(root.findall(".//svg")) == 2
    text = text_of(root)
    for part in ("a deep network", "a shallow network", "1 points (exact)", "12 seeds"):
        assert part in text
    assert text.count("95 %") == 1


def test_a_card_without_heading_leaves_out_the_statement(book):
    found = settlements(book)[0]
    root = parse(cards.card(found.claim, found.record(), heading=False))
    assert "It helps." not in text_of(root)
    assert "1.5 points" in text_of(root)


def test_a_card_of_an_effect_the_other_way_reads_as_a_sentence(book):
    book(row(verdict="false", measured=measured(outcome="less")))
    found = claims.measure("T-01", Exact(-1))
    text = text_of(parse(cards.card(found.claim, found.record())))
    assert "the other way of 0.5" not in text
    assert "margin of 0.5" in text


@pytest.mark.parametrize(
    ("source", "shown", "codes", "formulas"),
    [
        ("plain", "plain", [], []),
        ("a lone $ and 5", "a lone $ and 5", [], []),
        ("$x$ and $y_i$", "\\(x\\) and \\(y_i\\)", [], ["\\(x\\)", "\\(y_i\\)"]),
        ("`a` and $b$", "a and \\(b\\)", ["a"], ["\\(b\\)"]),
        ("`$HOME` and `$PATH`", "$HOME and $PATH", ["$HOME", "$PATH"], []),
        ("`$x$`", "$x$", ["$x$"], []),
        ("`$HOME` is $x$", "$HOME is \\(x\\)", ["$HOME"], ["\\(x\\)"]),
        ("a lone ` tick", "a lone ` tick", [], []),
        ("&lt; stays", "&lt; stays", [], []),
    ],
)
def test_code_and_formulas_in_a_line_of_text(source, shown, codes, formulas):
    root = parse(cards.inline(source))
    assert text_of(root) == shown
    assert [text_of(e) for e in root.iter("code")] == codes
    assert [text_of(e) for e in root.iter("span")] == formulas


def test_the_whisker_stays_in_its_picture_and_in_order():
    rng = np.random.default_rng(2)
    for _ in range(200):
        low, effect, high = np.sort(rng.normal(0, 10.0 ** rng.integers(-6, 6), 3))
        margin = 10.0 ** rng.integers(-6, 6)
        svg = ET.fromstring(cards.whisker(Interval(effect, low, high, 20), margin))
        bar, dot = svg.find("*[@class='bar']"), svg.find("*[@class='dot']")
        zero, rect = svg.find("*[@class='zero']"), svg.find("*[@class='band']")
        left, right = float(bar.get("x1")), float(bar.get("x2"))
        assert 0 <= left <= float(dot.get("cx")) <= right <= 200
        assert zero.get("x1") == zero.get("x2") == "100.0"
        x, width = float(rect.get("x")), float(rect.get("width"))
        assert 0 <= x <= 100
        assert x + width / 2 == pytest.approx(100, abs=0.1)
        assert svg.get("aria-hidden") == "true"


# Numbers on the page


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0, "0"),
        (-0.0, "0"),
        (-0.5, f"{MINUS}0.5"),
        (1e-12, f"1.00e{MINUS}12"),
        (-1e-12, f"{MINUS}1.00e{MINUS}12"),
        (0.0005, f"5.00e{MINUS}04"),
        (0.001, "0.001"),
        (0.12345, "0.123"),
        (99.96, "100"),
        (1234.4, "1234"),
        (99999.6, "100000"),
        (123456, "123456"),
        (-123456, f"{MINUS}123456"),
        (1e7, "1.00e+07"),
        (np.float32(2.5), "2.5"),
    ],
)
def test_format_keeps_three_digits_and_a_true_minus(x, text):
    assert cards.format_number(x) == text


def test_format_reads_back_within_half_a_percent():
    rng = np.random.default_rng(3)
    for x in rng.normal(size=500) * 10.0 ** rng.integers(-12, 12, 500):
        text = cards.format_number(x)
        assert "-" not in text
        assert float(text.replace(MINUS, "-")) == pytest.approx(x, rel=0.005001)


@pytest.fixture
def emitted(monkeypatch):
    """What `number` hands to the notebook, with an empty store."""
    outputs = []

    def display(data, *, raw, metadata):
        assert raw
        outputs.append(nbformat.v4.new_output("display_data", data, metadata=metadata))

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(claims, "numbers", {})
    monkeypatch.delenv("COURSE_QUIET", raising=False)
    return outputs


def test_number_stores_and_emits_the_scrapbook_record(emitted):
    claims.number("gain", 1.25)
    claims.number("steps", 1500, ",.0f")
    claims.number("best", "Adam")
    claims.number("tensor", torch.tensor(0.5), ".2f")
    assert claims.numbers == {"gain": "1.2", "steps": "1,500", "best": "Adam", "tensor": "0.50"}
    prefix = "application/papermill.record/"
    assert emitted[0].data == {prefix + "text/plain": "1.2"}
    assert emitted[0].metadata == {"scrapbook": {"name": "gain", "mime_prefix": prefix}}


def test_the_page_finds_the_number_by_its_name(emitted):
    glue = pytest.importorskip("myst_nb.ext.glue")
    claims.number("gain", 1.25)
    ((name, found),) = glue.extract_glue_data_cell(
        nbformat.v4.new_code_cell("number(...)", outputs=emitted)
    )
    assert (name, dict(found.data)) == ("gain", {"text/plain": "1.2"})


def test_number_can_be_quiet(emitted, monkeypatch):
    monkeypatch.setenv("COURSE_QUIET", "1")
    claims.number("gain", 1.25)
    assert (claims.numbers, emitted) == ({"gain": "1.2"}, [])


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("nan")])
def test_number_refuses_what_a_sentence_cannot_say(emitted, bad):
    with pytest.raises(ValueError, match=r"gain.*(nan|inf)"):
        claims.number("gain", bad)


def test_number_refuses_a_plus_sign_which_the_page_would_drop(emitted):
    for value, spec in ((1.5, "+.1f"), ("+1.5 ± 0.2", "")):
        with pytest.raises(ValueError, match="without a plus sign"):
            claims.number("gain", value, spec)
    assert not emitted


def test_number_shows_no_negative_zero(emitted):
    claims.number("gain", -0.04)
    assert claims.numbers["gain"] == "0.0"


# The ledger itself

COUNTS = {
    "NORM": 6, "INIT": 84, "PRE": 8, "BN": 25, "OPT": 13, "WD": 22, "DO": 20, "ES": 12,
    "SCH": 14, "HPO": 10,
}  # fmt: skip
SETTLE = re.compile(r"\bsettle\(\s*[\"']([^\"']+)[\"']")
TYPED_RESULT = re.compile(r"\d[.,]\d+\s*(?:%|\\%|points?\b|percent)")


def sources():
    """Chapters and tests that settle claims, by their path from the root."""
    found = [*(ROOT / "chapters").rglob("*.md"), *(ROOT / "tests" / "claims").rglob("*.py")]
    return {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in found}


class Strict(yaml.SafeLoader):
    """A loader that refuses a key written twice, which YAML would let the second one win."""

    def construct_mapping(self, node, deep=False):
        keys = [k.value for k, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key stands twice{node.start_mark}"
        return super().construct_mapping(node, deep)


def test_the_ledger_holds_every_row_in_order():
    assert list(REAL) == [f"{k}-{i:02d}" for k, n in COUNTS.items() for i in range(1, n + 1)]
    assert len(REAL) == 214


def test_verdicts_sum_to_the_rows():
    counts = Counter(c.verdict for c in REAL.values())
    assert set(counts) <= set(claims.VERDICTS)
    assert sum(counts.values()) == 214


def test_no_key_is_written_twice():
    yaml.load((ROOT / "claims.yml").read_text(encoding="utf-8"), Strict)
    with pytest.raises(AssertionError, match="twice"):
        yaml.load("- {margin: 1, margin: 2}", Strict)


def test_every_row_says_something():
    for claim in REAL.values():
        for field in ("chapter", "topic", "statement", "kind", "reason", "plan"):
            value = getattr(claim, field)
            assert isinstance(value, str), (claim.id, field)
            assert value.strip(), (claim.id, field)
        assert isinstance(claim.notes, list), claim.id
        assert set(claim.notes) <= {f"S{i}" for i in range(5)}, claim.id


def test_every_reference_stands_in_the_bibliography():
    text = (ROOT / "references.bib").read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{\s*([^,\s]+)\s*,", text, flags=re.M)
    assert len(keys) == len(set(keys))
    for claim in REAL.values():
        assert isinstance(claim.references, list), claim.id
        assert set(claim.references) <= set(keys), claim.id
        assert claim.settled_by != "reference" or claim.references, claim.id


def test_every_source_exists_and_names_its_claims():
    texts = sources()
    for claim in REAL.values():
        if claim.settled_by in (None, "reference"):
            continue
        assert claim.settled_by in texts, f"{claim.id}: no file {claim.settled_by}"
        assert re.search(rf"\b{claim.id}\b", texts[claim.settled_by]), claim.id


def test_every_settlement_is_the_one_that_the_ledger_names():
    calls = [(id, path) for path, text in sources().items() for id in SETTLE.findall(text)]
    twice = [id for id, n in Counter(id for id, _ in calls).items() if n > 1]
    assert not twice
    for id, path in calls:
        assert id in REAL, f"{path} settles {id}"
        assert REAL[id].settled_by == path, f"{path} settles {id}"


def test_no_waiting_row_is_measured():
    for row in yaml.safe_load((ROOT / "claims.yml").read_text(encoding="utf-8")):
        assert row["settled_by"] is not None or row["measured"] is None, row["id"]


def test_no_result_is_typed_into_prose():
    typed = [
        (claim.id, found)
        for claim in REAL.values()
        for text in (claim.statement, claim.reason, claim.where, claim.where_not)
        for found in TYPED_RESULT.findall(text or "")
    ]
    assert not typed


def test_the_guards_see_what_they_look_for():
    assert SETTLE.findall('settle("BN-01", x)\nclaims.settle(\n    "BN-02",') == [
        "BN-01",
        "BN-02",
    ]
    assert not SETTLE.findall('resettle("BN-01") and settled_by("BN-01")')
    for text in ("gains 1.5 points", "of 98.1 %", "97.2\\%", "0.5 percent"):
        assert TYPED_RESULT.search(text), text
    for text in ("momentum 0.9", "keeps 80 %", "Dropout(0.2) keeps", "1.5 pointers"):
        assert not TYPED_RESULT.search(text), text


def test_every_text_of_the_ledger_makes_well_formed_html():
    for claim in REAL.values():
        root = parse(cards.card(claim, {"regimes": {}}))
        assert claim.id in text_of(root)
        texts = [claim.statement, claim.reason, claim.plan, claim.where, claim.where_not]
        texts += [m.effect for m in claim.measured.values()]
        for text in filter(None, texts):
            assert text.count("`") % 2 == 0, (claim.id, text)
            assert text.count("$") % 2 == 0, (claim.id, text)
            assert "$" not in text_of(parse(cards.inline(text))), (claim.id, text)
