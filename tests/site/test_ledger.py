"""The ledger page: all claims, this build's numbers, its filters, and how claims can fail."""

import json
import re

import pytest

from lib import cards, claims
from tools.execute import may_wait


@pytest.fixture(scope="module")
def records(site) -> dict:
    path = site.root / "_build" / "settled.json"
    return json.loads(path.read_text(encoding="utf-8"))["claims"]


@pytest.fixture(scope="module")
def rows(site) -> dict:
    """The rows of the page by id."""
    found = site.soup("claims.html").select(".row-claim")
    assert len({row["id"] for row in found}) == len(found)
    return {row["id"].upper(): row for row in found}


def plain(text: str, site) -> str:
    """A statement without the marks of Markdown and TeX."""
    text = re.sub(r"\\[()\[\]]|[`$*]", "", text)
    return site.squeeze(text.replace("–", "-").replace("—", "-").replace("--", "-"))


def state(claim: claims.Claim, records: dict) -> str:
    """How far this build has come with a claim."""
    if claim.id in records:
        return "measured"
    if claim.settled_by == "reference":
        return "looked up"
    return "not run here" if claim.settled_by else "waiting"


# -- what it says --------------------------------------------------------------------------


def test_every_claim_has_one_row_with_its_verdict_and_statement(rows, site):
    known = claims.load()
    assert list(rows) == sorted(known, key=lambda id: list(rows).index(id))
    assert set(rows) == set(known)
    for id, row in rows.items():
        claim = known[id]
        assert row.select_one(".claim-id").get_text() == id
        verdict = row.select_one(".claim-verdict").get_text()
        assert verdict == cards.VERDICT_WORDS[claim.verdict], id
        said = row.select_one(".claim-statement").get_text()
        assert plain(said, site) == plain(claim.statement, site), id


def test_settled_rows_show_the_numbers_of_this_build(rows, records, site):
    for id, row in rows.items():
        regimes = row.select(".claim-regime")
        record = records.get(id)
        head = row.select_one(".claim-head")
        assert head.select_one(".claim-state").get_text() == state(claims.load()[id], records)
        assert head["data-state"] == ("measured" if record else "waiting"), id
        assert len(regimes) == (len(record["regimes"]) if record else 0), id
        measured = record["regimes"].items() if record else ()
        for shown, (regime, found) in zip(regimes, measured):
            text = site.squeeze(shown.select_one(".claim-result").get_text(" "))
            measure = claims.load()[id].measured[regime]
            mean = shown.select_one(".claim-result strong").get_text()
            assert mean == cards.format_number(found["effect"]), id
            low, high = cards.format_number(found["low"]), cards.format_number(found["high"])
            if found["n"] == 1:
                assert "(exact)" in text, id
            else:
                assert f"95 % interval {low} to {high}, {found['n']} seeds" in text, id
            assert text.endswith(f" of {cards.format_number(measure.margin)}"), id


def test_each_chapter_of_the_ledger_counts_its_rows(site, records):
    for section in site.soup("claims.html").select("section:has(> .row-claim)"):
        ids = [row["id"].upper() for row in section.select(".row-claim")]
        done = sum(id in records for id in ids)
        assert f"{done} of {len(ids)} measured in this build." in section.get_text()


@pytest.mark.parametrize("source", ["index.md", "claims.md"])
def test_counts_in_prose_are_those_of_this_build(source, site, records):
    known = claims.load().values()
    settled = sum(state(c, records) in ("measured", "looked up") for c in known)
    counts = {
        "all": len(known),
        "measured": len(records),
        "settled": settled,
        "waiting": len(known) - settled,
        **{v: sum(c.verdict == v for c in known) for v in claims.VERDICTS},
    }
    text = site.words(source.replace(".md", ".html"))
    for before, name, after in site.mention(source, "count"):
        assert site.squeeze(f"{before}{counts[name]}{after}") in text


def test_the_mosaic_counts_right(site, records):
    raw = site.raw("index.html")
    squares = re.findall(r'<rect class="claim-(\w+) is-(\w+)"', raw)
    known = claims.load().values()
    assert [verdict for verdict, _ in squares] == [c.verdict for c in known]
    filled = [state(c, records) in ("measured", "looked up") for c in known]
    assert [shown == "measured" for _, shown in squares] == filled
    key = site.soup("index.html").select_one(".tt-mosaic .tt-key").get_text(" ")
    alt = site.soup("index.html").select_one(".tt-mosaic svg")["aria-label"]
    for verdict in claims.VERDICTS:
        n = sum(c.verdict == verdict for c in known)
        assert re.search(rf"\b{n} ", key), f"the key does not count {n} that are {verdict}"
        assert re.search(rf"\b{n} ", alt), f"the words do not count {n} that are {verdict}"
    assert re.search(rf"\b{sum(filled)} are filled", alt)


# -- the machinery can say no --------------------------------------------------------------


def outcomes(records: dict):
    """Every recorded settlement: claim, regime, what is stated, and the effects."""
    for id, record in records.items():
        claim = claims.load()[id]
        assert set(record["regimes"]) == set(claim.measured), id
        for regime, found in record["regimes"].items():
            yield claim, regime, claim.measured[regime], found["effects"]


def test_recorded_effects_give_the_stated_outcome(records):
    for claim, regime, measure, effects in outcomes(records):
        assert claims.replay(claim, regime, effects) == measure.outcome, (claim.id, regime)


def test_other_effects_would_have_been_refused(records):
    """No effect at all, and the opposite one; for "no difference", a difference either way."""
    deaf = []
    for claim, regime, measure, effects in outcomes(records):
        if measure.outcome == "same":
            away = 2 * measure.margin
            others = [[x + away for x in effects], [x - away for x in effects]]
        else:
            others = [[0.0] * len(effects), [-x for x in effects]]
        for other in others:
            if claims.replay(claim, regime, other) == measure.outcome:
                deaf.append(f"{claim.id} ({regime}) would also pass with {other[:3]} ...")
    assert not deaf, "\n".join(deaf)


def test_every_source_that_claims_name_has_settled_them(records):
    for claim in claims.load().values():
        if claim.settled_by in (None, "reference"):
            assert claim.id not in records
        elif claim.id in records:
            assert records[claim.id]["settled_by"] == claim.settled_by
        else:
            assert may_wait(claim), f"{claim.id}: nothing came from {claim.settled_by}"


# -- the filters ---------------------------------------------------------------------------

SHOWN = """() => [...document.querySelectorAll(".row-claim")]
  .filter(row => row.checkVisibility()).map(row => row.id.toUpperCase())"""
SECTIONS = """() => [...document.querySelectorAll("section:has(> .row-claim)")]
  .filter(s => s.checkVisibility()).length"""
SIDEWAYS = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


def expected(records, chapter="", verdict="", state="", words="", rows=None) -> list[str]:
    """The ids that a filter has to leave."""
    return [
        c.id
        for c in claims.load().values()
        if chapter in ("", c.chapter)
        and verdict in ("", c.verdict)
        and state in ("", "measured" if c.id in records else "waiting")
        and all(w in rows[c.id].get_text().lower() for w in words.lower().split())
    ]


def choose(form, **wanted) -> None:
    for name in ("chapter", "verdict", "state"):
        form.locator(f"[name={name}]").select_option(wanted.get(name, ""))
    form.locator("[name=words]").fill(wanted.get("words", ""))


@pytest.mark.parametrize("width", [360, 1440])
def test_filters(width, tab, records, rows):
    shown = tab.open("claims.html", width=width)
    form = shown.locator(".ledger-filter")
    known = claims.load()
    a_claim = next(c for c in known.values() if c.verdict == "false")
    words = sorted(re.findall(r"\b[a-z]{5,}\b", a_claim.statement), key=len)[-2:]
    filters = [
        {},
        *({"chapter": c} for c in dict.fromkeys(c.chapter for c in known.values())),
        *({"verdict": v} for v in claims.VERDICTS),
        {"state": "measured"},
        {"state": "waiting"},
        {"words": " ".join(words).upper()},
        {"words": a_claim.id},
        {"chapter": a_claim.chapter, "verdict": "false", "words": words[0]},
        {"words": "no row says anything like this"},
    ]
    for wanted in filters:
        choose(form, **wanted)
        ids = expected(records, rows=rows, **wanted)
        assert shown.evaluate(SHOWN) == ids, wanted
        count = form.locator("output").text_content()
        assert count == f"{len(ids)} of {len(known)} claims", wanted
        assert shown.evaluate(SECTIONS) == len({known[id].chapter for id in ids}), wanted
        assert not shown.evaluate(SIDEWAYS), f"{wanted} makes the page scroll sideways"
    assert a_claim.id in expected(records, words=" ".join(words), rows=rows)
    tab.forget()


@pytest.mark.parametrize("width", [360, 1440])
def test_a_link_to_a_hidden_row_shows_it(width, tab):
    shown = tab.open("claims.html", width=width)
    form = shown.locator(".ledger-filter")
    known = list(claims.load().values())
    hidden = known[-1]
    verdict = next(v for v in claims.VERDICTS if v != hidden.verdict)
    choose(form, verdict=verdict)
    assert hidden.id not in shown.evaluate(SHOWN)
    shown.evaluate(f"location.hash = '{hidden.id.lower()}'")
    shown.wait_for_function("!document.querySelector('.is-filtered')")
    assert form.locator("[name=verdict]").input_value() == ""
    assert form.locator("output").text_content() == f"{len(known)} of {len(known)} claims"
    assert in_sight(shown, hidden.id)
    tab.forget()


@pytest.mark.parametrize("width", [360, 1440])
def test_a_link_from_a_chapter_lands_on_its_row(width, tab, records):
    ids = list(claims.load())
    for id in {ids[len(ids) // 2], ids[-1], *list(records)[:1]}:
        shown = tab.open(f"claims.html#{id.lower()}", width=width)
        assert in_sight(shown, id)


def in_sight(shown, id: str) -> bool:
    """The head of the row is within the window, and not under the page's header."""
    return shown.evaluate(
        """id => {
          const head = document.getElementById(id).querySelector(".claim-head");
          const { left, top, height } = head.getBoundingClientRect();
          const hit = document.elementFromPoint(left + 5, top + height / 2);
          return top > 0 && top < innerHeight && head.parentElement.contains(hit);
        }""",
        id.lower(),
    )


def test_without_scripts_every_row_is_shown(new_tab):
    shown = new_tab(java_script_enabled=False).open("claims.html")
    assert shown.evaluate(SHOWN) == list(claims.load())
    assert not shown.locator(".ledger-filter").is_visible()
