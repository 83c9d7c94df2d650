"""Learning-rate schedules: by which factor the base rate is multiplied at each step.

A factory returns a plain function of the number of steps taken, ``factor = schedule(step)``,
which remembers nothing. `lib.train.train` and `lib.study.study` take it as ``schedule``, and
`torch.optim.lr_scheduler.LambdaLR` takes it as it is.

Arguments and defaults are those of `torch.optim.lr_scheduler`, and so is the rate of every
step up to rounding, except where a docstring says otherwise. Everything here is a factor: in
place of torch's ``eta_min``, a rate, stands ``end_factor`` = eta_min / base rate.

Errors: TypeError for a number of another kind, ValueError for one out of range, both by a
factory for its arguments and by a schedule for its step, an int of at least 0.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import pairwise

from lib.device import check_int, check_numbers
from lib.plateau import ReduceLROnPlateau

__all__ = [
    "ReduceLROnPlateau",
    "Schedule",
    "constant",
    "cosine",
    "cosine_with_warm_restarts",
    "exponential",
    "inverse_square_root",
    "linear",
    "multi_step",
    "one_cycle",
    "polynomial",
    "step",
    "warmup",
]

Schedule = Callable[[int], float]


def constant(factor: float = 1.0, total_iters: int | None = None) -> Schedule:
    """Keep ``factor``; with ``total_iters``, for so many steps, and 1 from then on.

    Torch's ConstantLR has the defaults 1/3 and 5.
    """
    check_numbers(factor=factor)
    if total_iters is None:
        return _schedule(lambda step: factor)
    check_int("total_iters", total_iters, 0)
    return _schedule(lambda step: factor if step < total_iters else 1.0)


def step(step_size: int, gamma: float = 0.1) -> Schedule:
    """Multiply by ``gamma`` after every ``step_size`` steps."""
    check_int("step_size", step_size, 1)
    check_numbers(positive=True, gamma=gamma)
    return _schedule(lambda step: gamma ** (step // step_size))


def multi_step(milestones: Iterable[int], gamma: float = 0.1) -> Schedule:
    """Multiply by ``gamma`` at each milestone; one that is named twice counts twice.

    Args:
        milestones: steps of at least 0 in rising order, which torch would sort.
    """
    check_numbers(positive=True, gamma=gamma)
    stones = [check_int(f"milestones[{i}]", m, 0) for i, m in enumerate(milestones)]
    if stones != sorted(stones):
        raise ValueError(f"milestones have to be in rising order, but got {stones}")
    return _schedule(lambda step: gamma ** bisect_right(stones, step))


def exponential(gamma: float) -> Schedule:
    """Multiply by ``gamma`` after every step: gamma^step."""
    check_numbers(positive=True, gamma=gamma)
    return _schedule(lambda step: gamma**step)


def polynomial(total_iters: int = 5, power: float = 1.0) -> Schedule:
    """Fall to 0 in ``total_iters`` steps, (1 - step / total_iters)^power, and stay there."""
    check_int("total_iters", total_iters, 1)
    check_numbers(positive=True, power=power)
    return _schedule(lambda step: (1 - min(step / total_iters, 1)) ** power)


def linear(
    start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
) -> Schedule:
    """Go straight from ``start_factor`` to ``end_factor`` in ``total_iters`` steps; stay there.

    The factors may be any numbers from 0; torch wants both at most 1 and the first above 0.
    """
    check_numbers(start_factor=start_factor, end_factor=end_factor)
    check_int("total_iters", total_iters, 1)
    return _schedule(lambda step: _mix(start_factor, end_factor, min(step / total_iters, 1)))


def cosine(T_max: int, end_factor: float = 0.0) -> Schedule:
    """Fall along half a cosine to ``end_factor`` in ``T_max`` steps, and stay there.

    end_factor + (1 - end_factor) (1 + cos(pi step / T_max)) / 2, one period of SGDR
    (Loshchilov and Hutter, 2017, https://arxiv.org/abs/1608.03983). After ``T_max`` torch's
    CosineAnnealingLR follows the cosine up again, to 1 at step 2 T_max: whoever trains a
    little longer than planned gets large rates. Restarts are in `cosine_with_warm_restarts`.
    """
    check_int("T_max", T_max, 1)
    check_numbers(end_factor=end_factor)
    return _schedule(lambda step: _cosine(1.0, end_factor, min(step / T_max, 1)))


def cosine_with_warm_restarts(T_0: int, T_mult: int = 1, end_factor: float = 0.0) -> Schedule:
    """Fall along half a cosine, jump back to 1, and again: SGDR (Loshchilov and Hutter, 2017,
    https://arxiv.org/abs/1608.03983).

    Args:
        T_0: steps of the first period.
        T_mult: by how much each period is longer than the one before.
        end_factor: what each period falls to, and does not reach: at its end the next begins.
    """
    check_int("T_0", T_0, 1)
    check_int("T_mult", T_mult, 1)
    check_numbers(end_factor=end_factor)

    def factor(step):
        period = T_0
        while T_mult > 1 and step >= period:
            step, period = step - period, period * T_mult
        return _cosine(1.0, end_factor, step % period / period)

    return _schedule(factor)


def one_cycle(
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """Rise to 1, then fall far below the start (Smith and Topin, 2018,
    https://arxiv.org/abs/1708.07120).

    The base rate is torch's ``max_lr``. The momentum stays as it is: torch's
    ``cycle_momentum=False``. After ``total_steps`` the last factor stays, where torch raises.

    Args:
        total_steps: steps of the cycle; the lowest factor is that of step total_steps - 1.
        pct_start: share of the steps in which the factor rises, in (0, 1).
        anneal_strategy: ``"cos"`` or ``"linear"``, the form of each phase.
        div_factor: the factor starts at 1 / div_factor,
        final_div_factor: and ends at 1 / (div_factor final_div_factor).
        three_phase: fall back to the start as fast as it rose, then to the end, as in the
            paper; ``pct_start`` is at most 1/2 then.
    """
    check_int("total_steps", total_steps, 1)
    check_numbers(positive=True, div_factor=div_factor, final_div_factor=final_div_factor)
    check_numbers(positive=True, high=1, pct_start=pct_start)
    if three_phase and pct_start > 1 / 2:
        raise ValueError(
            f"pct_start has to be at most 1/2 with three_phase, but got {pct_start}"
        )
    if anneal_strategy not in ("cos", "linear"):
        raise ValueError(
            f"anneal_strategy has to be 'cos' or 'linear', but got {anneal_strategy!r}"
        )
    anneal = _cosine if anneal_strategy == "cos" else _mix
    last, up = total_steps - 1, pct_start * total_steps - 1
    low = 1 / div_factor
    points = [(0, low), (up, 1.0), (last, low / final_div_factor)]
    if three_phase:
        points.insert(2, (2 * up, low))

    def factor(step):
        step = min(step, last)
        # A rise of less than a step, up < 0, is over before step 0.
        (a, start), (b, end) = next(pair for pair in pairwise(points) if step <= pair[1][0])
        return anneal(start, end, (step - a) / (b - a) if b != a else 1.0)

    return _schedule(factor)


def inverse_square_root(timescale: int) -> Schedule:
    """Fall as sqrt(timescale / (timescale + step)); torch has no such scheduler.

    The rate of Vaswani et al. (2017, https://arxiv.org/abs/1706.03762) counts its steps from
    1. With w warm-up steps and its peak, 1 / sqrt(d_model w), as base rate it is

        >>> w = 4000
        >>> schedule = warmup(w - 1, then=inverse_square_root(w), start=1 / w)
        >>> schedule(w - 1), schedule(4 * w - 1)
        (1.0, 0.5)
    """
    check_int("timescale", timescale, 1)
    return _schedule(lambda step: math.sqrt(timescale / (timescale + step)))


def warmup(steps: int, then: Schedule | None = None, start: float = 1 / 3) -> Schedule:
    """Rise straight to the first factor of ``then`` in ``steps`` steps, and go on with it
    (Goyal et al., 2017, https://arxiv.org/abs/1706.02677).

    For a schedule ``then`` that begins with 1 this is torch's SequentialLR of a LinearLR and
    that schedule. Where it begins elsewhere, SequentialLR still rises to 1 and jumps.

    Args:
        steps: how long the rise takes; ``then`` counts its own steps from there. 0 for none.
        then: any function from steps to factors; default: `constant`.
        start: the first factor, in [0, 1], as a share of that of ``then``. At 0, which torch's
            LinearLR refuses, the first step changes nothing.
    """
    check_int("steps", steps, 0)
    check_numbers(start=start)
    if start > 1:
        raise ValueError(f"start has to be in [0, 1], but got {start}")
    then = constant() if then is None else then
    if not callable(then):
        raise TypeError(f"then has to be a function from steps to factors, but got {then!r}")
    peak = then(0)
    check_numbers(**{"then(0)": peak})

    def factor(step):
        return peak * _mix(start, 1.0, step / steps) if step < steps else then(step - steps)

    return _schedule(factor)


def _schedule(factor):
    """Return ``factor`` as a function that checks its step."""

    def schedule(step: int) -> float:
        try:
            return float(factor(check_int("step", step, 0)))
        except OverflowError:  # a power of gamma > 1
            return math.inf

    return schedule


def _mix(start, end, x):
    return (1 - x) * start + x * end


def _cosine(start, end, x):
    return end + (start - end) * (1 + math.cos(math.pi * x)) / 2
