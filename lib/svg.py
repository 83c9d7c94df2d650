"""A matplotlib figure as a lean piece of SVG that takes its colours from the page."""

from __future__ import annotations

import hashlib
import io
import re
import xml.etree.ElementTree as ET

import matplotlib
from matplotlib.figure import Figure

# Blue, vermilion, green, purple, ochre, grey: apart for every common colour blindness
# (after Okabe and Ito, 2008), darkened to a contrast of 3:1 on white. The page's style sheet
# has a lighter set for the dark theme.
COLORS = ("#0072b2", "#c85000", "#007f5f", "#a8478a", "#8f6a00", "#5b6770")
INK, MUTED, GRID = "#202428", "#5c646c", "#d4d8dc"
_VARIABLES = {c: f"var(--tt-{i}, {c})" for i, c in enumerate(COLORS, 1)} | {
    INK: "var(--tt-ink, currentColor)",
    MUTED: "var(--tt-muted, currentColor)",
    GRID: "var(--tt-grid, #8884)",
}
STYLE = {
    "figure.dpi": 72,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": matplotlib.cycler(color=COLORS),
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "text.color": INK,
    "font.size": 11.5,
    "font.family": "DejaVu Sans",
    "lines.linewidth": 2.0,
    "lines.markersize": 5,
    "legend.frameon": False,
    "savefig.bbox": None,
    "savefig.facecolor": "auto",
    "svg.fonttype": "none",
    "svg.hashsalt": "trained-and-tested",
}

_HALO = "paint-order: stroke; stroke: var(--tt-halo, none); stroke-width: 3px"
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
ET.register_namespace("", "http://www.w3.org/2000/svg")
ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")


def lean_svg(figure: Figure) -> ET.Element:
    """The figure as a lean SVG element: page colours and fonts, no ids but those in use."""
    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    root = ET.fromstring(out.getvalue())
    _, _, width, height = map(float, root.get("viewBox").split())
    root.attrib = {
        "viewBox": f"0 0 {width:g} {height:g}",
        "width": f"{width:g}",
        "height": f"{height:g}",
        "aria-hidden": "true",
        "focusable": "false",
        # here and not in a <style>, which would hold for the whole page
        "style": "stroke-linejoin: round; stroke-linecap: butt",
    }
    for tag in ("metadata", "defs/{*}style/.."):
        for element in root.findall(f"{{*}}{tag}"):
            root.remove(element)
    used = set()
    for element in root.iter():
        element.text = element.text if element.text and element.text.strip() else None
        element.tail = None
        for key, value in element.attrib.items():
            element.set(key, _lean(value))
            used |= set(re.findall(r"url\(#([\w-]+)\)", value))
        if element.tag == f"{_SVG}text":  # a line behind a word must not cross it out
            element.set("style", f"{_HALO}; {element.get('style', '')}")
        used.add(element.get(_LINK, "")[1:])
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    return root


def _lean(value: str) -> str:
    """An attribute with two decimals, the colours of the page and no name of a font."""
    value = re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}", " ".join(value.split()))
    value = re.sub(r"font: (?:(italic|oblique) )?(?:(bold|\d+) )?([\d.]+px)[^;]*", _font, value)
    value = re.sub(r"font-family: [^;]*(?:; )?", "", value).removesuffix("; ")
    for color, variable in _VARIABLES.items():
        value = value.replace(color, variable)
    return value


def _font(match: re.Match) -> str:
    slope = f"font-style: {match[1]}; " if match[1] else ""
    weight = f"font-weight: {match[2]}; " if match[2] else ""
    return f"{slope}{weight}font-size: {match[3]}"


def own(svg: ET.Element, salt: int) -> ET.Element:
    """Make the ids of a panel unlike those of other panels on a page."""
    prefix = hashlib.sha256(ET.tostring(svg) + b"%d" % salt).hexdigest()[:8]
    for element in svg.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{prefix}-{value}")
            elif key == _LINK:
                element.set(key, f"#{prefix}-{value[1:]}")
            else:
                element.set(key, value.replace("url(#", f"url(#{prefix}-"))
    return svg


def merge(frames: list[ET.Element]) -> ET.Element:
    """One SVG from the frames of a panel: equal parts once, the others as groups by frame."""
    # matplotlib names a definition by a hash of what it holds: equal ids, equal content
    shared = {}
    for parent in [e for frame in frames for e in frame.iter()]:
        for defs in parent.findall(f"{_SVG}defs"):
            parent.remove(defs)
            shared |= {e.get("id"): e for e in defs}
    groups = _where_they_differ([frame.find(f"{_SVG}g") for frame in frames])
    lists = [list(group) for group in groups]
    base, target = frames[-1], groups[-1]
    # frames differ in how many lines they draw: match equal elements from either end
    texts = [[ET.tostring(e) for e in children] for children in lists]
    n = min(map(len, texts))
    head = next((i for i in range(n) if len({t[i] for t in texts}) > 1), n)
    tail = next((i for i in range(n - head) if len({t[-1 - i] for t in texts}) > 1), n - head)
    for child in lists[-1][head : len(lists[-1]) - tail]:
        target.remove(child)
    for k, children in enumerate(lists):
        group = ET.Element(f"{_SVG}g", {"data-frame": str(k)})
        if k < len(frames) - 1:
            group.set("style", "display:none")
        group.extend(children[head : len(children) - tail])
        target.insert(head + k, group)
    defs = ET.Element(f"{_SVG}defs")
    defs.extend(shared.values())
    base.insert(0, defs)
    return base


def _where_they_differ(groups: list[ET.Element]) -> list[ET.Element]:
    """The innermost group, in each frame, that holds all in which the frames differ."""
    while len({len(group) for group in groups}) == 1:
        changed = [c for c in zip(*groups) if len({ET.tostring(e) for e in c}) > 1]
        if len(changed) != 1 or len({(e.tag, *e.items()) for e in changed[0]}) > 1:
            break
        if changed[0][0].tag != f"{_SVG}g":
            break
        groups = list(changed[0])
    return groups
