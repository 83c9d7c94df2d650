"""Data normalization: bring the features to one scale before a network sees them.

`fit` computes statistics from the training set alone, `forward` applies them to any set. They
are buffers in float64, which is also the dtype of the arithmetic; the result has that of X.
Errors: TypeError if X is no float tensor; ValueError if its shape does not fit, or `fit` meets
NaN, infinity or too few rows; RuntimeError before `fit`.
"""

import torch
from torch import Tensor, nn

Dim = int | tuple[int, ...]


class _Preprocessor(nn.Module):
    """A module whose buffers are empty until `fit`, and take any shape when loaded."""

    def __init__(self, *buffers, dim=(0,), eps=None):
        super().__init__()
        if eps is not None and not eps >= 0:
            raise ValueError(f"expected eps to be None or at least 0, but got {eps}")
        self.dim, self.eps = dim, eps
        for name in buffers:
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for name, buffer in self.named_buffers():
            if prefix + name in state_dict:
                setattr(self, name, buffer.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _checked(self, X):
        """Return X in the dtype of the statistics, if its features are those of `fit`."""
        _check_float(X)
        statistic = next(self.buffers())
        if statistic.numel() == 0:
            raise RuntimeError(f"this {type(self).__name__} has no statistics: call fit first")
        sizes = list(statistic.shape)
        for d in self.dim:
            sizes[d] = "n"  # averaged over, hence free
        if X.ndim == len(sizes) and all(k in ("n", n) for k, n in zip(sizes, X.shape)):
            return X.to(statistic.dtype)
        shape = ", ".join(map(str, sizes))
        raise ValueError(f"expected X of shape ({shape}) as in fit, but got {tuple(X.shape)}")


class Standardizer(_Preprocessor):
    """Give each feature mean 0 and standard deviation 1 (LeCun, Bottou, Orr & Müller, 1998).

    z = (x - mean) / std, where std² = mean((x - mean)²) divides by n, as in scikit-learn;
    ``torch.std`` divides by n - 1. A constant feature gets std 1, so that it becomes 0.

    Args:
        dim: averaged over: 0 for X (n, D), (0, 2, 3) for the channels of images (n, C, H, W).
        center: subtract the mean, which makes sparse inputs dense; without, zeros stay zero.
        scale: divide by std.
        eps: a feature is constant if std <= eps |mean|; default: finfo(X.dtype).eps.

    >>> X_train = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    >>> Standardizer().fit(X_train)(torch.tensor([[4.0, 7.0]]))
    tensor([[2., 0.]])
    """

    def __init__(
        self, dim: Dim = 0, *, center: bool = True, scale: bool = True, eps: float | None = None
    ) -> None:
        super().__init__("mean", "std", dim=(dim,) if isinstance(dim, int) else dim, eps=eps)
        self.center, self.scale = center, scale

    def fit(self, X: Tensor) -> "Standardizer":
        x = _training_data(X)
        mean = x.mean(self.dim, keepdim=True)  # (1, D)
        mean += (x - mean).mean(self.dim, keepdim=True)  # takes out the rounding of the sum
        std = (x - mean).square().mean(self.dim, keepdim=True).sqrt()  # (1, D)
        eps = torch.finfo(X.dtype).eps if self.eps is None else self.eps
        std[std <= eps * mean.abs()] = 1
        self.mean, self.std = mean * self.center, std**self.scale  # False: 0 and 1
        return self

    def forward(self, X: Tensor) -> Tensor:
        return ((self._checked(X) - self.mean) / self.std).to(X.dtype)

    def inverse(self, Z: Tensor) -> Tensor:
        return (self._checked(Z) * self.std + self.mean).to(Z.dtype)


class MinMaxScaler(_Preprocessor):
    """Map the training range of each feature to [low, high], a constant feature to low.

    z = (1 - u) low + u high, where u = (x - min) / (max - min); X is (n, ...), n >= 2. With
    ``clip``, what lies outside the range goes to its nearer end, and no `inverse` finds back.

    >>> X_train = torch.tensor([[0.0, 7.0], [16.0, 7.0]])
    >>> MinMaxScaler(low=-1).fit(X_train)(torch.tensor([[20.0, 7.0]]))
    tensor([[ 1.5000, -1.0000]])
    """

    def __init__(self, low: float = 0.0, high: float = 1.0, *, clip: bool = False) -> None:
        super().__init__("min", "range")
        if not -torch.inf < low < high < torch.inf:
            raise ValueError(f"expected finite low < high, but got low={low}, high={high}")
        self.low, self.high, self.clip = low, high, clip

    def fit(self, X: Tensor) -> "MinMaxScaler":
        self.min, maximum = _training_data(X, min_rows=2).aminmax(dim=0, keepdim=True)  # (1, D)
        self.range = (maximum - self.min).masked_fill(maximum == self.min, 1)
        return self

    def forward(self, X: Tensor) -> Tensor:
        u = (self._checked(X) - self.min) / self.range
        u = u.clamp(0, 1) if self.clip else u
        return ((1 - u) * self.low + u * self.high).to(X.dtype)

    def inverse(self, Z: Tensor) -> Tensor:
        u = (self._checked(Z) - self.low) / (self.high - self.low)
        return (self.min + u * self.range).to(Z.dtype)


class Whitener(_Preprocessor):
    """Rotate and scale X (n, D), n >= 2, to covariance I (Kessy, Lewin & Strimmer, 2018).

    V diag(std²) Vᵀ is the training covariance, divided by n (scikit-learn: n - 1).
    pca: z = (x - mean) V / std, largest std first
    zca: z = (x - mean) V / std Vᵀ, of all white z the closest to x
    Directions of variance <= eps max(variance) are null: they become 0, and no ridge bends the
    others. The default eps is D times the rounding error of a variance.

    >>> X_train = torch.tensor([[0.0, 0.0], [0.0, 2.0], [4.0, 0.0], [4.0, 2.0]])
    >>> Whitener("zca").fit(X_train)(torch.tensor([[6.0, 3.0]]))
    tensor([[2., 2.]])
    """

    def __init__(self, kind: str = "pca", *, eps: float | None = None) -> None:
        super().__init__("mean", "std", "V", eps=eps)
        if kind not in ("pca", "zca"):
            raise ValueError(f"expected kind to be 'pca' or 'zca', but got {kind!r}")
        self.kind = kind

    def fit(self, X: Tensor) -> "Whitener":
        x = _training_data(X, min_rows=2, matrix=True)
        self.mean = Standardizer().fit(x).mean  # (1, D)
        covariance = (x - self.mean).T @ (x - self.mean) / len(x)  # (D, D)
        variance, V = (t.flip(-1) for t in torch.linalg.eigh(covariance))  # (D,), (D, D)
        rounding = max(torch.finfo(x.dtype).eps, torch.finfo(X.dtype).eps ** 2)
        eps = len(V) * rounding if self.eps is None else self.eps
        null = variance <= eps * variance[0]
        self.std, self.V = variance.sqrt().masked_fill(null, 1), V.masked_fill(null, 0)
        return self

    def forward(self, X: Tensor) -> Tensor:
        Z = (self._checked(X) - self.mean) @ self.V / self.std
        return (Z @ self.V.T if self.kind == "zca" else Z).to(X.dtype)

    def inverse(self, Z: Tensor) -> Tensor:
        U = self._checked(Z) @ self.V if self.kind == "zca" else self._checked(Z)
        return (U * self.std @ self.V.T + self.mean).to(Z.dtype)


def standardize_images(X: Tensor) -> Tensor:
    """Give each image of X (n, ...) mean 0 and std 1 by its own pixels, so nothing is fit.

    The std (biased) counts as at least 1 / sqrt(num_pixels): no noise fills a blank image.
    """
    _check_float(X)
    if X.ndim < 2 or X.shape[1:].numel() == 0:
        raise ValueError(f"expected X of shape (n, ...) with pixels, but got {tuple(X.shape)}")
    x = X.double().flatten(1)  # (n, num_pixels)
    x = x - x.mean(1, keepdim=True)
    variance = x.square().mean(1, keepdim=True).clamp(min=1 / x.shape[1])  # (n, 1)
    return (x / variance.sqrt()).view(X.shape).to(X.dtype)


def condition_number(X: Tensor, bias: bool = True) -> float:
    """Return largest / smallest eigenvalue of Zᵀ Z / n, Z = [X, 1], or inf if Z lacks rank.

    The larger, the slower gradient descent fits a linear model to X (n, D) (LeCun, Bottou, Orr
    & Müller, 1998); without ``bias``, Z = X.
    """
    x = _training_data(X, matrix=True)
    Z = torch.cat([x, torch.ones_like(x[:, :1])], dim=1) if bias else x  # (n, D + 1)
    full_rank = torch.linalg.matrix_rank(Z) == Z.shape[1]
    return torch.linalg.cond(Z).item() ** 2 if full_rank else torch.inf


def _training_data(X, *, min_rows=1, matrix=False):
    """Return X in float64 and without its graph, if statistics can be computed from it."""
    _check_float(X)
    if X.numel() == 0 or X.ndim == 0 or len(X) < min_rows or (matrix and X.ndim != 2):
        shape = "(n, D)" if matrix else "(n, ...)"
        raise ValueError(f"expected X {shape}, n >= {min_rows}, but got {tuple(X.shape)}")
    if not X.isfinite().all():
        raise ValueError(f"expected finite X, but got {X[~X.isfinite()][0]}")
    return X.detach().double()


def _check_float(X):
    if isinstance(X, Tensor) and X.is_floating_point():
        return
    got = X.dtype if isinstance(X, Tensor) else type(X)
    raise TypeError(f"expected float tensor X (convert images: X.float() / 255), but got {got}")
