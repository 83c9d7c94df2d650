"""Checks of exercises: what was expected, what came, and what usually causes it.

A check knows the typical wrong answers to its exercise and computes what each would give. If an
answer agrees with one of them, the message names the mistake and not only the number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

RTOL, ATOL = 1e-4, 1e-6


class WrongAnswer(AssertionError):
    """An answer is not right; the message is written for the person who gave it."""

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows: the message alone, since the fault is not in the check."""
        return [f"WrongAnswer: {self}"]


def equal(
    what: str,
    got: Any,
    expected: Any,
    *,
    because: Mapping[str, Any] | None = None,
    usually: str = "",
    rtol: float = RTOL,
    atol: float = ATOL,
) -> None:
    """Compare an answer with the right one, or raise `WrongAnswer`.

    Args:
        what: what was computed, such as ``"variance(X)"``; begins the message.
        got: the answer: a number, tensor, array, string or None, or a list, tuple or dict of
            such.
        expected: the right one.
        because: what typical mistakes give, by the mistake: ``{"you divide by N - 1":
            X.var(0)}``. The first that agrees with ``got`` but not with ``expected`` is named.
        usually: a sentence on the usual cause, where none of these agrees.
        rtol, atol: how far numbers may be apart, as in `torch.allclose`.

    Example::

        >>> equal("variance(x)", 2.0, 1.5, because={"you divide by N - 1": 2.0})
        Traceback (most recent call last):
            ...
        lib.checks.WrongAnswer: variance(x): expected 1.5, but got 2.
        That is what comes out if you divide by N - 1.
    """
    fault = _difference(got, expected, rtol, atol)
    if fault is None:
        return
    for cause, value in (because or {}).items():
        known = _difference(value, expected, rtol, atol) is not None  # else it explains nothing
        if known and _difference(got, value, rtol, atol) is None:
            raise WrongAnswer(
                f"{what}: {fault}.\nThat is what comes out if {cause.rstrip('.')}."
            )
    raise WrongAnswer(f"{what}: {fault}." + (f"\n{usually}" if usually else ""))


def holds(what: str, ok: bool | Tensor, *, expected: str, got: Any, usually: str = "") -> None:
    """Check a property that no single number stands for, or raise `WrongAnswer`.

    Args:
        what: what has the property; begins the message.
        ok: whether it does.
        expected, got: what the message says of both, ``got`` as a value or in words.
        usually: a sentence on the usual cause.
    """
    if not bool(ok):
        shown = got if isinstance(got, str) else _shown(got)
        raise WrongAnswer(
            f"{what}: expected {expected}, but got {shown}."
            + (f"\n{usually}" if usually else "")
        )


def raises(what: str, error: type[Exception], call: Any, *, usually: str = "") -> None:
    """Check that ``call()`` refuses its input with ``error``, or raise `WrongAnswer`."""
    try:
        result = call()
    except NotImplementedError:
        raise
    except error:
        return
    except Exception as other:
        got = f"{type(other).__name__}: {other}"
    else:
        got = f"no error, and {_shown(result)} as result"
    holds(what, False, expected=f"a {error.__name__}", got=got, usually=usually)


def passed(exercise: int | str) -> None:
    """Say that an exercise is solved; the last line of its check."""
    print(f"Exercise {exercise}: right.")


def _difference(got: Any, expected: Any, rtol: float, atol: float) -> str | None:
    """What distinguishes the two, in words that end a sentence, or None."""
    if got is None and expected is not None:
        return f"expected {_shown(expected)}, but got None (is a `return` missing?)"
    if isinstance(expected, Mapping):
        return _difference_of_parts(got, expected, Mapping, list(expected), rtol, atol)
    if isinstance(expected, list | tuple):
        return _difference_of_parts(got, expected, Sequence, range(len(expected)), rtol, atol)
    if expected is None or isinstance(expected, str | bool):
        if isinstance(got, Tensor | np.ndarray) and np.size(got) == 1:
            got = got.item()
        same = got == expected and isinstance(got, str) == isinstance(expected, str)
        return None if same else f"expected {expected!r}, but got {got!r}"
    try:
        a = torch.as_tensor(got).detach().cpu().double()
    except (TypeError, ValueError, RuntimeError):
        return f"expected {_shown(expected)}, but got {got!r}"
    b = torch.as_tensor(expected).detach().cpu().double()
    if a.shape != b.shape:
        return f"expected shape {tuple(b.shape)}, but got {tuple(a.shape)}"
    near = torch.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
    if near.all():
        return None
    if a.numel() <= 6:
        return f"expected {_shown(b)}, but got {_shown(a)}"
    where = tuple((~near).nonzero()[0].tolist())
    place = str(where[0]) if len(where) == 1 else str(where)
    return (
        f"{int((~near).sum())} of {a.numel()} numbers differ; at index {place} "
        f"expected {_shown(b[where])}, but got {_shown(a[where])}"
    )


def _difference_of_parts(got, expected, kind, keys, rtol, atol) -> str | None:
    right_kind = isinstance(got, kind) and not isinstance(got, str)
    if kind is Sequence and isinstance(got, Tensor | np.ndarray) and got.ndim:
        right_kind = True
    if not right_kind:
        return f"expected {_shown(expected)}, but got {_shown(got)}"
    own = list(got) if kind is Mapping else range(len(got))
    if list(own) != list(keys) and set(own) != set(keys):
        counted = f"{len(keys)} values, but got {len(own)}"
        named = f"the keys {list(keys)}, but got {list(own)}"
        return f"expected {named if kind is Mapping else counted}"
    for key in keys:
        if fault := _difference(got[key], expected[key], rtol, atol):
            return f"at {key!r} {fault}"
    return None


def _shown(x: Any) -> str:
    """A value in a few words: numbers with four digits, a tensor by its first six."""
    if isinstance(x, list | tuple):
        inner = ", ".join(_shown(item) for item in x[:6]) + (", ..." if len(x) > 6 else "")
        return f"({inner})" if isinstance(x, tuple) else f"[{inner}]"
    if isinstance(x, Tensor | np.ndarray):
        x = torch.as_tensor(x).detach().cpu()
        if x.ndim == 0:
            return _shown(x.item())
        if x.numel() > 6:
            return f"a tensor of shape {tuple(x.shape)}"
        return _shown(x.tolist())
    if isinstance(x, float | np.floating):
        return f"{float(x):.4g}"
    return repr(x)
