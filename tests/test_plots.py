"""Figures: what they show, and the page they make of it."""

import functools
import hashlib
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from lib import plots
from lib import svg as svg_module

ROOT = Path(__file__).resolve().parents[1]
ALT = "Two curves fall with the number of steps, the blue one faster."
HOSTILE = "a < b & \"c\" > 'd' </script><!--<script> 100 % \\n"
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
X = np.arange(5)
RUNS = np.random.default_rng(0).normal(2, 0.5, (12, 5))
LOSSES = np.exp(RUNS)


def bowl(x, y):
    return x**2 + 4 * y**2


RECIPES = {
    "empty": lambda ax: plots.dress(ax),
    "dress": lambda ax: plots.dress(
        ax, title="Loss", x="step", y="loss $L$", log="xy", xlim=(1, 100), ylim=(1e-4, 1)
    ),
    "band": lambda ax: plots.band(ax, X, RUNS, label="with"),
    "band, log": lambda ax: plots.band(plots.dress(ax, log="y"), X, LOSSES, label="with"),
    "line": lambda ax: plots.line(ax, X, X**2, label="$n^2$", color=1, marker="o", style="--"),
    "seeds": lambda ax: plots.seeds(ax, {"with": RUNS[:, 0], "without": RUNS[:, 1]}),
    "histogram": lambda ax: plots.histogram(ax, RUNS.ravel(), bins=10, color=2),
    "valley": lambda ax: plots.valley(ax, bowl, xlim=(-1, 1), ylim=(-2, 2)),
    "path": lambda ax: plots.path(ax, [[0, 1], [0.5, 0.5], [1, 0]], color=3),
}


def panel(*recipes, **changes):
    """A new panel, drawn by recipes and dressed."""
    (ax,) = plots.panels()
    for recipe in recipes:
        RECIPES[recipe](ax)
    return plots.dress(ax, **changes) if changes else ax


def shown(call):
    """What a call hands to the notebook: the HTML, the text and the metadata."""
    with mock.patch("IPython.display.display") as display:
        call()
    (data,), options = display.call_args
    assert options["raw"]
    return data["text/html"], data["text/plain"], options.get("metadata")


def page(*axes, alt=ALT, **options):
    return shown(lambda: plots.show(*axes, alt=alt, **options))[0]


def player_page(draw, labels, alt=ALT, **options):
    return shown(lambda: plots.player(draw, labels, alt=alt, **options))[0]


def parse(text):
    """The figure as XML; fails where it is not well-formed."""
    return ET.fromstring(re.sub(r"(<(?:input|br|img)\b[^>]*)(?<!/)>", r"\1/>", text))


def figure_of(text):
    return parse(text.partition("<script>")[0])


def svgs_of(text):
    return figure_of(text).findall(f".//{SVG}svg")


def texts_of(svg):
    return ["".join(e.itertext()) for e in svg.iter(f"{SVG}text")]


def solo(ax):
    return ET.tostring(svg_module.lean_svg(ax.figure))


@functools.cache
def solo_recipe(recipe):
    return solo(panel(recipe))


# Pages: every kind of figure, drawn once


@functools.cache
def plain_page():
    left = panel("band", title="Left", x="step", y="loss")
    right = panel("valley", "path", title="Right")
    return page(left, right, alt=HOSTILE + ALT, caption="Both *fall*, `a < b` & more.")


@functools.cache
def other_page():
    return page(panel("band", "histogram", title="Left", x="step", y="loss"))


@functools.cache
def moving_page():
    return player_page(descent, ["0", "1", HOSTILE], caption="It *moves*.")


# Merely drawing


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_kind_of_panel_is_drawn_without_warnings(recipe):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert solo_recipe(recipe).startswith(b"<svg")
    (ax,) = plots.panels()
    assert RECIPES[recipe](ax) is ax


def test_panels_are_figures_of_their_own():
    made = plots.panels(3, height=200)
    assert len({id(ax.figure) for ax in made}) == 3
    for ax in made:
        assert tuple(ax.figure.get_size_inches() * 72) == (360, 200)


def test_dress_sets_names_limits_and_scales():
    ax = panel("dress")
    assert (ax.get_title(loc="left"), ax.get_xlabel(), ax.get_ylabel()) == (
        "Loss",
        "step",
        "loss $L$",
    )
    assert (ax.get_xlim(), ax.get_ylim()) == ((1, 100), (1e-4, 1))
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    ax = panel("empty", log="x")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "linear")


@pytest.mark.parametrize("log", [False, True])
def test_the_band_is_the_interval_of_scipy(log):
    ax = panel("band, log" if log else "band")
    values = np.log(LOSSES) if log else RUNS
    back = np.exp if log else np.asarray
    mean = values.mean(0)
    low, high = stats.t.interval(0.95, 11, loc=mean, scale=stats.sem(values))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), back(mean))
    vertices = ax.collections[0].get_paths()[0].vertices
    for x, l, h in zip(X, back(low), back(high)):  # noqa: E741
        y = vertices[vertices[:, 0] == x, 1]
        assert (y.min(), y.max()) == (pytest.approx(l), pytest.approx(h))


def test_the_bar_of_seeds_is_the_interval_of_scipy():
    ax = panel("seeds")
    for row in range(2):
        v = RUNS[:, row]
        dots, bar, mean = ax.lines[3 * row : 3 * row + 3]
        np.testing.assert_array_equal(dots.get_xdata(), v)
        low, high = stats.t.interval(0.95, 11, loc=v.mean(), scale=stats.sem(v))
        np.testing.assert_allclose(bar.get_xdata(), (low, high))
        np.testing.assert_allclose(mean.get_xdata(), v.mean())
    assert [t.get_text() for t in ax.texts] == ["with", "without"]


def test_the_histogram_shows_shares():
    ax = panel("histogram")
    assert ax.patches[0].get_data().values.sum() == pytest.approx(1)


def test_the_valley_is_denser_near_its_bottom():
    at = panel("valley").collections[0].levels
    assert np.all(np.diff(at) > 0)
    assert np.all(np.diff(at, 2) > 0)


def test_the_path_marks_its_end():
    ax = panel("path")
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[0, 1], [0.5, 0.5], [1, 0]])
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), [[1, 0]])


@pytest.mark.parametrize(
    ("at", "x", "ha"), [(0, 0, "left"), (0.5, 2, "center"), (1, 4, "right")]
)
def test_a_curve_is_named_beside_itself_in_its_colour(at, x, ha):
    ax = panel()
    plots.line(ax, X, 2 * X, label="twice", color=1, at=at)
    (label,) = ax.texts
    assert (label.xy, label.get_ha(), label.get_text()) == ((x, 2 * x), ha, "twice")
    assert label.get_color() == ax.lines[0].get_color() == svg_module.COLORS[1]


def test_drawing_changes_no_argument():
    runs, points = RUNS.copy(), np.zeros((3, 2))
    ax = panel()
    plots.band(ax, X, runs, label="a")
    plots.path(ax, points)
    np.testing.assert_array_equal(runs, RUNS)
    np.testing.assert_array_equal(points, 0)


def test_a_valley_keeps_the_title_of_its_panel():
    ax = panel()
    RECIPES["valley"](plots.dress(ax, title="Valley", x="$w_1$", y="$w_2$"))
    assert (ax.get_title(loc="left"), ax.get_xlabel(), ax.get_ylabel()) == (
        "Valley",
        "$w_1$",
        "$w_2$",
    )


# Bad input

NAN_RUNS = np.where(np.arange(60).reshape(12, 5) == 7, np.nan, RUNS)
NINE = RUNS[:9, 0]
BAD_CALLS = {
    "no panels": (lambda ax: plots.panels(0), "n=0"),
    "log axis unknown": (lambda ax: plots.dress(ax, log="z"), "log .*'z'"),
    "band of 9 runs": (lambda ax: plots.band(ax, X, RUNS[:9], label=""), r"runs .*\(9, 5\)"),
    "band of 1 run": (lambda ax: plots.band(ax, X, RUNS[0], label=""), r"runs .*\(5,\)"),
    "band of other steps": (
        lambda ax: plots.band(ax, X[:4], RUNS, label=""),
        "runs .*steps = 4",
    ),
    "band of NaN": (lambda ax: plots.band(ax, X, NAN_RUNS, label=""), "runs .*finite"),
    "band of 0 on a log axis": (
        lambda ax: plots.band(plots.dress(ax, log="y"), X, 0 * RUNS, label=""),
        "runs .*positive",
    ),
    "band in a 7th colour": (lambda ax: plots.band(ax, X, RUNS, label="", color=6), "color.*6"),
    "line in a 7th colour": (lambda ax: plots.line(ax, X, X, color=6), "color.*6"),
    "line of other steps": (lambda ax: plots.line(ax, X, X[:4]), "same first dimension"),
    "9 seeds": (lambda ax: plots.seeds(ax, {"a": NINE}), r"10 values.*\(9,\)"),
    "seeds in 2-D": (lambda ax: plots.seeds(ax, {"a": RUNS}), r"10 values.*\(12, 5\)"),
    "seeds of NaN": (lambda ax: plots.seeds(ax, {"a": NAN_RUNS[:, 2]}), "finite"),
    "no groups": (lambda ax: plots.seeds(ax, {}), "group"),
    "too few colours": (
        lambda ax: plots.seeds(ax, {"a": RUNS[:, 0], "b": RUNS[:, 1]}, colors=[0]),
        "colors",
    ),
    "seeds in a 7th colour": (
        lambda ax: plots.seeds(ax, {str(i): RUNS[:, 0] for i in range(7)}),
        "color",
    ),
    "histogram of nothing": (lambda ax: plots.histogram(ax, []), "values"),
    "histogram of NaN": (lambda ax: plots.histogram(ax, NAN_RUNS.ravel()), "finite"),
    "path of nothing": (lambda ax: plots.path(ax, []), r"points .*\(0,\)"),
    "path in 3-D": (lambda ax: plots.path(ax, np.ones((4, 3))), r"points .*\(4, 3\)"),
    "nothing to show": (lambda ax: plots.show(alt=ALT), "panel"),
    "no frames": (lambda ax: plots.player(lambda k: [ax], [], alt=ALT), "labels"),
    "no panels in a frame": (lambda ax: plots.player(lambda k: [], ["0"], alt=ALT), "panel"),
    "panels that come and go": (
        lambda ax: plots.player(lambda k: [ax, panel()][: k + 1], ["0", "1"], alt=ALT),
        "panel",
    ),
    "no time between frames": (
        lambda ax: plots.player(lambda k: [ax], ["0"], alt=ALT, fps=0),
        "fps",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_input_is_refused_by_name(call, message):
    ax = panel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=message):
            call(ax)


@pytest.mark.parametrize("alt", ["", "A figure.", "one two three four five six seven", None])
def test_a_missing_or_short_alt_is_refused(alt):
    ax = panel()
    for call in (
        lambda: plots.show(ax, alt=alt),
        lambda: plots.player(lambda k: [ax], ["0"], alt=alt),
    ):
        with pytest.raises((ValueError, TypeError), match="alt has to say what"):
            call()


def test_alt_cannot_be_left_out():
    with pytest.raises(TypeError, match="alt"):
        plots.show(panel())
    with pytest.raises(TypeError, match="alt"):
        plots.player(lambda k: [panel()], ["0"])


def test_the_shortest_alt_is_eight_words():
    assert figure_of(page(panel(), alt="one two three four five six seven eight")) is not None


# The page


def test_a_figure_is_an_image_with_words():
    panels = figure_of(plain_page()).findall("*[@role='img']")
    assert [e.get("aria-label") for e in panels] == [HOSTILE + ALT]
    data = shown(lambda: plots.show(panel(), alt=ALT, key="loss"))
    assert data[1:] == (f"[figure: {ALT}]", {"course": {"figure": "loss"}})
    assert shown(lambda: plots.show(panel(), alt=ALT))[2] == {}


def test_the_caption_is_markdown():
    caption = figure_of(plain_page()).find("figcaption")
    assert "".join(caption.itertext()) == "Both fall, a < b & more."
    assert [e.text for e in caption] == ["fall", "a < b"]
    assert figure_of(other_page()).find("figcaption") is None


def test_every_panel_has_a_size():
    for svg in [*svgs_of(plain_page()), *svgs_of(moving_page())]:
        assert (svg.get("width"), svg.get("height"), svg.get("viewBox")) == (
            "360",
            "260",
            "0 0 360 260",
        )
        assert svg.get("aria-hidden") == "true"
    (low,) = svgs_of(page(*plots.panels(height=100)))
    assert (low.get("height"), low.get("viewBox")) == ("100", "0 0 360 100")


def test_show_keeps_the_order_of_the_panels():
    titles = [texts_of(svg)[-1] for svg in svgs_of(plain_page())]
    assert titles == ["Left", "Right"]


def test_a_table_names_its_rows_and_columns():
    rows = [["raw <x>", 0.5, "98 %"], ["a & b", 12, None]]
    text, plain, _ = shown(lambda: plots.table(["", "loss", 3], rows, caption="Loss < 1 & so"))
    root = parse(text)
    assert [["".join(c.itertext()) for c in row] for row in root.iter("tr")] == [
        ["", "loss", "3"],
        ["raw <x>", "0.5", "98 %"],
        ["a & b", "12", "None"],
    ]
    scopes = [c.get("scope") for c in root.iter("th") if c.text]
    assert scopes == ["col", "col", "row", "row"]
    assert root.find(".//caption").text == "Loss < 1 & so"
    assert plain.splitlines()[0] == "Loss < 1 & so"
    assert [line.split() for line in plain.splitlines()[1:]] == [
        ["loss", "3"],
        ["raw", "<x>", "0.5", "98", "%"],
        ["a", "&", "b", "12", "None"],
    ]


def test_a_table_with_a_row_too_short_is_refused():
    with pytest.raises(ValueError, match=r"one length, but got \[1, 2\]"):
        plots.table(["", "loss"], [["raw", 1], ["scaled"]], caption="Loss")


def ids_of(figure):
    return [e.get("id") for e in figure.iter() if e.get("id")]


def references_of(figure):
    values = [v for e in figure.iter() for v in e.attrib.values()]
    links = [e.get(HREF) or e.get("href") for e in figure.iter()]
    return {r for v in values for r in re.findall(r"url\(#([^)]+)\)", v)} | {
        link[1:] for link in links if link
    }


PAGES = {"show": plain_page, "show, other": other_page, "player": moving_page}


@pytest.mark.parametrize("text", PAGES.values(), ids=PAGES)
def test_every_reference_resolves_within_its_figure(text):
    figure = figure_of(text())
    assert references_of(figure)
    assert references_of(figure) <= set(ids_of(figure))


def test_ids_are_unique_on_a_page_with_many_figures():
    ids = [i for text in PAGES.values() for i in ids_of(figure_of(text()))]
    assert [i for i, n in Counter(ids).items() if n > 1] == []
    assert all(re.fullmatch(r"[\w-]+", i) for i in ids)


def test_ids_are_unique_in_a_figure_with_two_equal_panels():
    ids = ids_of(figure_of(page(panel("path"), panel("path"))))
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("text", PAGES.values(), ids=PAGES)
def test_a_page_asks_nobody_for_anything(text):
    addresses = set(re.findall(r"\bhttps?:[^\s\"'<>)]*", text()))
    assert addresses == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"@import|\bsrc=|(?<!xlink:)href=|url\((?!#)", text())


@pytest.mark.parametrize("text", PAGES.values(), ids=PAGES)
def test_colours_and_fonts_are_those_of_the_page(text):
    text = text()
    assert "font-family" not in text
    assert "DejaVu" not in text
    outside = re.sub(
        r"var\(--tt-\w+, (?:#\w+|currentColor)\)", "", text.partition("<script>")[0]
    )
    colors = re.findall(r"(?:fill|stroke|color|background)[\w-]*: ?(#\w+|rgba?\()", outside)
    assert colors == []
    for color in (*svg_module.COLORS, svg_module.INK, svg_module.MUTED, svg_module.GRID):
        assert color not in outside
    assert "var(--tt-ink, currentColor)" in text
    assert f"var(--tt-1, {svg_module.COLORS[0]})" in text


@pytest.mark.parametrize("text", PAGES.values(), ids=PAGES)
def test_a_figure_styles_nothing_but_itself(text):
    # a <style> inside an inline SVG holds for the whole page
    assert "<style" not in text()


def test_labels_are_escaped_and_kept():
    ax = panel(title=HOSTILE, x="a #0072b2 font: 12px serif;")
    plots.line(ax, X, X, label="<b>&amp;</b>")
    (svg,) = svgs_of(page(ax))
    for text in (HOSTILE, "a #0072b2 font: 12px serif;", "<b>&amp;</b>"):
        assert text in texts_of(svg)


@pytest.mark.parametrize("largest", [3, 0.3, 0.03, 0.003, 0.0003])
def test_tick_labels_keep_all_their_digits(largest):
    ax = panel(xlim=(0, largest), title="rate 0.0001, 3.14159")
    ax.figure.draw_without_rendering()
    ticks = [t.get_text() for t in ax.get_xticklabels()]
    found = texts_of(svg_module.lean_svg(ax.figure))
    assert set(ticks) <= set(found)
    assert "rate 0.0001, 3.14159" in found


def test_coordinates_stay_within_a_hundredth_of_a_pixel():
    ax, out = panel("valley", "path"), io.StringIO()
    lean = svg_module.lean_svg(ax.figure)
    with matplotlib.rc_context(svg_module.STYLE):
        ax.figure.savefig(out, format="svg")
    exact = ET.fromstring(out.getvalue())
    for pair in zip(lean.iter(f"{SVG}path"), exact.iter(f"{SVG}path")):
        now, then = (re.findall(r"-?\d+(?:\.\d+)?", path.get("d", "")) for path in pair)
        np.testing.assert_allclose(np.float64(now), np.float64(then), atol=0.0101)


def test_the_style_holds_for_what_is_drawn_later():
    ax = panel("band")
    assert ax.lines[0].get_linewidth() == svg_module.STYLE["lines.linewidth"]
    assert ax.texts[0].get_fontsize() == svg_module.STYLE["font.size"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_figure_does_not_depend_on_the_settings_around_it(recipe):
    expected = solo_recipe(recipe)
    ambient = {
        "lines.linewidth": 7,
        "lines.markersize": 20,
        "font.size": 30,
        "axes.grid": False,
        "axes.facecolor": "black",
        "text.color": "red",
        "svg.fonttype": "path",
        "savefig.facecolor": "red",
        "savefig.bbox": "tight",
        "patch.linewidth": 5,
    }
    with matplotlib.rc_context(ambient):
        assert solo(panel(recipe)) == expected


def test_a_figure_drawn_twice_gives_the_same_bytes():
    ax = panel("band", title="Left")
    assert solo(ax) == solo(ax)
    assert solo(panel("seeds")) == solo_recipe("seeds")


def digest_of_a_page():
    text = player_page(lambda k: [panel("band", *["path"] * k)], ["0", "1"])
    return hashlib.sha256(text.encode()).hexdigest()


def test_another_process_draws_the_same_bytes():
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_plots as t;"
        "print(t.digest_of_a_page())"
    )
    env = os.environ | {"PYTHONHASHSEED": "12345"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == digest_of_a_page()


@pytest.mark.parametrize(
    ("font", "expected"),
    [
        ("font: 11px 'DejaVu Sans', sans-serif", {"font-size": "11px"}),
        ("font: 700 13px 'DejaVu Sans'", {"font-size": "13px", "font-weight": "700"}),
        ("font: bold 13px 'DejaVu Sans'", {"font-size": "13px", "font-weight": "bold"}),
        ("font-size: 9.1px; font-family: 'DejaVu Sans', serif", {"font-size": "9.1px"}),
        (
            "font-style: oblique; font-weight: 700; font-size: 12px; font-family: 'A', B",
            {"font-size": "12px", "font-weight": "700", "font-style": "oblique"},
        ),
    ],
)
def test_fonts_in_either_way_of_writing_them(font, expected):
    """matplotlib has written the shorthand and the single properties."""
    root = svg_module.lean_svg(Drawn(f'<text style="{font}; text-anchor: middle">x</text>'))
    (style,) = [e.get("style") for e in root.iter(f"{SVG}text")]
    found = dict(re.split(r":\s*", part) for part in re.split(r";\s*", style) if part)
    assert found.pop("text-anchor") == "middle"
    assert {k: v for k, v in found.items() if k.startswith("font")} == expected


class Drawn(Figure):
    """A figure that saves given SVG."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def savefig(self, out, **options):
        out.write(
            '<?xml version="1.0"?>\n<svg xmlns:xlink="http://www.w3.org/1999/xlink" '
            'width="10pt" height="5pt" viewBox="0 0 10 5" xmlns="http://www.w3.org/2000/svg">'
            f"<g>{self.body}</g></svg>"
        )


def test_a_hatched_area_keeps_its_colour():
    ax = panel()
    ax.bar([0, 1], [1, 2], hatch="//", facecolor="none", edgecolor=svg_module.COLORS[1])
    root = svg_module.lean_svg(ax.figure)
    assert references_of(root) <= set(ids_of(root))
    assert not re.search(r"#[0-9a-f]{8}-c85000", ET.tostring(root, encoding="unicode"))


# Players


def descent(k):
    """A way down a valley: one more step a frame on a background they share."""
    ax = panel("valley")
    points = np.array([[-0.9, 1.8], [0.6, -1.2], [-0.3, 0.8], [0.1, -0.2]])[: k + 2]
    return [plots.dress(plots.path(ax, points), title="Descent")]


def counts(k):
    """Frames that draw different numbers of elements, the last the fewest."""
    ax = panel(title="Counts", ylim=(0, 9), xlim=(0, 4))
    for i in range(3 - k):
        plots.line(ax, X, X + i, label=f"curve {i}", color=i)
    return [ax]


def layouts(k):
    """Frames whose axes stand in different places, so that they are clipped differently."""
    return [panel("band", title="Two\nlines" if k else "One", ylim=(0, 10.0 ** (4 * k)))]


def two(k):
    left = panel("histogram", title="Still")
    right = plots.line(panel(title="Moves"), X, X * k, label=f"slope {k}")
    return [left, right]


def markers(k):
    """A marker that is defined in a part all frames share and used in one that moves."""
    ax = panel(xlim=(0, 9), ylim=(0, 9))
    plots.line(ax, [1, 2], [1, 2], marker="o", style="")
    plots.line(ax, [3], [4 + k], marker="o", style="")
    return [ax]


def twins(k):
    """Two pairs of axes in a panel, the first of which moves."""
    ax = plots.line(panel(ylim=(0, 9)), X, X + k, label=f"left {k}")
    ax.twinx().set_ylim(0, 1)
    return [ax]


def superior(k):
    ax = plots.line(panel(ylim=(0, 9)), X, X + k)
    ax.figure.suptitle(f"Frame {k}")
    return [ax]


def reused():
    (ax,) = plots.panels()
    return lambda k: [plots.line(ax, X, X + k, label=f"{k}")]


FILMS = {
    "descent": (descent, 3),
    "counts": (counts, 3),
    "layouts": (layouts, 2),
    "two panels": (two, 2),
    "shared marker": (markers, 2),
    "first like last": (lambda k: descent(k % 2), 3),
    "all alike": (lambda k: descent(0), 2),
    "single frame": (descent, 1),
    "empty frame": (lambda k: [panel(*["path"] * (k == 1), xlim=(0, 1), ylim=(0, 1))], 3),
    "twin axes": (twins, 2),
    "super title": (superior, 2),
    "bands": (lambda k: [panel(*["band", "valley"][: k + 1], xlim=(0, 4), ylim=(0, 4))], 2),
}


@functools.cache
def film(name):
    """The page of a film, and each of its panels drawn alone, by frame."""
    draw, n = FILMS[name]
    frames = [draw(k) for k in range(n)]
    alone = [[svg_module.lean_svg(ax.figure) for ax in axes] for axes in frames]
    return player_page(lambda k: frames[k], [f"frame {k}" for k in range(n)]), alone


def picture(element, ids, k):
    """All that is visible in frame k as nested tuples, what ids refer to in their place."""

    def resolve(match):
        assert match[1] in ids, f"{match[1]} is defined nowhere"
        return repr(picture(ids[match[1]], ids, k))

    attributes = {
        key: re.sub(r"url\(#([^)]+)\)" if key != HREF else r"^#(.*)$", resolve, value)
        for key, value in sorted(element.attrib.items())
        if key != "id"
    }
    children = []
    for child in element:
        if child.tag in (f"{SVG}defs", f"{SVG}style"):
            continue
        frame = child.get("data-frame")
        if frame is None:
            children.append(picture(child, ids, k))
        elif int(frame) == k:
            assert set(child.attrib) <= {"data-frame", "style"}
            children.extend(picture(child, ids, k)[3])
    return element.tag, tuple(attributes.items()), (element.text or "").strip(), tuple(children)


def picture_of(svg, k=0):
    return picture(svg, {e.get("id"): e for e in svg.iter() if e.get("id")}, k)


@pytest.mark.parametrize("name", FILMS)
def test_each_frame_of_a_player_is_the_frame_drawn_alone(name):
    text, alone = film(name)
    merged = svgs_of(text)
    assert len(merged) == len(alone[0])
    for k, panels in enumerate(alone):
        for svg, expected in zip(merged, panels):
            assert picture_of(svg, k) == picture_of(expected)


@pytest.mark.parametrize("name", FILMS)
def test_ids_and_references_of_a_player(name):
    figure = figure_of(film(name)[0])
    ids = ids_of(figure)
    assert [i for i, n in Counter(ids).items() if n > 1] == []
    assert references_of(figure) <= set(ids)


@pytest.mark.parametrize("name", FILMS)
def test_without_scripts_the_last_frame_stands(name):
    text, alone = film(name)
    for svg in svgs_of(text):
        frames = [e for e in svg.iter() if e.get("data-frame") is not None]
        assert {int(e.get("data-frame")) for e in frames} == set(range(len(alone)))
        for e in frames:
            hidden = "display:none" in (e.get("style") or "").replace(" ", "")
            assert hidden == (int(e.get("data-frame")) < len(alone) - 1)
    controls = figure_of(text).find(".//input")
    last = str(len(alone) - 1)
    assert [controls.get(k) for k in ("min", "max", "value", "step")] == ["0", last, last, "1"]
    assert figure_of(text).find(".//output").text == f"frame {last}"


def test_a_player_may_draw_every_frame_into_the_same_panel():
    text = player_page(reused(), ["0", "1"])
    draw = reused()
    (svg,) = svgs_of(text)
    for k in range(2):
        assert picture_of(svg, k) == picture_of(svg_module.lean_svg(draw(k)[0].figure))


def test_what_frames_share_is_stored_once():
    text, alone = film("descent")
    size = [sum(len(ET.tostring(svg)) for svg in panels) for panels in alone]
    merged = sum(len(ET.tostring(svg)) for svg in svgs_of(text))
    assert merged < 1.5 * max(size)
    assert merged < 0.5 * sum(size)


def test_panels_that_stand_still_hold_no_copies():
    still, moves = svgs_of(film("two panels")[0])
    assert all(len(e) == 0 for e in still.iter() if e.get("data-frame") is not None)
    assert any(len(e) > 0 for e in moves.iter() if e.get("data-frame") is not None)


class Reader(HTMLParser):
    """The page as a browser takes it: scripts end at the first end tag."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.inside, self.tags = [], False, Counter()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.tags[f"/{tag}"] += 1
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data


def script_of(text):
    (script,) = Reader(text).scripts
    return script


def test_labels_cannot_leave_the_script():
    read = Reader(moving_page())
    assert read.tags["script"] == read.tags["/script"] == 1
    assert read.tags["figure"] == read.tags["/figure"] == 1
    script = script_of(moving_page())
    assert script.rstrip().endswith("})();")
    assert "<!--" not in script  # with it, a browser looks for a second end tag
    found = json.loads(re.search(r"labels = (\[.*?\]);\n", script)[1])
    assert found == ["0", "1", HOSTILE]
    assert figure_of(moving_page()).find(".//output").text == HOSTILE
    assert html.escape(HOSTILE) in moving_page()


def test_a_player_finds_its_own_figure():
    figure = figure_of(moving_page())
    assert f'getElementById("{figure.get("id")}")' in script_of(moving_page())


def test_players_of_the_same_frames_are_told_apart():
    axes = [panel()]
    one = player_page(lambda k: axes, ["a"])
    two = player_page(lambda k: axes, ["b"])
    assert figure_of(one).get("id") != figure_of(two).get("id")


def test_a_player_passes_on_key_alt_and_speed():
    axes = [panel()]
    text, plain, metadata = shown(
        lambda: plots.player(lambda k: axes, ["a"], alt=ALT, key="film", fps=8)
    )
    assert (plain, metadata) == (f"[figure: {ALT}]", {"course": {"figure": "film"}})
    assert "}, 125);" in script_of(text)
    assert [e.get("aria-label") for e in figure_of(text).iter() if e.get("role")] == [ALT]
    assert figure_of(text).find(".//input").get("aria-label")


NODE = shutil.which("node") or shutil.which("nodejs")
needs_node = pytest.mark.skipif(not NODE, reason="node is not installed")


@needs_node
@pytest.mark.parametrize("name", ["hostile labels", "single frame"])
def test_the_script_of_a_player_is_javascript(name, tmp_path):
    text = moving_page() if name == "hostile labels" else film(name)[0]
    path = tmp_path / "player.js"
    path.write_text(script_of(text), encoding="utf-8")
    run = subprocess.run([NODE, "--check", path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


BROWSER = """
const on = {}, made = s => ({addEventListener: (e, f) => { on[s + " " + e] = f; },
  setAttribute() {}, value: "", textContent: ""});
const parts = {button: made("button"), input: made("input"), output: made("output")};
const frames = FRAMES.map(k => ({dataset: {frame: String(k)}, style: {}}));
let tick = null;
globalThis.setInterval = f => { tick = f; return 1; };
globalThis.clearInterval = () => { tick = null; };
globalThis.document = {getElementById: id => id === UID &&
  {querySelector: s => parts[s] ?? {style: {}}, querySelectorAll: () => frames}};
const log = [], say = () => log.push([frames.filter(f => f.style.display !== "none")
  .map(f => +f.dataset.frame), +parts.input.value, parts.output.textContent,
  parts.button.textContent, tick !== null]);
SCRIPT
say();
parts.input.value = "0"; on["input input"](); say();
on["button click"](); say();
while (tick) { tick(); say(); }
on["button click"](); say();
on["button click"](); say();
console.log(JSON.stringify(log));
"""


@needs_node
def test_a_player_plays(tmp_path):
    figure = figure_of(moving_page())
    frames = [int(e.get("data-frame")) for e in figure.iter() if e.get("data-frame")]
    parts = {"FRAMES": json.dumps(frames), "UID": json.dumps(figure.get("id"))}
    code = BROWSER.replace("SCRIPT", script_of(moving_page()))
    for name, value in parts.items():
        code = code.replace(name, value)
    path = tmp_path / "play.js"
    path.write_text(code, encoding="utf-8")
    run = subprocess.run([NODE, path], capture_output=True, text=True, timeout=20)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [
        [[2], 2, HOSTILE, "", False],  # at first: the last frame
        [[0], 0, "0", "Play", False],  # slider to the first
        [[0], 0, "0", "Pause", True],  # play
        [[1], 1, "1", "Pause", True],
        [[2], 2, HOSTILE, "Pause", True],
        [[2], 2, HOSTILE, "Play", False],  # stops at the end
        [[0], 0, "0", "Pause", True],  # play again: from the start
        [[0], 0, "0", "Play", False],  # pause
    ]
