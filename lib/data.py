"""Data sets of the course, each dealt into training, validation and test set by a seed.

Settings that share a seed share the split: neither label noise nor the size of the training
set changes who is in the validation or the test set.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import sklearn.datasets
import torch
from torch import Tensor

from lib.device import check_int, generator
from lib.mnist import has_mnist as has_mnist  # one place to ask for data
from lib.mnist import mnist_files, parse_idx


@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Samples X (N, D) and targets y (N,) or (N, 1) of three sets that share no sample."""

    X_train: Tensor
    y_train: Tensor
    X_val: Tensor
    y_val: Tensor
    X_test: Tensor
    y_test: Tensor

    def __post_init__(self) -> None:
        for part in ("train", "val", "test"):
            X, y = getattr(self, f"X_{part}"), getattr(self, f"y_{part}")
            if len(X) != len(y):
                raise ValueError(
                    f"X_{part} and y_{part} have to be of one length, "
                    f"but got {len(X)} and {len(y)}"
                )

    def __repr__(self) -> str:
        shapes = (f"{name}={tuple(tensor.shape)}" for name, tensor in vars(self).items())
        return f"Split({', '.join(shapes)})"

    def to(self, device: torch.device | str) -> "Split":
        """Return the same split on ``device``."""
        return Split(**{name: tensor.to(device) for name, tensor in vars(self).items()})

    def map(self, fn: Callable[[Tensor], Tensor]) -> "Split":
        """Return the split with ``fn`` applied to each X; fit ``fn`` on ``X_train`` alone."""
        names = ("X_train", "X_val", "X_test")
        return replace(self, **{name: fn(getattr(self, name)) for name in names})


def digits(
    seed: int,
    *,
    val: float = 0.2,
    test: float = 0.25,
    num_train: int | None = None,
    label_noise: float = 0.0,
    raw: bool = False,
) -> Split:
    """Return scikit-learn's 1,797 handwritten digits: X (N, 64) float32, y (N,) int64.

    Args:
        seed: decides the split; every class keeps its share in each set, within one sample
            or two.
        val, test: size of these sets, as a fraction of all samples or as a number.
        num_train: training samples to keep; default: all that remain.
        label_noise: fraction in [0, 1) of training labels replaced by another class; a
            larger fraction changes the labels that a smaller one changes, and more.
        raw: keep pixels in 0..16 instead of dividing them into [0, 1].

    Raises:
        TypeError, ValueError: a size, fraction or seed that is none, or more samples asked
            for than there are.
    """
    X, y = _table("digits", torch.float32)
    return _split(X if raw else X / 16, y, seed, val, test, num_train, label_noise)


def wine(
    seed: int, *, val: float = 0.2, test: float = 0.25, dtype: torch.dtype = torch.float32
) -> Split:
    """Return scikit-learn's 178 wines, 13 raw features of very different scale, 3 classes.

    Arguments and errors as in `digits`; ``torch.float64`` as ``dtype`` suits computations
    that squaring the features' scales would spoil, such as eigenvalues of the covariance.
    """
    X, y = _table("wine", dtype)
    return _split(X, y, seed, val, test)


def breast_cancer(
    seed: int, *, val: float = 0.2, test: float = 0.25, dtype: torch.dtype = torch.float32
) -> Split:
    """Return scikit-learn's 569 tumours, 30 raw features, 2 classes; arguments as in `wine`."""
    X, y = _table("breast_cancer", dtype)
    return _split(X, y, seed, val, test)


def spirals(
    seed: int, n: int = 300, noise: float = 0.05, *, num_classes: int = 2, val=1000, test=1000
) -> Split:
    """Return points (N, 2) float32 on interleaved spirals in the unit disc, y (N,) int64.

    Args:
        seed: decides everything; ``n`` and ``noise`` leave the other draws as they are.
        n: number of training points.
        noise: standard deviation added to both coordinates, in radii of the disc.
        num_classes: number of spirals, at least 2.
        val, test: number of points in these sets.
    """
    check_int("num_classes", num_classes, 2)

    def draw(size: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        y = torch.arange(size) % num_classes
        radius = torch.rand(size, generator=g).sqrt()  # evenly spread over the disc
        angle = 2 * math.pi * (radius + y / num_classes)
        X = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)  # (N, 2)
        return X + noise * torch.randn(size, 2, generator=g), y

    return _sample(draw, seed, n, noise, val, test)


def polynomial(
    seed: int,
    n: int = 20,
    noise: float = 0.3,
    *,
    coefficients: Sequence[float] = (0.0, -3.0, 0.0, 4.0),
    val: int = 200,
    test: int = 1000,
) -> Split:
    """Return a 1-D regression problem: x uniform in [-1, 1], y = polynomial(x) + noise, both
    (N, 1) float32. The noise is in all three sets, so no model's test error (mean squared)
    is expected to go below ``noise ** 2``.

    Args:
        seed: decides everything; ``n`` and ``noise`` leave the other draws as they are.
        n: number of training points.
        noise: standard deviation of the noise.
        coefficients: of 1, x, x^2, ...; default 4x^3 - 3x, which stays within [-1, 1].
        val, test: number of points in these sets.
    """
    if len(coefficients) == 0:
        raise ValueError("coefficients has to hold at least one number, but got none")

    def draw(size: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        X = 2 * torch.rand(size, 1, generator=g) - 1
        y = sum(c * X**power for power, c in enumerate(coefficients))
        return X, y + noise * torch.randn(size, 1, generator=g)

    return _sample(draw, seed, n, noise, val, test)


def mnist(
    seed: int, *, val: float = 10_000, num_train: int | None = None, download: bool = True
) -> Split:
    """Return MNIST: X (N, 784) float32 in [0, 1], y (N,) int64, and its own 10,000 test images.

    The four standard files are read from ``COURSE_DATA``/mnist or the user's cache, and
    fetched there when they are missing or their md5 is not the standard one.

    Args:
        seed: deals the 60,000 training images into training and validation set.
        val, num_train: as in `digits`.
        download: fetch missing files; otherwise stay offline.

    Raises:
        FileNotFoundError: a file is neither there nor to be had.
    """
    files = mnist_files(download)
    X, y, X_test, y_test = (parse_idx(*item) for item in zip(files, (3, 1, 3, 1), strict=True))
    in_val, in_train = _deal(y, [_size("val", val, len(y))], num_train, _generator(seed))

    def part(X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return X.flatten(1).float() / 255, y.long()  # (N, 28, 28) -> (N, 784)

    return Split(
        *part(X[in_train], y[in_train]), *part(X[in_val], y[in_val]), *part(X_test, y_test)
    )


@functools.cache
def _table(name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    if not dtype.is_floating_point:
        raise ValueError(f"dtype has to be a floating-point type, but got {dtype}")
    X, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    return torch.from_numpy(X).to(dtype), torch.from_numpy(y).long()


def _split(X, y, seed, val, test, num_train=None, label_noise=0.0) -> Split:
    g = _generator(seed)
    sizes = [_size("test", test, len(y)), _size("val", val, len(y))]
    in_test, in_val, in_train = _deal(y, sizes, num_train, g)
    y_train = _with_noise(y[in_train], label_noise, int(y.max()) + 1, g)
    return Split(X[in_train], y_train, X[in_val], y[in_val], X[in_test], y[in_test])


def _generator(seed: int) -> torch.Generator:
    # Away from the seeds of weights and batch orders, or noise and weights would correlate.
    return generator(check_int("seed", seed, 0, 10**9) + 10**9)


def _size(name: str, value: float | int, n: int) -> int:
    """Turn a fraction of ``n`` or a number of samples into a number of samples."""
    if isinstance(value, float):
        if not 0 < value < 1:
            raise ValueError(
                f"{name} has to be a fraction in (0, 1) or an int, but got {value}"
            )
        value = max(1, round(value * n))
    return check_int(name, value, 1, n - 1)


def _deal(y, sizes: list[int], num_train: int | None, g: torch.Generator) -> list[Tensor]:
    """Deal indices into ``y``, random and stratified: hands of ``sizes``, then the training."""
    left = len(y) - sum(sizes)
    if left < 1:
        raise ValueError(
            f"val and test have to leave training samples, but got {sum(sizes)} of {len(y)}"
        )
    last = left if num_train is None else check_int("num_train", num_train, 1, left)
    hands, rest = [], torch.randperm(len(y), generator=g)
    for size in (*sizes, last):
        # Evenly spaced places in the shuffled samples ordered by class: every class gets its
        # share, rounded up or down.
        by_class = y[rest].argsort(stable=True)
        offset = torch.randint(len(rest), (), generator=g)
        chosen = torch.zeros(len(rest), dtype=torch.bool)
        chosen[by_class[(torch.arange(size) * len(rest) + offset) // size]] = True
        hands.append(rest[chosen])
        rest = rest[~chosen]
    return hands


def _with_noise(y: Tensor, rate: float, num_classes: int, g: torch.Generator) -> Tensor:
    """Replace ``round(rate * N)`` labels by another class, each other class equally likely."""
    if not 0 <= rate < 1:
        raise ValueError(f"label_noise has to be in [0, 1), but got {rate}")
    hit = torch.randperm(len(y), generator=g)[: round(rate * len(y))]
    shift = torch.randint(1, num_classes, y.shape, generator=g)
    return y.index_put((hit,), (y[hit] + shift[hit]) % num_classes)


def _sample(draw, seed: int, n: int, noise: float, val: int, test: int) -> Split:
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise has to be finite and at least 0, but got {noise}")
    g = _generator(seed)  # test set first, so that n cannot change it
    X_test, y_test = draw(check_int("test", test, 1), g)
    X_val, y_val = draw(check_int("val", val, 1), g)
    return Split(*draw(check_int("n", n, 1), g), X_val, y_val, X_test, y_test)
