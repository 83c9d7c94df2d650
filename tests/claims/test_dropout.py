"""Claims on dropout that need no page: what masks do, and a listing."""

import ast
import itertools
import types

import numpy as np
import pytest
import torch
from torch import nn

from lib import models
from lib.claims import Exact
from lib.device import generator, seeds
from lib.dropout import (
    ClassicDropout,
    DropConnect,
    Dropout,
    classic_dropout,
    draw_mask,
    dropout,
    monte_carlo,
)

SEEDS = seeds(20)


def randn(*shape, g):
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def farthest(x):
    return x.abs().max().item()


def test_the_neurons_left_out_are_chosen_at_random(settle):
    def off(seed):
        g = generator(seed)
        hidden, top = models.mlp([4, 10], generator=g), models.mlp([10, 3], generator=g)
        x = randn(1, 4, g=g).float()
        kept = draw_mask(torch.empty(1, 10), 0.5, g)
        rest = kept[0].bool()
        smaller = hidden(x)[:, rest] @ top[0].weight[:, rest].T + top[0].bias
        assert farthest(top(hidden(x) * kept) - smaller) < 1e-5  # the others might not be there

        for p in (0.2, 0.5):
            dropped = 1 - draw_mask(torch.empty(40_000, 10), p, g)
            together = dropped.T @ dropped / len(dropped)  # (10, 10): share of masks
            expected = torch.where(torch.eye(10) == 1, p, p**2)
            yield farthest(together - expected)

    settle("DO-01", [max(off(s)) for s in SEEDS])


def test_each_sample_has_a_set_of_its_own(settle):
    def more_sets(batches, seed):
        layer = Dropout(0.5, generator=generator(seed))
        used = torch.cat([layer(torch.ones(n, 100)) for n in batches]) != 0
        return len(used.unique(dim=0)) - len(batches)

    settle(
        "DO-02",
        where=[more_sets([1, 1], s) for s in SEEDS],
        where_not=[more_sets([32], s) for s in SEEDS],
    )


def test_dropout_removes_what_it_stands_behind(settle):
    def removed(on_input, seed):
        """Shares of zeros among the hidden units, and among the inputs."""
        g = generator(seed)
        linear, activation, last = models.mlp([64, 100, 10], nn.Tanh, generator=g)
        drop = Dropout(0.2 if on_input else 0.5, generator=g)
        places = [drop, linear, activation] if on_input else [linear, activation, drop]
        zeros = {}

        def look(module, args):
            zeros[module] = (args[0] == 0).double().mean().item()

        linear.register_forward_pre_hook(look)
        last.register_forward_pre_hook(look)
        nn.Sequential(*places, last)(randn(64, 64, g=g).float())
        assert abs(zeros[linear] - 0.2 * on_input) < 0.05
        return zeros[last]

    settle(
        "DO-03",
        where=[removed(False, s) for s in SEEDS],
        where_not=[removed(True, s) for s in SEEDS],
    )


def test_the_argument_is_the_share_dropped(settle):
    def used_beyond_argument(p, seed):
        torch.manual_seed(seed)
        shares = (nn.Dropout(p)(torch.ones(1000, 100)) != 0).double().mean(1)
        spread = (p * (1 - p) / 100) ** 0.5  # of a binomial share
        assert 0.8 * spread < shares.std().item() < 1.2 * spread
        return shares.mean().item() - p

    settle(
        "DO-05",
        where=[used_beyond_argument(0.5, s) for s in SEEDS],
        where_not=[used_beyond_argument(0.2, s) for s in SEEDS],
    )


def test_the_connections_of_a_unit_are_cut_together(settle):
    p = 0.3

    def cut_by_dropout(g):
        weight, x = randn(4, 5, g=g), randn(10_000, 5, g=g)
        return dropout(x, p, generator=g)[:, None] * weight == 0  # (10000, 4, 5): w_ij x_j

    def cut_by_drop_connect(g):
        layer = DropConnect(5, 4, bias=False, p=p, generator=g)
        x = torch.eye(5).expand(10_000, 5, 5)  # one input at a time, with a mask for each
        return layer(x).mT == 0

    def share(cut):
        return cut.double().mean().item() - p

    def pairs(cut):
        return (cut[:, 0] & cut[:, 1]).double().mean().item() - p**2

    both = [[cut(generator(s)) for s in SEEDS] for cut in (cut_by_dropout, cut_by_drop_connect)]
    assert max(abs(measure(cut)) for cut in both[1] for measure in (share, pairs)) < 0.02
    settle("DO-06", where=[share(c) for c in both[0]], where_not=[pairs(c) for c in both[0]])


def test_dropout_before_batch_normalization_shifts_its_variance(settle):
    def order_matters(seed):
        z = randn(64, 50, g=generator(seed))
        both = [
            f(z, generator(seed))
            for f in (
                lambda z, g: dropout(z, 0.5, generator=g).relu(),
                lambda z, g: dropout(z.relu(), 0.5, generator=g),
            )
        ]
        return farthest(both[0] - both[1])

    def shift(before, seed):
        """Variance that batch normalization gives in evaluation, minus 1 as in training."""
        g = generator(seed)
        linear = models.mlp([20, 50], generator=g).double()
        norm = nn.BatchNorm1d(50, momentum=None).double()
        parts = [linear, Dropout(0.5, generator=g), norm]
        net = nn.Sequential(*(parts if before else [linear, norm, parts[1]]))
        with torch.no_grad():
            for _ in range(20):
                net(randn(256, 20, g=g))
            net.eval()
            return net(randn(5000, 20, g=g)).var(0).mean().item() - 1

    assert max(abs(shift(False, s)) for s in SEEDS) < 0.05
    settle(
        "DO-07",
        where=[order_matters(s) for s in SEEDS],
        where_not=[shift(True, s) for s in SEEDS],
    )


def test_evaluation_draws_no_mask_and_monte_carlo_does(settle):
    def network(seed):
        g = generator(seed)
        return models.mlp([20, 50, 5], dropout=0.5, generator=g), randn(30, 20, g=g).float()

    def apart_in_evaluation(seed):
        model, x = network(seed)
        model.eval()
        return farthest(model(x) - model(x)) / farthest(model(x))

    def apart_in_monte_carlo(seed):
        model, x = network(seed)
        mean, std = monte_carlo(model, x, passes=50, generator=generator(seed))
        return (std.square().mean() / mean.square().mean()).sqrt().item()

    settle(
        "DO-08",
        where=[apart_in_evaluation(s) for s in SEEDS],
        where_not=[apart_in_monte_carlo(s) for s in SEEDS],
    )


def test_classic_dropout_scales_to_the_mean_of_its_masks(settle):
    def off(seed):
        g = generator(seed)
        outputs, weights = torch.rand(1000, generator=g), torch.rand(1000, generator=g)
        for p in (0.1, 0.2, 0.5, 0.8):
            masked = classic_dropout(outputs.expand(500, 1000), p, True, g) @ weights
            scaled = classic_dropout(outputs, p, False) @ weights
            assert abs(scaled / ((1 - p) * outputs @ weights) - 1) < 1e-5
            yield (masked.mean() / scaled - 1).item()

    settle("DO-10", [max(off(s), key=abs) for s in SEEDS])


LISTING = """\
class Dropout:
def _ _init _ _(self, dropout _ratio = 0.5):
self.dropout _ratio = dropout _ratio
self.mask = Non
def forward(self, x, train _flg = True):
if train _flg:
self.mask = np.random.rand(*x.shape) >
self.dropout _ratio
return x * self.mask
else:
return x * (1.0 - self.dropout _ratio)
def backward(self, dout):
return dout * self.mask
"""


def test_the_printed_class_does_not_parse(settle):
    def parsed(listing):
        try:
            return len(ast.parse(listing).body)
        except SyntaxError:
            return 0

    def indented(listing):
        lines = listing.replace(">\n", "> ").splitlines()
        return "\n".join(k * "    " + line for k, line in zip(levels, lines, strict=True))

    levels = (0, 1, 2, 2, 1, 2, 3, 3, 2, 3, 1, 2)
    spelled = LISTING.replace("_ _init _ _", "__init__")
    spelled = spelled.replace(" _ratio", "_ratio").replace(" _flg", "_flg")
    assert [parsed(x) for x in (indented(LISTING), spelled, indented(spelled))] == [0, 0, 1]
    names = {"np": types.SimpleNamespace(random=np.random.RandomState(0))}
    exec(indented(spelled), names)
    with pytest.raises(NameError, match="Non"):
        names["Dropout"]()
    exec(indented(spelled).replace("Non", "None"), names)
    layer, x = names["Dropout"](0.2), np.arange(1.0, 1001.0)
    y = layer.forward(x)  # and what is left is classic dropout
    assert set((y / x).tolist()) == {0.0, 1.0}
    assert np.array_equal(layer.backward(x), y)
    assert np.array_equal(layer.forward(x, False), 0.8 * x)
    settle("DO-13", Exact(parsed(LISTING)))


def test_the_gradient_is_that_of_relu_up_to_the_scale(settle):
    def off(layer, seed):
        torch.manual_seed(seed)
        x = torch.ones(1000, requires_grad=True)
        y = layer(x)
        (grad,) = torch.autograd.grad(y.sum(), x)
        return farthest(grad - (y != 0).float())

    settle(
        "DO-14",
        where=[off(ClassicDropout(0.2), s) for s in SEEDS],
        where_not=[off(nn.Dropout(0.2), s) for s in SEEDS],
    )


def test_scaled_weights_are_the_geometric_mean_of_one_softmax_layer_only(settle):
    masks = torch.tensor(list(itertools.product([0.0, 1.0], repeat=10)), dtype=torch.float64)

    def off(deep, g):
        h, V, W = randn(10, g=g).relu(), randn(6, 10, g=g), randn(3, 6 if deep else 10, g=g)

        def log_probabilities(h):
            return ((h @ V.T).relu() if deep else h) @ W.T

        each = log_probabilities(masks * h).log_softmax(1)  # (1024, 3)
        scaled = log_probabilities(0.5 * h).softmax(0)
        return [farthest(m - scaled) for m in (each.mean(0).softmax(0), each.exp().mean(0))]

    def from_geometric_mean(deep, seed):
        g = generator(seed)
        geometric, arithmetic = np.mean([off(deep, g) for _ in range(10)], axis=0)
        assert arithmetic > 0.01
        return geometric

    settle(
        "DO-19",
        where=[from_geometric_mean(False, s) for s in SEEDS],
        where_not=[from_geometric_mean(True, s) for s in SEEDS],
    )
