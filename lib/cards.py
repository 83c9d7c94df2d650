"""What a settled claim looks like on a page: the words, the numbers and a small picture."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from lib.intervals import Interval

if TYPE_CHECKING:
    from lib.claims import Claim, Measure

VERDICT_WORDS = {
    "holds": "holds",
    "false": "false",
    "conditional": "holds under conditions",
    "open": "open",
}
OUTCOME_WORDS = {
    "more": "beyond the margin",
    "less": "the other way, beyond the margin",
    "same": "within the margin",
    "unclear": "cannot tell",
}
TAGS = {"claim": "", "where": "Where it holds", "where_not": "Where it does not"}


def format_number(x: float) -> str:
    """Three significant digits with a true minus sign, no exponent for everyday sizes."""
    if x == 0:
        return "0"
    text = f"{x:.3g}" if 1e-3 <= abs(x) < 1e5 else f"{x:.2e}"
    if "e" in text and 1 <= abs(x) < 1e6:
        text = f"{x:.0f}"
    return text.replace("-", "\N{MINUS SIGN}")


def in_numbers(found: Interval, m: Measure) -> str:
    unit = f" {m.unit}" if m.unit else ""
    if found.n == 1:
        return f"{format_number(found.effect)}{unit}, exact; margin {format_number(m.margin)}"
    return (
        f"{format_number(found.effect)}{unit}, 95 % interval {format_number(found.low)} to "
        f"{format_number(found.high)}, {found.n} seeds; margin {format_number(m.margin)}"
    )


def card(claim: Claim, record: dict, *, heading: bool = True) -> str:
    """The claim and its numbers as HTML, the same on a chapter and on the ledger page."""
    rows = []
    for regime, result in record["regimes"].items():
        found = Interval(*(result[k] for k in ("effect", "low", "high", "n")))
        words = {"claim": "", "where": claim.where, "where_not": claim.where_not}[regime]
        rows.append(regime_html(found, claim.measured[regime], TAGS[regime], words))
    head = (
        f'<p class="claim-head"><a class="claim-id" data-claim="{claim.id}">{claim.id}</a> '
        f'<span class="claim-verdict">{VERDICT_WORDS[claim.verdict]}</span></p>'
        f'<p class="claim-statement">{inline(claim.statement)}</p>'
        if heading
        else ""
    )
    return f'<div class="claim claim-{claim.verdict}">{head}{"".join(rows)}</div>'


def regime_html(found: Interval, m: Measure, tag: str = "", words: str = "") -> str:
    """One measurement as HTML: what it is, the picture, the numbers, what they mean."""
    tagged = f'<p class="claim-tag">{tag}: <span>{inline(words)}</span></p>' if tag else ""
    of_margin = f"the margin of {format_number(m.margin)}"
    meaning = OUTCOME_WORDS[m.outcome].replace("the margin", of_margin)
    spread = (
        " (exact)"
        if found.n == 1
        else f"<br>95 % interval {format_number(found.low)} to {format_number(found.high)}, "
        f"{found.n} seeds"
    )
    return (
        f'<div class="claim-regime claim-is-{m.outcome}">{tagged}'
        f'<p class="claim-effect">{inline(m.effect)}</p>'
        f'<div class="claim-result">{whisker(found, m.margin)}'
        f"<p><strong>{format_number(found.effect)}</strong> {inline(m.unit)}{spread}"
        f"<br>{meaning}</p></div></div>"
    )


def inline(text: str) -> str:
    """Escape text; `code` becomes <code>, $math$ outside it what MathJax looks for."""
    parts = html.escape(text, quote=False).split("`")
    if len(parts) % 2 == 0:  # a lone backtick is a backtick
        return _math("`".join(parts))
    return "".join(f"<code>{p}</code>" if i % 2 else _math(p) for i, p in enumerate(parts))


def _math(text: str) -> str:
    parts = text.split("$")
    if len(parts) % 2 == 0:  # a lone dollar is a dollar
        return text
    return "".join(
        f'<span class="math notranslate nohighlight">\\({p}\\)</span>' if i % 2 else p
        for i, p in enumerate(parts)
    )


def whisker(found: Interval, margin: float, width: int = 200, height: int = 30) -> str:
    """A small picture: the band of effects that do not count, zero, and the interval."""
    reach = 1.15 * max(abs(found.low), abs(found.high), 1.6 * margin)

    def x(value: float) -> float:
        return round(width / 2 * (1 + value / reach), 1)

    mid = height / 2
    return (
        f'<svg class="claim-whisker" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" aria-hidden="true" focusable="false">'
        f'<rect class="band" x="{x(-margin)}" y="4" width="{x(margin) - x(-margin):.1f}" '
        f'height="{height - 8}"/>'
        f'<line class="zero" x1="{x(0)}" y1="2" x2="{x(0)}" y2="{height - 2}"/>'
        f'<line class="bar" x1="{x(found.low)}" y1="{mid}" x2="{x(found.high)}" y2="{mid}"/>'
        f'<circle class="dot" cx="{x(found.effect)}" cy="{mid}" r="4.5"/></svg>'
    )
