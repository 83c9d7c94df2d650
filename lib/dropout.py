"""Dropout (Srivastava et al., 2014, https://jmlr.org/papers/v15/srivastava14a.html).

While it trains, each unit is set to 0 with probability p:

    inverted:  y = x mask / (1 - p) in training,  y = x in evaluation
    classic:   y = x mask in training,            y = x (1 - p) in evaluation

Either way the mean of y over the masks is what evaluation returns. Names and defaults are those
of torch, and on a CPU so is every bit of a mask for a contiguous input, from a generator in the
same state. Torch has no classic form, no `DropConnect` and no `monte_carlo`; its ``inplace`` is
left out.

Masks come from ``generator``, on the input's device, or else from torch's global one, which
follows the run in `lib.train` and `lib.study`. Where a study trains many networks as one
program, each has its own numbers instead (`lib.noise`). Errors: ValueError for p outside [0, 1)
(torch accepts 1, which leaves nothing to learn from), TypeError for an input that is no float
tensor.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lib.device import check_int


def draw_mask(like: Tensor, p: float, generator: Generator | None = None) -> Tensor:
    """Return a mask of the shape of ``like``: each element is 0 with probability p, else 1."""
    # Not bernoulli_: only without underscore can `lib.noise` put a network's own numbers here.
    return torch.bernoulli(like.detach(), 1 - p, generator=generator)


def dropout(
    x: Tensor, p: float = 0.5, training: bool = True, generator: Generator | None = None
) -> Tensor:
    """Return inverted dropout of x: 0 or x / (1 - p) in training, else x itself.

    >>> dropout(torch.ones(100), p=0.75).unique()
    tensor([0., 4.])
    """
    return _inverted(x, 0, p, training, generator)


def classic_dropout(
    x: Tensor, p: float = 0.5, training: bool = True, generator: Generator | None = None
) -> Tensor:
    """Return dropout as first published: 0 or x in training, else x (1 - p).

    >>> classic_dropout(torch.ones(100), p=0.75).unique()
    tensor([0., 1.])
    """
    _check(x, p)
    if p == 0:
        return x
    return x * draw_mask(x, p, generator) if training else x * (1 - p)


class _Dropout(nn.Module):
    """What the dropout layers share.

    Args:
        p: probability in [0, 1) that a unit is dropped.
        generator: of the masks; default: torch's global one.
    """

    def __init__(self, p: float = 0.5, *, generator: Generator | None = None) -> None:
        super().__init__()
        _check_p(p)
        self.p, self.generator = p, generator

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout(_Dropout):
    """Inverted dropout of x, of any shape; see `dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training, self.generator)


class ClassicDropout(_Dropout):
    """Classic dropout of x, of any shape; see `classic_dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        return classic_dropout(x, self.p, self.training, self.generator)


class _SpatialDropout(_Dropout):
    """Spatial dropout (Tompson et al., 2015, https://arxiv.org/abs/1411.4280).

    It drops or keeps a channel as a whole. Neighbouring pixels are much alike, so that those
    that are kept would tell what a dropped one was.
    """

    ndims: tuple[int, ...]
    spatial: int  # dimensions at the end that share a mask

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim not in self.ndims:
            expected = " or ".join(f"{ndim}D" for ndim in self.ndims)
            raise ValueError(f"expected {expected} input (got {x.ndim}D input)")
        return _inverted(x, self.spatial, self.p, self.training, self.generator)


class Dropout1d(_SpatialDropout):
    """Inverted dropout of the channels of x (N, C, L) or (C, L)."""

    ndims, spatial = (2, 3), 1


class Dropout2d(_SpatialDropout):
    """Inverted dropout of the channels of x (N, C, H, W).

    Of three dimensions, which torch reads as (N, C, L) with a warning, we take none.
    """

    ndims, spatial = (4,), 2


class DropConnect(nn.Linear):
    """DropConnect (Wan et al., 2013, https://proceedings.mlr.press/v28/wan13.html).

    A linear layer that drops single weights and biases, with masks of their own for each
    sample:

        y = ((M ∘ W) x + m ∘ b) / (1 - p) in training,  y = W x + b in evaluation

    The paper divides by nothing, and samples its evaluation from a normal distribution with
    the mean and variance of the pre-activation; we take the mean.

    Args:
        in_features, out_features: sizes of x (*, in_features) and y (*, out_features).
        bias: whether to add b.
        p: probability in [0, 1) that a weight is dropped.
        generator: of the starting weights, which are those of torch's ``nn.Linear``, and of
            the masks, which take (*, out_features, in_features) numbers.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        p: float = 0.5,
        generator: Generator | None = None,
    ) -> None:
        _check_p(p)
        self.generator = generator  # already here, since nn.Linear draws its weights at once
        super().__init__(in_features, out_features, bias, device, dtype)
        self.p = p

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5), generator=self.generator)
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            nn.init.uniform_(self.bias, -bound, bound, generator=self.generator)

    def forward(self, x: Tensor) -> Tensor:
        _check(x, self.p)
        if not self.training or self.p == 0:
            return F.linear(x, self.weight, self.bias)
        weight = self._dropped(self.weight, x)  # (*, out, in)
        y = (weight @ x.unsqueeze(-1)).squeeze(-1)  # (*, out)
        return y if self.bias is None else y + self._dropped(self.bias, x)

    def _dropped(self, parameter, x):
        """Return the parameter with a mask for each sample of x, (*, *parameter.shape)."""
        parameter = parameter.expand(*x.shape[:-1], *parameter.shape)
        return dropout(parameter, self.p, generator=self.generator)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p}"


DROPOUT_LAYERS = (
    _Dropout, DropConnect, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
    nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip


@torch.no_grad()
def monte_carlo(
    model: nn.Module, x: Tensor, passes: int = 50, generator: Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the model's output over several passes.

    Monte Carlo dropout (Gal and Ghahramani, 2016, https://arxiv.org/abs/1506.02142): the
    dropout layers draw masks, as in training, and all else is in evaluation mode. How far the
    outputs spread says how sure the model is.

    Modes, and the state of every generator, are left as they were, so that to call it again
    gives the same numbers. Only layers count: noise within others, such as ``nn.LSTM``, is off.

    Args:
        model: holds dropout layers, ours or torch's. To average probabilities and not logits,
            let it end in a softmax.
        x: input.
        passes: number of passes T, at least 2; the variance is divided by T - 1.
        generator: of the masks, also for layers with one of their own; default: go on from
            where the generators of the layers stand.

    Raises:
        ValueError: a model without dropout layer, or ``passes`` below 2.
    """
    check_int("passes", passes, 2)
    layers = [m for m in model.modules() if isinstance(m, DROPOUT_LAYERS)]
    if not layers:
        raise ValueError(f"model has to hold a dropout layer, but got {model}")
    sources = [torch.default_generator]
    if x.is_cuda:
        sources.append(torch.cuda.default_generators[x.device.index])
    sources += [g for layer in layers if (g := getattr(layer, "generator", None)) is not None]
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        for layer in layers:
            layer.train()
        with _random_state(list(dict.fromkeys(sources)), generator):
            outputs = torch.stack([model(x) for _ in range(passes)])  # (T, ...)
    finally:
        for module, mode in modes.items():
            module.training = mode
    return outputs.mean(0), outputs.std(0)


@contextmanager
def _random_state(sources: Sequence[Generator], generator: Generator | None) -> Iterator[None]:
    """Give the sources back their state afterwards; let them follow ``generator``, if any."""
    states = {source: source.get_state() for source in sources}
    try:
        if generator is not None:
            copy = torch.Generator(generator.device).set_state(generator.get_state())
            for source in sources:
                seed = torch.randint(2**32, (), generator=copy, device=copy.device)
                source.manual_seed(int(seed))
        yield
    finally:
        for source, state in states.items():
            source.set_state(state)


def _inverted(x, spatial, p, training, generator):
    """Inverted dropout of x with one mask for all of its last ``spatial`` dimensions."""
    _check(x, p)
    if not training or p == 0:
        return x
    return x * draw_mask(x[(..., *[slice(1)] * spatial)], p, generator).div_(1 - p)


def _check(x, p):
    _check_p(p)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"expected a float tensor as input, but got {got}")


def _check_p(p):
    if not isinstance(p, Real):
        raise TypeError(f"dropout probability has to be a number, but got {p!r}")
    if not 0 <= p < 1:
        raise ValueError(f"dropout probability has to be in [0, 1), but got {p}")
