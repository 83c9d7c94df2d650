"""Claims on batch normalization that need no page: formulas, definitions, facts about torch."""

import math

import pytest
import torch
from torch import nn

from lib import models
from lib.claims import Exact
from lib.device import generator, seeds

SEEDS = seeds(20)
N, D = 32, 5  # samples in a batch, features


def batch(g, mean=0.0, std=1.0, n=N):
    return mean + std * torch.randn(n, D, generator=g, dtype=torch.float64)


def layer(num_features=D, **kwargs):
    return nn.BatchNorm1d(num_features, **kwargs).double()


def by_hand(X, eps=1e-5, detached=False):
    """Each feature normalized with the mean and variance of the batch."""
    mean, var = X.mean(0), X.var(0, unbiased=False)
    if detached:
        mean, var = mean.detach(), var.detach()
    return (X - mean) / (var + eps).sqrt()


def farthest(a, b=0.0):
    return (a - b).abs().max().item()


def test_the_statistics_are_those_of_the_batch_while_training(settle):
    def off(training, seed):
        norm, g = layer(), generator(seed)
        for _ in range(10):
            norm(batch(g, std=2))  # what it saw before is spread otherwise
        X = batch(g)
        y = norm.train(training)(X)
        alone = norm.eval()(X[:1])
        assert farthest(alone, norm(X)[:1]) < 1e-12  # here the batch does not matter
        return farthest(y, by_hand(X))

    settle(
        "BN-01",
        where=[off(True, s) for s in SEEDS],
        where_not=[off(False, s) for s in SEEDS],
    )


def test_scale_and_shift_start_at_one_and_zero_and_are_learned(settle):
    def off(seed):
        g = generator(seed)
        X, target = batch(g, mean=3, std=2), batch(g, mean=-1, std=4)
        gamma, beta = (torch.full((D,), x, dtype=torch.float64) for x in (1, 0))
        norm, ours = layer(), [gamma.requires_grad_(), beta.requires_grad_()]
        optimizer = torch.optim.SGD([*norm.parameters(), *ours], lr=0.1)
        for _ in range(10):
            optimizer.zero_grad()
            for y in (norm(X), gamma * by_hand(X) + beta):
                (y - target).square().mean().backward()
            optimizer.step()
        assert farthest(norm.weight, 1) > 0.05
        assert farthest(norm.bias) > 0.05
        return farthest(norm(X), gamma * by_hand(X) + beta)

    settle("BN-02", [off(s) for s in SEEDS])


def test_the_activation_takes_the_normalized_value_where_it_comes_after(settle):
    def off(build, seed):
        g, taken, given = generator(seed), {}, {}
        net = build(g).double()

        def look(module, args, output):
            taken[module], given[module] = args[0], output

        for module in net:
            module.register_forward_hook(look)
        net(batch(g))
        norm, activation, last = (
            next(m for m in reversed(net) if isinstance(m, kind))
            for kind in (nn.BatchNorm1d, nn.ReLU, nn.Linear)
        )
        return max(
            farthest(taken[activation], given[norm]), farthest(taken[last], given[activation])
        )

    def before(g):
        return models.mlp([D, 8, 3], norm=nn.BatchNorm1d, generator=g)

    def after(g):
        first, norm, activation, last = before(g)
        return nn.Sequential(first, activation, norm, last)

    settle(
        "BN-03",
        where=[off(before, s) for s in SEEDS],
        where_not=[off(after, s) for s in SEEDS],
    )


def test_the_output_has_variance_one_where_epsilon_is_small(settle):
    def farthest_moment(std, seed):
        X = batch(generator(seed), mean=3 * std, std=std, n=1000)
        y, var = layer()(X), X.var(0, unbiased=False)
        variances = y.var(0, unbiased=False)
        assert farthest(variances, var / (var + 1e-5)) < 1e-9
        return max([*y.mean(0).tolist(), *(variances - 1).tolist()], key=abs)

    settle(
        "BN-07",
        where=[max((farthest_moment(c, s) for c in (0.1, 1, 100)), key=abs) for s in SEEDS],
        where_not=[farthest_moment(0.001, s) for s in SEEDS],
    )


def test_epsilon_is_a_choice_for_small_features_only(settle):
    def variances_apart(std, seed):
        X = batch(generator(seed), std=std, n=1000)
        variances = [
            layer(eps=eps)(X).var(0, unbiased=False).mean() for eps in (10e-7, 1e-5, 1e-3)
        ]
        return (max(variances) - min(variances)).item()

    assert layer().eps == 1e-5
    settle(
        "BN-09",
        where=[variances_apart(10, s) for s in SEEDS],
        where_not=[variances_apart(0.01, s) for s in SEEDS],
    )


def test_epsilon_prevents_division_by_zero(settle):
    constant = torch.full((N, D), 3.0, dtype=torch.float64)

    def finite(eps):
        norm = layer(momentum=1.0)
        norm(constant)  # its running variance is 0 now
        norm.eps = eps
        return norm.eval()(constant).isfinite().double().mean().item()

    assert farthest(layer()(constant)) == 0
    with pytest.raises(ValueError, match="eps must be positive"):
        layer(eps=0.0)(constant)
    settle("BN-10", Exact(finite(1e-5) - finite(0.0)))


def test_the_backward_pass_goes_through_the_statistics(settle):
    def made_by_detaching(seed):
        g = generator(seed)
        X, c = batch(g, std=2).requires_grad_(), batch(g)
        outputs = [layer()(X), by_hand(X, detached=True)]
        grads = [torch.autograd.grad((c * y).sum(), X)[0] for y in outputs]
        assert farthest(grads[0].sum(0)) < 1e-9 < farthest(grads[1].sum(0))
        return [((a - b).norm() / a.norm()).item() for a, b in (outputs, grads)]

    of_output, of_gradient = zip(*(made_by_detaching(s) for s in SEEDS))
    settle("BN-12", where=of_output, where_not=of_gradient)


def test_one_sample_has_no_statistics(settle):
    def refused(n):
        try:
            layer()(torch.ones(n, D, dtype=torch.float64))
        except ValueError:
            return 1
        return 0

    assert layer().eval()(torch.ones(1, D, dtype=torch.float64)).isfinite().all()
    assert nn.BatchNorm2d(D)(torch.ones(1, D, 2, 2)).isfinite().all()  # averages over space
    settle("BN-13", Exact(refused(1) - refused(2)))


def test_the_second_moving_average_is_that_of_the_variance(settle):
    X = torch.tensor([[40.0], [50.0], [60.0]], dtype=torch.float64)
    norm = layer(1)
    norm(X)
    mean, std = 0.9 * 0 + 0.1 * X.mean().item(), 0.9 * 1 + 0.1 * X.std().item()
    assert math.isclose(norm.running_var.item(), 0.9 + 0.1 * X.var(unbiased=True).item())
    settle(
        "BN-15",
        where=Exact(norm.running_mean.item() - mean),
        where_not=Exact(norm.running_var.sqrt().item() - std),
    )


def test_two_vectors_are_learned(settle):
    norm, g = layer(), generator(SEEDS[0])
    before = {name: x.clone() for name, x in norm.state_dict().items()}
    (norm(batch(g, mean=1)) * batch(g)).sum().backward()
    estimated = {name for name, x in norm.state_dict().items() if farthest(x, before[name])}
    assert estimated == {"running_mean", "running_var", "num_batches_tracked"}
    torch.optim.SGD(norm.parameters(), lr=0.1).step()
    moved = {name for name, x in norm.state_dict().items() if farthest(x, before[name])}
    settle("BN-16", Exact(len(moved - estimated) - 4))


def test_bias_and_scale_before_it_do_not_matter(settle):
    def change(seed):
        g = generator(seed)
        linear, norm = models.mlp([D, 8], generator=g).double(), layer(8)
        X = batch(g)
        z = linear(X)
        with torch.no_grad():
            linear[0].weight *= 7
            linear[0].bias += 5
        after = linear(X)
        assert farthest(after, z) > 1
        return farthest(norm(after), norm(z))

    settle("BN-24", [change(s) for s in SEEDS])
