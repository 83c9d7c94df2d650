"""Figures of the course: one visual language, drawn once and legible everywhere.

Every panel is a small figure of its own (360 x 260 px), shown as SVG inside the page. Panels
stand side by side where there is room and below each other on a phone, so that text keeps its
size. Colours are CSS variables with a fallback: the page switches them between light and dark,
a plain notebook shows the fallback.

Functions take and return Axes and know nothing of training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from scipy import stats

from lib.page import player, show, table
from lib.svg import COLORS, MUTED, STYLE

__all__ = [
    "band",
    "dress",
    "histogram",
    "line",
    "name",
    "panels",
    "path",
    "player",
    "powers",
    "seeds",
    "show",
    "table",
    "valley",
]

WIDTH, HEIGHT = 360, 260  # px of one panel at its natural size


def panels(n: int = 1, *, height: int = HEIGHT) -> list[Axes]:
    """n empty panels, each an Axes in a figure of its own, 360 px wide and `height` px high."""
    if n < 1:
        raise ValueError(f"a figure needs at least one panel, but got n={n}")
    with matplotlib.rc_context(STYLE):
        made = []
        for _ in range(n):
            figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
            made.append(figure.add_subplot())
    return made


@matplotlib.rc_context(STYLE)
def dress(
    ax: Axes,
    *,
    title: str = "",
    x: str = "",
    y: str = "",
    log: str = "",
    xlim: tuple | None = None,
    ylim: tuple | None = None,
) -> Axes:
    """Title, axis names, limits and log scales (`log` is 'x', 'y' or 'xy') of a panel.

    What is not given stays as it is.
    """
    if log not in ("", "x", "y", "xy"):
        raise ValueError(f"log has to be 'x', 'y' or 'xy', but got {log!r}")
    for axis, which in ((ax.xaxis, "x"), (ax.yaxis, "y")):
        if which in log:
            getattr(ax, f"set_{which}scale")("log")
            axis.set_major_formatter(_Plain())
            axis.set_minor_formatter(_Plain(labelOnlyBase=False))
    if title:
        ax.set_title(title, loc="left", fontsize=13, fontweight="bold", pad=10)
    if x:
        ax.set_xlabel(x)
    if y:
        ax.set_ylabel(y)
    if xlim:
        ax.set_xlim(*xlim)
    if ylim:
        ax.set_ylim(*ylim)
    return ax


def _power(value: float) -> str:
    """A tick of a log axis in one size of type: 0.01, 100, 10⁶. Raised digits get too small."""
    if 1e-3 <= value < 1e5:
        return f"{value:g}"
    power = np.log10(value)
    factor = (
        "" if np.isclose(power, round(power)) else f"{value / 10 ** np.floor(power):.0f} · "
    )
    exponent = f"{round(power) if not factor else np.floor(power):.0f}"
    return factor + "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


class _Plain(LogFormatter):
    """Names the powers of ten, and what lies between them where there are few powers."""

    def _num_to_string(self, x, vmin, vmax):
        return _power(x)


@matplotlib.rc_context(STYLE)
def band(
    ax: Axes, x: Sequence, runs: np.ndarray, *, label: str, color: int = 0, at: float = 1.0,
    dy: float = 0.0, style: str = "-",
) -> Axes:  # fmt: skip
    """Mean over runs as a line with its 95 % interval as a band, named beside the line.

    x: shape (steps,). runs: shape (seeds, steps). On a log axis mean and interval are taken of
    the logarithm. color: index into COLORS. at: where along x the name stands, 0 to 1.
    dy: shift of the name in points.

    Raises ValueError for fewer than 10 runs: no figure of the course rests on fewer.
    """
    runs = np.asarray(runs, dtype=float)
    if runs.ndim != 2 or runs.shape[0] < 10 or runs.shape[1] != len(x):
        raise ValueError(
            f"runs has to be of shape (seeds >= 10, steps = {len(x)}), but got {runs.shape}"
        )
    log = ax.get_yscale() == "log"
    if not np.isfinite(runs).all() or (log and (runs <= 0).any()):
        raise ValueError(f"runs has to be finite{' and positive on a log axis' * log}")
    values = np.log(runs) if log else runs
    mean = values.mean(0)
    half = stats.t.ppf(0.975, len(runs) - 1) * values.std(0, ddof=1) / np.sqrt(len(runs))
    back = np.exp if log else np.asarray
    ax.fill_between(
        x, back(mean - half), back(mean + half), color=_color(color), alpha=0.25, lw=0
    )
    ax.plot(x, back(mean), color=_color(color), linestyle=style)
    return name(ax, x, back(mean), label, color=color, at=at, dy=dy)


@matplotlib.rc_context(STYLE)
def line(
    ax: Axes, x: Sequence, y: Sequence, *, label: str = "", color: int = 0, at: float = 1.0,
    dy: float = 0.0, style: str = "-", marker: str = "",
) -> Axes:  # fmt: skip
    """One exact curve (no seeds behind it), named beside the line."""
    ax.plot(x, y, color=_color(color), linestyle=style, marker=marker)
    return name(ax, x, y, label, color=color, at=at, dy=dy) if label else ax


def _color(color: int) -> str:
    if not 0 <= color < len(COLORS):
        raise ValueError(f"color has to be from 0 to {len(COLORS) - 1}, but got {color}")
    return COLORS[color]


@matplotlib.rc_context(STYLE)
def name(
    ax: Axes,
    x: Sequence,
    y: Sequence,
    label: str,
    *,
    color: int,
    at: float = 1.0,
    dy: float = 0.0,
) -> Axes:
    """Write a curve's name beside it, at the share `at` of its points, in its colour."""
    i = round(at * (len(x) - 1))
    ha = "left" if at < 0.34 else "right" if at > 0.66 else "center"
    ax.annotate(
        label, (x[i], y[i]), xytext=(0, 7 + dy), textcoords="offset points", ha=ha, va="bottom",
        color=_color(color), fontweight="bold",
    )  # fmt: skip
    return ax


@matplotlib.rc_context(STYLE)
def seeds(
    ax: Axes, groups: dict[str, Sequence], *, colors: Sequence[int] | None = None
) -> Axes:
    """One row per group: a dot for every seed, the mean with its 95 % interval below them.

    groups: name -> values of shape (seeds,), at least 10 each. Values lie along x.
    """
    colors = range(len(groups)) if colors is None else colors
    if not groups or len(colors) != len(groups):
        raise ValueError(
            f"groups has to name at least one, with one of colors each, but got {len(groups)} "
            f"groups and {len(colors)} colors"
        )
    for row, (values, color) in enumerate(zip(groups.values(), colors)):
        v = np.asarray(values, dtype=float)
        if v.ndim != 1 or len(v) < 10:
            raise ValueError(f"a group has to have at least 10 values, but got shape {v.shape}")
        if not np.isfinite(v).all():
            raise ValueError(f"a group has to hold finite values, but got {v.tolist()}")
        c = _color(color)
        ax.plot(v, np.full(len(v), -row - 0.1), "o", color=c, alpha=0.4, markersize=5, mew=0)
        half = stats.t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / np.sqrt(len(v))
        ax.plot([v.mean() - half, v.mean() + half], [-row - 0.34] * 2, color=c, linewidth=2.5)
        ax.plot([v.mean()], [-row - 0.34], "D", color=c, markersize=6)
    ax.set_yticks([])
    ax.set_ylim(-len(groups) + 0.42, 0.6)
    ax.spines["left"].set_visible(False)
    ax.grid(False, axis="y")
    for row, (label, color) in enumerate(zip(groups, colors)):
        ax.text(
            0, -row + 0.13, label, transform=ax.get_yaxis_transform(), color=_color(color),
            fontweight="bold", va="bottom", fontsize=11.5,
        )  # fmt: skip
    return ax


@matplotlib.rc_context(STYLE)
def histogram(ax: Axes, values: Sequence, *, bins: int | Sequence = 40, color: int = 0) -> Axes:
    """Share of values per bin, filled."""
    values = np.asarray(values, dtype=float)
    if not len(values):
        raise ValueError("values has to hold at least one number")
    counts, edges = np.histogram(values, bins=bins)
    share = counts / len(values)
    ax.stairs(share, edges, color=_color(color), fill=True, alpha=0.35)
    ax.stairs(share, edges, color=_color(color), linewidth=1.5)
    return ax


@matplotlib.rc_context(STYLE)
def powers(ax: Axes, ticks: Sequence[float], *, x: str) -> Axes:
    """A logarithmic x axis with ticks at round values, written as plain numbers."""
    ax.set_xscale("log")
    ax.set_xticks(list(ticks), labels=[f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.set_xlabel(x)
    return ax


@matplotlib.rc_context(STYLE)
def valley(ax: Axes, height: Callable, *, xlim: tuple, ylim: tuple, levels: int = 9) -> Axes:
    """Contour lines of height(x, y) >= 0, closer together near the bottom."""
    x, y = np.meshgrid(np.linspace(*xlim, 90), np.linspace(*ylim, 90))
    z = height(x, y)
    at = np.geomspace(max(z.max() * 1e-3, 1e-12), z.max(), levels)
    ax.contour(x, y, z, levels=at, colors=MUTED, linewidths=0.9, alpha=0.6)
    ax.grid(False)
    return dress(ax, xlim=xlim, ylim=ylim)


@matplotlib.rc_context(STYLE)
def path(ax: Axes, points: np.ndarray, *, color: int = 0) -> Axes:
    """The way of a descent: points of shape (steps, 2), the last one marked."""
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise ValueError(f"points has to be of shape (steps, 2), but got {points.shape}")
    ax.plot(points[:, 0], points[:, 1], "-o", color=_color(color), markersize=3, linewidth=1.3)
    ax.plot(*points[-1], "o", color=_color(color), markersize=9)
    return ax
