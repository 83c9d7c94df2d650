"""Claims on how far a signal gets from its starting weights, forwards and backwards."""

import math

import torch
from torch import nn

from lib import data, models
from lib.data_normalization import Standardizer
from lib.device import generator, seeds
from lib.initialization import (
    initialize,
    kaiming_normal_,
    kaiming_uniform_,
    normal_,
    uniform_,
    xavier_normal_,
    zeros_,
)

SEEDS = seeds(20)


def batch(seed):
    """Standardized digits X (200, 64) and labels y (200,)."""
    s = data.digits(seed, num_train=200)
    return Standardizer().fit(s.X_train)(s.X_train).double(), s.y_train


def network(num_layers, activation, rule, seed, bias_rule=zeros_):
    net = models.mlp([64] * (num_layers + 1) + [10], activation).double()
    return initialize(net, rule, bias_rule, generator(seed))


def normal(std):
    return lambda w, generator=None: normal_(w, 0, std, generator)


def randn(*shape, g):
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def growth(after, before):
    """Powers of ten from one rms to another."""
    return (after.square().mean() / before.square().mean()).log10().item() / 2


def test_equal_units_get_equal_updates_from_zero_weights(settle):
    def unlike(activation, bias_rule, seed):
        net, (X, y) = network(1, activation, zeros_, seed, bias_rule), batch(seed)
        hidden = net[:2](X)  # (n, 64)
        nn.functional.cross_entropy(net(X), y).backward()
        update = -0.1 * net[2].weight.grad  # (10, 64)
        apart = [(x - x[:, :1]).abs().max().item() for x in (hidden, update)]
        largest = [x.abs().max().item() or 1.0 for x in (hidden, update)]
        return max(a / b for a, b in zip(apart, largest, strict=True))

    settle(
        "INIT-08",
        [max(unlike(f, zeros_, s) for f in (nn.Sigmoid, nn.Tanh, nn.ReLU)) for s in SEEDS],
    )
    assert min(unlike(nn.Sigmoid, normal(1), s) for s in SEEDS) > 0.1  # random biases end it


def test_outputs_range_as_the_scale_of_the_weights_says(settle):
    def wider(uniform, seed):
        X = batch(seed)[0]
        he, other = (
            network(3, nn.ReLU, rule, seed)(X).detach() for rule in (kaiming_normal_, uniform)
        )
        return math.log10((other.max() - other.min()) / (he.max() - he.min()))

    def fixed(w, generator=None):
        return uniform_(w, -1, 1, generator)

    settle(
        "INIT-10",
        where=[wider(fixed, s) for s in SEEDS],
        where_not=[wider(kaiming_uniform_, s) for s in SEEDS],
    )


def test_large_weights_make_units_learn_less_equally(settle):
    def inequality(rule, seed):
        net, (X, y) = network(2, nn.Sigmoid, rule, seed), batch(seed)
        nn.functional.cross_entropy(net(X), y).backward()
        norms = net[2].weight.grad.norm(dim=1)  # (64,), one per unit of the second layer
        return (norms.std() / norms.mean()).item()

    def over_xavier(rule):
        return [inequality(rule, s) - inequality(xavier_normal_, s) for s in seeds(40)]

    settle("INIT-11", where=over_xavier(normal(1)), where_not=over_xavier(uniform_))


def gradient_growth(activation, scale, seed, *, recurrent, n=64, steps=150):
    """Growth of the gradient's rms from the last to the first step, in powers of ten."""
    g = generator(seed)
    first = h = randn(20, n, g=g).requires_grad_()
    W = scale * randn(n, n, g=g)
    for _ in range(steps):
        h = activation(h @ W)
        W = W if recurrent else scale * randn(n, n, g=g)
    last = randn(20, n, g=g)
    (back,) = torch.autograd.grad(h, first, last)
    return growth(back, last)


def test_gradients_explode_without_recurrence_too(settle):
    linear, scaled = nn.Identity(), 1 / math.sqrt(64)

    def excess_over(activation, scale, seed):
        through_time = gradient_growth(linear, scaled, seed, recurrent=True)
        return through_time - gradient_growth(activation, scale, seed, recurrent=False)

    settle(
        "INIT-40",
        where=[excess_over(linear, scaled, s) for s in seeds(40)],
        where_not=[max(excess_over(f, 1, s) for f in (torch.tanh, torch.relu)) for s in SEEDS],
    )
    of_tanh = [gradient_growth(torch.tanh, scaled, s, recurrent=True) for s in SEEDS]
    assert sum(of_tanh) / len(of_tanh) < 0.5  # units that saturate do not explode at this scale


def test_many_inputs_saturate_the_sigmoid(settle):
    def at_the_ends(n_in, seed):
        g = generator(seed)
        y = torch.sigmoid(randn(200, n_in, g=g) @ randn(n_in, 100, g=g))
        return ((y < 0.05) | (y > 0.95)).double().mean().item()

    shares = {n: [at_the_ends(n, s) for s in SEEDS] for n in (1, 10, 100, 1000)}
    assert sorted(map(sum, shares.values())) == list(map(sum, shares.values()))
    settle("INIT-43", [100 * (share - 0.5) for share in shares[1000]])


def sums(n_in, std, seed, num_units=500):
    """Weighted sums of one positive input, one per unit."""
    g = generator(seed)
    x = torch.rand(n_in, generator=g, dtype=torch.float64)
    return std * randn(num_units, n_in, g=g) @ x


def test_many_inputs_do_not_make_the_sum_lopsided(settle):
    def lopsided(z):
        in_stds = (z - z.mean()) / z.std()
        return max((z.mean() / z.std()).abs().item(), in_stds.pow(3).mean().abs().item())

    assert lopsided(sums(10, 1, SEEDS[0]).exp()) > 1  # it can see what is lopsided
    settle("INIT-45", [lopsided(sums(1000, 1, s)) for s in SEEDS])


def test_less_variance_for_more_inputs_keeps_the_sum(settle):
    def change(scaled, seed):
        few, many = (sums(n, n**-0.5 if scaled else 1, seed) for n in (10, 1000))
        return abs((many.var() / few.var()).log10().item())

    settle("INIT-46", [change(False, s) - change(True, s) for s in SEEDS])


def test_bounded_units_cluster_and_rectifiers_do_not(settle):
    def in_the_fullest_bins(activation, scale, seed, n=100):
        g = generator(seed)
        h = randn(200, n, g=g)
        for _ in range(5):
            h = activation(scale * h @ randn(n, n, g=g))
        counts = torch.histc(h, 20)  # from the smallest value to the largest
        return 100 * (counts.topk(2).values.sum() / counts.sum()).item()

    def from_large_weights(activation, seed):
        large, scaled = (in_the_fullest_bins(activation, c, seed) for c in (1, 0.1))
        return large - scaled

    settle(
        "INIT-50",
        where=[
            min(from_large_weights(f, s) for f in (torch.sigmoid, torch.tanh)) for s in SEEDS
        ],
        where_not=[from_large_weights(torch.relu, s) for s in SEEDS],
    )
