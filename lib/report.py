"""What `lib.diagnostics.diagnose` returns: layers, weights, problems, in numbers and words."""

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Layer:
    """One call of a layer, or of F.relu and its like: the output, and the gradient there.

    A unit is a feature (last dimension) or, after convolutions, a channel (dimension 1).
    """

    name: str
    kind: str
    role: str  # 'weights', 'activation' or ''
    shape: tuple[int, ...]
    mean: float  # like std and rms not finite if an output is not
    std: float  # divides by n, so that rms² = mean² + std²
    rms: float
    zeros: float  # share of outputs that are exactly 0
    saturated: float | None  # share with |y| > 0.97 (tanh) or |2y - 1| > 0.97 (sigmoid)
    units: int
    dead: int  # units that are 0 for every sample, at every position
    grad_rms: float | None = None  # of the loss for the output; None if no gradient arrives


@dataclass(frozen=True)
class Weight:
    """One parameter, named once; ``also`` holds its other names."""

    name: str
    also: tuple[str, ...]
    shape: tuple[int, ...]
    state: str  # '', 'frozen' (requires_grad is False) or 'unregistered'
    rms: float
    grad_rms: float | None  # None if frozen, or if no gradient arrives
    update: float | None  # rms of the change in one step / rms


@dataclass(frozen=True)
class Report:
    """What `diagnose` saw: layers in order of execution, weights in order of registration."""

    layers: list[Layer]
    weights: list[Weight]
    problems: list[str]
    loss: float | None
    guess: float | None  # ln K, what equal outputs for all K classes cost

    @property
    def gradient_ratio(self) -> float | None:
        """Gradient rms at the output of the first layer with weights / at that of the last."""
        return first_to_last([v.grad_rms for v in self.layers if v.role == "weights"])

    @property
    def weight_gradient_ratio(self) -> float | None:
        """Gradient rms of the first weight matrix / that of the last."""
        return first_to_last([w.grad_rms for w in self.weights if len(w.shape) > 1])

    def __str__(self) -> str:
        guess = "" if self.guess is None else f" (equal outputs cost {self.guess:.4g})"
        lines = [] if self.loss is None else [f"Loss {self.loss:.4g}{guess}", ""]
        for grid in (_grid(Layer, self.layers), _grid(Weight, self.weights)):
            size = [max(map(len, column)) for column in zip(*grid)]
            lines += [*("  ".join(map(str.ljust, row, size)).rstrip() for row in grid), ""]
        return "\n".join([*lines, *(self.problems or ["No problems found"])])

    def table(self) -> None:
        """Put layers and weights on the page."""
        from lib import plots  # a floor above this one; the numbers do without it

        for kind, rows in ((Layer, self.layers), (Weight, self.weights)):
            header, *cells = _grid(kind, rows)
            plots.table(header, cells, caption=f"{kind.__name__}s")

    def figure(self) -> list:
        """Return panels for `plots.show`: rms of the outputs and of the gradients there."""
        from lib import plots

        axes = plots.panels(1 if self.loss is None else 2)
        for color, key in enumerate(("rms", "grad_rms")[: len(axes)]):
            values = [(i, getattr(v, key)) for i, v in enumerate(self.layers)]
            values = [(i, v) for i, v in values if v and math.isfinite(v)]  # 0 has no logarithm
            if values:
                plots.line(axes[color], *zip(*values), color=color, marker="o")
            title = ("Outputs", "Gradients")[color]
            plots.dress(axes[color], title=title, x="index in layers", y="rms", log="y")
        return axes


def first_to_last(values: list[float | None]) -> float | None:
    """Return the first known value over the last, where there are two."""
    known = [v for v in values if v is not None]
    return known[0] / known[-1] if len(known) > 1 and known[-1] else None


def _grid(kind, rows):
    """Return a header and a row of short texts for each of the dataclasses."""
    header = [field.name for field in fields(kind)]
    return [header, *([_cell(getattr(row, name)) for name in header] for row in rows)]


def _cell(v):
    if isinstance(v, tuple):
        return " ".join(map(str, v))
    return "" if v is None else f"{v:.3g}" if isinstance(v, float) else str(v)
