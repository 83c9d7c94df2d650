"""Where the course runs and which random numbers it draws.

Two environment variables steer every chapter, test and study: ``COURSE_DEVICE`` chooses the
device and ``COURSE_SEED`` shifts all seeds at once. A variable that is set but empty counts
as not set.
"""

import math
import operator
import os
from numbers import Real

import torch

SEEDS_PER_BLOCK = 1000


def device() -> torch.device:
    """Return the device to run on: what ``COURSE_DEVICE`` names, else CUDA, else the CPU.

    Raises:
        ValueError: ``COURSE_DEVICE`` is neither ``cpu`` nor ``cuda``, or is ``cuda`` where
            torch finds no CUDA device.
    """
    available = torch.cuda.is_available()
    name = os.environ.get("COURSE_DEVICE") or ("cuda" if available else "cpu")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"COURSE_DEVICE has to be 'cpu' or 'cuda', but got {name!r}")
    if name == "cuda" and not available:
        raise ValueError(
            "COURSE_DEVICE has to be 'cpu' where torch finds no CUDA device, but got 'cuda'"
        )
    return torch.device(name)


def course_seed() -> int:
    """Return ``COURSE_SEED`` (default 0), which selects the block that `seeds` draws from.

    Raises:
        ValueError: ``COURSE_SEED`` is not an int from 0 to 999.
    """
    text = os.environ.get("COURSE_SEED") or "0"
    if not (text.isascii() and text.isdigit() and int(text) < SEEDS_PER_BLOCK):
        raise ValueError(f"COURSE_SEED has to be an int from 0 to 999, but got {text!r}")
    return int(text)


def seeds(n: int) -> list[int]:
    """Return the first ``n`` seeds of this course's block, ``1000 * COURSE_SEED + k``.

    Blocks of different ``COURSE_SEED`` share no seed, and ``seeds(10)`` begins ``seeds(20)``.

    Args:
        n: number of seeds, from 1 to 1000.

    Example::

        >>> seeds(3)
        [0, 1, 2]
    """
    first = course_seed() * SEEDS_PER_BLOCK
    return [first + k for k in range(check_int("n", n, 1, SEEDS_PER_BLOCK))]


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh `torch.Generator` on ``device`` that starts from ``seed``.

    Starting weights and batch orders are drawn on the CPU, so that a CPU and a GPU start
    from the same numbers; only noise drawn during training needs another ``device``.

    Args:
        seed: an int from 0 to 2**32 - 1 (torch's CPU generator ignores the higher bits, so
            larger seeds would silently repeat smaller ones).
        device: where the generator lives and draws.
    """
    return torch.Generator(device).manual_seed(check_int("seed", seed, 0, 2**32 - 1))


def check_int(name: str, value: int, low: int, high: int | None = None) -> int:
    """Return ``value`` as an int after checking that it lies in ``[low, high]``.

    Args:
        name: what to call the argument in the error.
        value: an int or anything that stands for one (a NumPy integer); not a bool.
        low: smallest value accepted.
        high: largest value accepted; ``None`` for no limit.

    Raises:
        TypeError: ``value`` is no integer.
        ValueError: ``value`` is out of range.
    """
    if isinstance(value, bool):
        raise TypeError(f"{name} has to be an int, but got {value}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} has to be an int, but got {value!r}") from None
    if number < low or (high is not None and number > high):
        expected = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name} has to be {expected}, but got {number}")
    return number


def check_numbers(
    low: float = 0, high: float = math.inf, *, positive: bool = False, **numbers: float
) -> None:
    """Check that each of ``numbers`` is finite and lies in ``[low, high)``, by its name.

    Args:
        positive: leave ``low`` = 0 itself out.

    Raises:
        TypeError: one is no number.
        ValueError: one is out of range.
    """
    for name, x in numbers.items():
        if isinstance(x, bool) or not isinstance(x, Real):
            raise TypeError(f"{name} has to be a number, but got {x!r}")
        if not low <= x < high or math.isinf(x) or (positive and x == 0):
            interval = f"{'(' if positive else '['}{low}, {high})"
            raise ValueError(f"{name} has to be in {interval}, but got {x}")
