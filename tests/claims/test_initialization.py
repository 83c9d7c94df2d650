"""Claims on initialization that need no page: formulas, definitions, facts about libraries."""

import math
from functools import partial

import numpy as np
import torch
from sklearn.neural_network import MLPClassifier
from torch import nn

from lib import models
from lib.claims import Exact
from lib.device import generator, seeds
from lib.initialization import (
    initialize,
    kaiming_normal_,
    kaiming_uniform_,
    lecun_normal_,
    lsuv_,
    orthogonal_,
    xavier_normal_,
    xavier_uniform_,
)

SEEDS = seeds(20)
SHAPES = [(256, 784), (100, 100), (784, 256)]  # (n_out, n_in)


def drawn(rule, n_out, n_in, g):
    return rule(torch.empty(n_out, n_in, dtype=torch.float64), generator=g)


def built(seed, n_in, n_out):
    """A linear layer as torch builds it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(n_in, n_out).requires_grad_(False)


def over(value, formula):
    """Natural logarithm of a measured value over what a formula says."""
    return math.log(float(value) / formula)


def slope_of_std(rule, shapes, seed):
    """Slope of log std against log n_in for weights of shapes (n_out, n_in)."""
    g = generator(seed)
    stds = [drawn(rule, *shape, g).std().item() for shape in shapes]
    return np.polyfit([math.log(n_in) for _, n_in in shapes], np.log(stds), 1)[0]


def size_after(num_layers, activation, rule, seed, n=256):
    """log2 of the mean square after layers of width n, of an input whose mean square is 1."""
    g = generator(seed)
    linear = partial(nn.utils.skip_init, nn.Linear, n, n, bias=False)  # built empty
    net = nn.Sequential(*[nn.Sequential(linear(), activation()) for _ in range(num_layers)])
    initialize(net, rule, generator=g)
    with torch.no_grad():
        return net(torch.randn(64, n, generator=g)).square().mean().log2().item()


def test_layers_start_with_the_documented_spread(settle):
    effects = [
        np.mean([over(built(s, n, m).weight.std(), 1 / math.sqrt(3 * n)) for m, n in SHAPES])
        for s in SEEDS
    ]
    settle("INIT-01", effects)


def test_error_goes_with_the_weight_and_not_with_the_influence(settle):
    def more_error_for_more_influence(w, a):
        w, a = torch.tensor(w), torch.tensor(a, requires_grad=True)
        (w * a).sum().backward()
        first, second = (w * a).abs().argsort(descending=True)  # by influence on the sum
        return Exact((a.grad[first].abs() - a.grad[second].abs()).item())

    settle(
        "INIT-09",
        where=more_error_for_more_influence(w=[2.0, 1.0], a=[1.0, 1.0]),
        where_not=more_error_for_more_influence(w=[1.0, 2.0], a=[1.0, 0.0]),
    )


def test_xavier_falls_with_the_number_of_nodes(settle):
    square = [(n, n) for n in (10, 32, 100, 316)]
    settle("INIT-19", [slope_of_std(xavier_normal_, square, s) for s in SEEDS])


def test_he_keeps_the_signal_of_every_rectifier(settle):
    def farthest(seed):
        per_layer = [
            size_after(20, activation, partial(kaiming_normal_, a=a), seed) / 20
            for activation, a in [
                (nn.ReLU, 0),
                (partial(nn.LeakyReLU, 0.5), 0.5),
                (nn.PReLU, 0.25),  # where torch starts its slope
            ]
        ]
        return max(per_layer, key=abs)

    settle("INIT-20", [farthest(s) for s in SEEDS])


def test_he_is_wider_than_xavier(settle):
    def least(seed):
        g = generator(seed)
        return min(
            over(
                drawn(kaiming_normal_, *shape, g).std(), drawn(xavier_normal_, *shape, g).std()
            )
            for shape in SHAPES
        )

    settle("INIT-21", [least(s) for s in SEEDS])


def test_xavier_counts_the_outputs_too(settle):
    def over_fan_in(n_out, n_in):
        return [
            over(drawn(xavier_normal_, n_out, n_in, generator(s)).std(), 1 / math.sqrt(n_in))
            for s in SEEDS
        ]

    settle("INIT-23", where=over_fan_in(256, 256), where_not=over_fan_in(256, 784))


def test_std_of_he(settle):
    he = partial(kaiming_normal_, nonlinearity="relu")
    stds = [drawn(he, 256, 784, generator(s)).std() for s in SEEDS]
    settle("INIT-24", [over(std, math.sqrt(2 / 784)) for std in stds])


def test_default_of_two_libraries(settle):
    n, xavier = 100, math.sqrt(2 / 200)
    X, y = np.zeros((2, n)), [0, 1]  # gives the first weights no gradient

    def of_sklearn(seed):
        mlp = MLPClassifier((n,), solver="sgd", learning_rate_init=1e-12, random_state=seed)
        return mlp.partial_fit(X, y, classes=y).coefs_[0]

    settle(
        "INIT-28",
        where=[over(of_sklearn(s).std(), xavier) for s in SEEDS],
        where_not=[over(built(s, n, n).weight.std(), xavier) for s in SEEDS],
    )


def test_tanh_is_a_line_through_zero_with_slope_one_and_sigmoid_is_not(settle):
    x = torch.linspace(-0.1, 0.1, 201, dtype=torch.float64)
    settle(
        "INIT-30",
        where=Exact((torch.tanh(x) - x).abs().max().item()),
        where_not=Exact((torch.sigmoid(x) - x).abs().max().item()),
    )


def test_sigmoid_and_tanh_are_not_linear(settle):
    one = torch.tensor(1.0, dtype=torch.float64)
    bends = [(f(2 * one) - 2 * f(one)).item() for f in (torch.sigmoid, torch.tanh)]
    settle("INIT-31", Exact(min(bends, key=abs)))


def test_xavier_narrows_with_the_inputs(settle):
    def narrowing(seed):
        g = generator(seed)
        few, many = (drawn(xavier_normal_, 100, n_in, g).std() for n_in in (10, 1000))
        return over(few, many)

    settle("INIT-32", [narrowing(s) for s in SEEDS])


def test_relu_halves_the_mean_square(settle):
    def missing(seed):
        g = generator(seed)
        z = torch.randn(1000, 256, generator=g) @ lecun_normal_(torch.empty(256, 256), g).T
        return math.log2(z.square().mean() / torch.relu(z).square().mean()) - 1

    settle("INIT-34", [missing(s) for s in SEEDS])


def test_the_sigmoid_is_flat_at_both_ends(settle):
    y = torch.tensor([0.01, 0.5, 0.99], dtype=torch.float64)
    z = torch.logit(y).requires_grad_()
    torch.sigmoid(z).sum().backward()
    low, centre, high = z.grad.tolist()
    settle("INIT-44", Exact(max(low, high) / centre))


def test_xavier_keeps_both_variances_only_in_square_layers(settle):
    def farthest(n_out, n_in, seed):
        g = generator(seed)
        W = xavier_normal_(torch.empty(n_out, n_in), generator=g)
        X, delta = (torch.randn(2000, n, generator=g) for n in (n_in, n_out))
        forward, backward = (X @ W.T).var() / X.var(), (delta @ W).var() / delta.var()
        return max((math.log2(forward), math.log2(backward)), key=abs)

    settle(
        "INIT-55",
        where=[farthest(256, 256, s) for s in SEEDS],
        where_not=[farthest(256, 784, s) for s in SEEDS],
    )


def test_variance_of_xavier_has_no_root(settle):
    variances = [drawn(xavier_normal_, 256, 784, generator(s)).var() for s in SEEDS]
    settle("INIT-56", [over(v, math.sqrt(2 / (784 + 256))) for v in variances])


def test_bound_of_xavier_uniform(settle):
    bound = math.sqrt(6) / math.sqrt(784 + 256)
    largest = [drawn(xavier_uniform_, 256, 784, generator(s)).abs().max() for s in SEEDS]
    settle("INIT-57", [over(x, bound) for x in largest])


def test_he_counts_inputs_or_outputs_as_it_is_told(settle):
    def for_more_outputs(mode, seed):
        g, rule = generator(seed), partial(kaiming_normal_, mode=mode)
        more, few = (drawn(rule, n_out, 100, g).std() for n_out in (400, 100))
        return over(more, few)

    settle(
        "INIT-58",
        where=[for_more_outputs("fan_in", s) for s in SEEDS],
        where_not=[for_more_outputs("fan_out", s) for s in SEEDS],
    )


def test_variance_of_he_has_no_root(settle):
    variances = [drawn(kaiming_normal_, 256, 784, generator(s)).var() for s in SEEDS]
    settle("INIT-59", [over(v, math.sqrt(2 / 784)) for v in variances])


def test_bound_of_he_uniform(settle):
    bound = math.sqrt(6) / math.sqrt(784)
    largest = [drawn(kaiming_uniform_, 256, 784, generator(s)).abs().max() for s in SEEDS]
    settle("INIT-60", [over(x, bound) for x in largest])


def test_xavier_uses_the_mean_and_not_the_sum(settle):
    variances = [drawn(xavier_normal_, 256, 784, generator(s)).var() for s in SEEDS]
    settle("INIT-63", [over(v, 1 / (784 + 256)) for v in variances])


def test_a_call_on_the_weight_leaves_the_bias(settle):
    def changed(name, seed):
        layer = built(seed, 784, 256)
        before = getattr(layer, name).clone()
        nn.init.xavier_uniform_(layer.weight, generator=generator(seed))
        return (getattr(layer, name) != before).double().mean().item()

    settle(
        "INIT-65",
        where=[changed("weight", s) for s in SEEDS],
        where_not=[changed("bias", s) for s in SEEDS],
    )


def test_cross_entropy_holds_the_softmax(settle):
    def difference(seed):
        g = generator(seed)
        logits = 5 * torch.randn(50, 10, generator=g, dtype=torch.float64)
        labels = torch.randint(10, (50,), generator=g)
        p = logits.exp() / logits.exp().sum(1, keepdim=True)
        by_hand = -p[range(50), labels].log().mean()
        return (nn.CrossEntropyLoss()(logits, labels) - by_hand).item()

    settle("INIT-70", [difference(s) for s in SEEDS])


def test_lecun_falls_with_the_number_of_inputs(settle):
    shapes = [(100, n_in) for n_in in (10, 32, 100, 316)]
    settle("INIT-74", [slope_of_std(lecun_normal_, shapes, s) for s in SEEDS])


def test_orthogonal_keeps_lengths_over_many_multiplications(settle):
    def drift(rule, times, seed, n=64):
        g = generator(seed)
        W, x = drawn(rule, n, n, g), torch.randn(n, generator=g, dtype=torch.float64)
        return abs(over((torch.linalg.matrix_power(W, times) @ x).norm(), x.norm().item()))

    def saved(times):
        return [drift(lecun_normal_, times, s) - drift(orthogonal_, times, s) for s in SEEDS]

    settle("INIT-76", where=saved(100), where_not=saved(1))


def test_batch_norm_sets_no_weights_of_other_layers(settle):
    def changed(seed):
        plain, normed = (
            models.mlp([20, 30, 30, 5], norm=norm, generator=generator(seed))
            for norm in (None, nn.BatchNorm1d)
        )
        pairs = zip(*([m for m in net if isinstance(m, nn.Linear)] for net in (plain, normed)))
        return np.mean([(a.weight != b.weight).double().mean().item() for a, b in pairs])

    assert any(
        isinstance(m, nn.BatchNorm1d) for m in models.mlp([2, 3, 1], norm=nn.BatchNorm1d)
    )
    settle("INIT-77", [changed(s) for s in SEEDS])


def test_lecun_and_orthogonal_look_at_no_data(settle):
    def batches_seen(start):
        net, seen = models.mlp([20, 30, 5], generator=generator(SEEDS[0])), []
        net.register_forward_pre_hook(lambda *_: seen.append(1))
        start(net)
        return len(seen)

    X = torch.randn(50, 20, generator=generator(SEEDS[0]))
    assert (
        batches_seen(lambda net: lsuv_(net, X, generator=generator(SEEDS[0]))) == 1
    )  # this one does
    needed = max(
        batches_seen(lambda net, rule=rule: initialize(net, rule))
        for rule in (lecun_normal_, orthogonal_)
    )
    settle("INIT-83", Exact(needed))
