"""How figures, figures that move, and tables come onto a page."""

from __future__ import annotations

import hashlib
import html
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from lib.svg import lean_svg, merge, own


def show(*axes: Axes, alt: str, caption: str = "", key: str | None = None) -> None:
    """Put panels on the page as one figure.

    alt: what a reader who cannot see the figure has to know, in words.
    caption: the sentence below the figure. key: a name by which another page can show it too.
    """
    _check_alt(alt)
    if not axes:
        raise ValueError("a figure needs at least one panel")
    drawn = [own(lean_svg(ax.figure), i) for i, ax in enumerate(axes)]
    body = "".join(ET.tostring(svg, encoding="unicode") for svg in drawn)
    _display(_figure(body, len(axes), alt, caption), alt, key)


def table(header: Sequence[str], rows: Sequence[Sequence], *, caption: str) -> None:
    """A table on the page: the first column names the rows, the others are numbers or words."""
    widths = {len(header), *(len(row) for row in rows)}
    if len(widths) > 1:
        raise ValueError(f"header and rows have to be of one length, but got {sorted(widths)}")
    cells = [[html.escape(str(c)) for c in row] for row in rows]
    # an empty corner is no header of anything
    head = "".join(
        f'<th scope="col">{html.escape(str(c))}</th>' if str(c) else "<td></td>" for c in header
    )
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td>{c}</td>" for c in row[1:])
        + "</tr>"
        for row in cells
    )
    page = (
        f'<div class="tt-scroll" role="region" tabindex="0" '
        f'aria-label="{html.escape(caption, quote=True)}">'
        f'<table class="tt-table"><caption>{html.escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    wide = [[str(c) for c in row] for row in (header, *rows)]
    size = [max(len(row[i]) for row in wide) for i in range(len(header))]
    text = "\n".join("  ".join(c.ljust(n) for c, n in zip(row, size)) for row in wide)
    from IPython.display import display

    display({"text/html": page, "text/plain": f"{caption}\n{text}"}, raw=True)


def player(
    draw: Callable[[int], Sequence[Axes]],
    labels: Sequence[str],
    *,
    alt: str,
    caption: str = "",
    key: str | None = None,
    fps: float = 4,
) -> None:
    """A figure that moves: draw(k) returns the panels of frame k, labels[k] names it.

    The reader plays it or scrubs through it; without scripts the last frame stands still.
    What all frames share is stored once.
    """
    _check_alt(alt)
    if not labels:
        raise ValueError("labels has to name at least one frame")
    if not fps > 0:
        raise ValueError(f"fps has to be positive, but got {fps}")
    frames = [[lean_svg(ax.figure) for ax in draw(k)] for k in range(len(labels))]
    counts = [len(frame) for frame in frames]
    if min(counts) < 1 or len(set(counts)) > 1:
        raise ValueError(f"every frame needs the same panels, but draw returned {counts}")
    merged = [own(merge([frame[p] for frame in frames]), p) for p in range(counts[0])]
    body = "".join(ET.tostring(svg, encoding="unicode") for svg in merged)
    uid = "p" + hashlib.sha256((body + _json(list(labels)) + alt).encode()).hexdigest()[:10]
    last = len(labels) - 1
    controls = (
        '<div class="tt-controls" style="display:none;gap:.6em;align-items:center">'
        '<button type="button">Play</button>'
        f'<input type="range" min="0" max="{last}" value="{last}" step="1" '
        f'aria-label="Frame of the figure" style="flex:1;min-width:5em">'
        f'<output style="min-width:8em">{html.escape(labels[last])}</output></div>'
    )
    script = _SCRIPT % {"uid": uid, "labels": _json(list(labels)), "ms": round(1000 / fps)}
    _display(
        _figure(body, len(merged), alt, caption, controls, uid) + f"<script>{script}</script>",
        alt,
        key,
    )


_SCRIPT = """(() => {
const figure = document.getElementById("%(uid)s"), labels = %(labels)s;
const [play, slider, label] = ["button", "input", "output"].map(s => figure.querySelector(s));
const frames = figure.querySelectorAll("[data-frame]");
let timer = null;
function go(k) {
  frames.forEach(g => g.style.display = +g.dataset.frame === k ? "" : "none");
  slider.value = k; label.textContent = labels[k];
  slider.setAttribute("aria-valuetext", labels[k]);
}
function stop() { clearInterval(timer); timer = null; play.textContent = "Play"; }
slider.addEventListener("input", () => { stop(); go(+slider.value); });
play.addEventListener("click", () => {
  if (timer) return stop();
  if (+slider.value === labels.length - 1) go(0);
  play.textContent = "Pause";
  timer = setInterval(() => {
    if (+slider.value === labels.length - 1) return stop();
    go(+slider.value + 1);
  }, %(ms)d);
});
go(labels.length - 1);
figure.querySelector(".tt-controls").style.display = "flex";  // without scripts, no controls
})();"""


def _json(labels: list[str]) -> str:
    return json.dumps(labels).replace("<", "\\u003c")


def _check_alt(alt: str) -> None:
    if not isinstance(alt, str) or len(alt.split()) < 8:
        raise ValueError(
            f"alt has to say what the figure shows, in a sentence, but got {alt!r}"
        )


def _figure(
    body: str, n: int, alt: str, caption: str, controls: str = "", uid: str = ""
) -> str:
    from markdown_it import MarkdownIt

    below = f"<figcaption>{MarkdownIt().renderInline(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="tt-figure tt-n{min(n, 3)}"{f" id={uid!r}" if uid else ""}>'
        f'<div class="tt-panels" role="img" aria-label="{html.escape(alt, quote=True)}" '
        f'style="display:flex;flex-wrap:wrap;gap:8px">{body}</div>{controls}{below}</figure>'
    )


def _display(page: str, alt: str, key: str | None) -> None:
    from IPython.display import display

    display(
        {"text/html": page, "text/plain": f"[figure: {alt}]"},
        raw=True,
        metadata={"course": {"figure": key}} if key else {},
    )
