"""Claims on weight decay that need no page: arithmetic, definitions, small linear problems."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import Lasso, QuantileRegressor, Ridge
from torch import nn

from lib.claims import Exact
from lib.device import generator, seeds
from lib.models import mlp
from lib.train import train
from lib.weight_decay import ProximalSGD, decay_groups

SEEDS = seeds(20)
W_1 = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
W_2 = torch.full((4,), 0.25, dtype=torch.float64)


def randn(*shape, g):
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def farthest(a, b=0.0):
    return (a - b).abs().max().item()


def ridge(X, y, weight_decay):
    """The w (D,) that minimizes mean((X w - y)^2) / 2 + weight_decay / 2 * sum(w^2)."""
    n, D = X.shape
    return torch.linalg.solve(X.T @ X / n + weight_decay * torch.eye(D), X.T @ y / n)


def sparse_problem(seed, n, D, noise=0.5):
    """Samples X (n, D) of which a few features carry the target y (n,)."""
    g = generator(seed)
    X, w = randn(n, D, g=g), torch.zeros(D, dtype=torch.float64)
    w[:3] = torch.tensor([3.0, -2.0, 1.0])
    return X, X @ w + noise * randn(n, g=g)


# --- two vectors ---


def test_two_vectors_agree_on_one_input(settle):
    def on_other_sides(seed):
        X = randn(1000, 4, g=generator(seed))
        return ((X @ W_1 > 0) != (X @ W_2 > 0)).double().mean().item()

    ones = torch.ones(4, dtype=torch.float64)
    settle(
        "WD-03",
        where=Exact((ones @ W_1 - ones @ W_2).item()),
        where_not=[on_other_sides(s) for s in SEEDS],
    )


def test_l1_does_not_tell_the_two_vectors_apart(settle):
    x = randn(50, g=generator(SEEDS[0]))
    X = torch.stack([x, 0.9 * x], dim=1)  # the second column is a little less useful
    lasso = Lasso(0.1, fit_intercept=False).fit(X, x).coef_
    assert lasso[0] > 0.5
    assert lasso[1] == 0
    assert ridge(X, x, 0.1).min() > 0.3
    settle("WD-04", Exact((W_2.abs().sum() - W_1.abs().sum()).item()))


def test_l1_counts_no_weights(settle):
    assert torch.linalg.vector_norm(W_1, 0) == torch.linalg.vector_norm(W_1, 1)
    by_count, by_size = (torch.linalg.vector_norm(W_2, p).item() for p in (0, 1))
    settle("WD-05", Exact(by_count - by_size))


def test_l2_prefers_the_vector_that_is_spread_out(settle):
    settle("WD-06", Exact((W_1.square().sum() - W_2.square().sum()).item()))


# --- definitions ---


def test_the_penalty_is_half_of_lambda_times_the_squared_norm(settle):
    def ratio(power, seed):
        w = randn(10, g=generator(seed))
        penalty = 0.5 * 0.1 * sum(x**2 for x in w.tolist())
        return penalty / (0.5 * 0.1 * torch.linalg.norm(w).item() ** power) - 1

    settle(
        "WD-16",
        where=[ratio(2, s) for s in SEEDS],
        where_not=[ratio(1, s) for s in SEEDS],
    )


def test_the_derivative_of_the_penalty_is_linear(settle):
    w = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    (derivative,) = torch.autograd.grad(0.1 * w**2 / 2, w)
    assert math.isclose(derivative.item(), 0.1 * 3)
    settle("WD-17", Exact(derivative.item() - 0.1 * 3**2))


def test_the_norm_is_a_root(settle):
    w = torch.tensor([3.0, 4.0])
    norm, total = torch.linalg.norm(w).item(), w.square().sum().item()
    assert norm == math.sqrt(total)
    settle("WD-18", Exact(norm - total))


# --- linear problems ---


def test_ridge_shares_between_equal_features_only(settle):
    def falls_short(features, seed):
        """By which share the smallest weight is below the largest."""
        g = generator(seed)
        x = randn(50, 1, g=g)
        noise, y = randn(50, 8, g=g), x[:, 0] + 0.5 * randn(50, g=g)
        w = ridge(torch.cat([x, x, noise], 1), y, 0.1)[:2]
        if features == "noise":
            w = ridge(torch.cat([x, noise], 1), y, 0.1)
        assert w[0] > 0.3
        return (1 - w.abs().min() / w.abs().max()).item()

    settle(
        "WD-07",
        where=[falls_short("copies", s) for s in SEEDS],
        where_not=[falls_short("noise", s) for s in SEEDS],
    )


def test_lasso_and_ridge_penalize_weights_and_l1_regression_does_not(settle):
    def distances(seed):
        X, y = sparse_problem(seed, 40, 5)
        lasso = Lasso(0.1, fit_intercept=False, tol=1e-12).fit(X, y).coef_
        shrunk = Ridge(0.1 * len(X), fit_intercept=False).fit(X, y).coef_
        absolute = QuantileRegressor(alpha=0, fit_intercept=False).fit(X, y).coef_
        lasso, shrunk, absolute = map(torch.from_numpy, (lasso, shrunk, absolute))

        w = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        rule = ProximalSGD([w], lr=0.3, l1=0.1)
        for _ in range(300):
            w.grad = X.T @ (X @ w.detach() - y) / len(X)
            rule.step()
        penalized = max(farthest(w.detach(), lasso), farthest(ridge(X, y, 0.1), shrunk))
        return penalized, min(farthest(absolute, lasso), farthest(absolute, shrunk))

    penalized, absolute = zip(*map(distances, SEEDS))
    settle("WD-08", where=penalized, where_not=absolute)


def test_a_larger_strength_makes_the_gradient_steeper(settle):
    def curvature_lost(seed):
        g = generator(seed)
        x = 2 * torch.rand(15, generator=g, dtype=torch.float64) - 1
        y = (3 * x).sin() + 0.2 * randn(15, g=g)
        grid = torch.linspace(-1, 1, 400, dtype=torch.float64)
        powers, on_grid = (t[:, None] ** torch.arange(10) for t in (x, grid))
        curvatures, slopes = [], []
        for strength in (1e-4, 10):
            hessian = powers.T @ powers / len(x) + strength * torch.eye(10)
            curvatures.append(torch.linalg.eigvalsh(hessian)[-1])
            fit = on_grid @ ridge(powers, y, strength)
            slopes.append((fit.diff() / grid.diff()).abs().max())
        assert slopes[0] > 3 * slopes[1]  # what gets gentler is the fitted function
        return (curvatures[0] / curvatures[1]).log10().item()

    settle("WD-12", [curvature_lost(s) for s in SEEDS])


def test_zeros_come_from_the_minimizer_and_not_from_sgd_or_adam(settle):
    problems = [sparse_problem(s, 80, 30) for s in SEEDS]
    X, y = (torch.stack(t) for t in zip(*problems))  # (seeds, 80, 30), (seeds, 80)

    def zeros(w):
        return (torch.as_tensor(w) == 0).sum(-1).double()  # (seeds,)

    def after_steps(optimizer, in_loss=0.0, num_steps=500, **hyper):
        w = torch.zeros(len(X), 30, dtype=torch.float64, requires_grad=True)
        rule = optimizer([w], **hyper)
        for _ in range(num_steps):
            rule.zero_grad()
            error = (X @ w[..., None]).squeeze(-1) - y  # (seeds, 80)
            (error.square().mean(1) / 2 + in_loss * w.abs().sum(1)).sum().backward()
            rule.step()
        return zeros(w.detach())

    exact = zeros(np.stack([Lasso(0.1, fit_intercept=False).fit(*p).coef_ for p in problems]))
    steps = after_steps(ProximalSGD, lr=0.2, l1=0.1)
    of_ridge = zeros(torch.stack([ridge(*p, 0.1) for p in problems]))
    sgd = after_steps(torch.optim.SGD, in_loss=0.1, lr=0.2)
    adam = after_steps(torch.optim.Adam, in_loss=0.1, lr=0.01)

    orthogonal = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)
    assert ridge(orthogonal, orthogonal[:, 0], 0.1)[1] == 0
    settle(
        "WD-13",
        where=torch.minimum(exact, steps) - of_ridge,
        where_not=torch.maximum(sgd, adam) - of_ridge,
    )


# --- steps ---


def test_the_penalty_in_the_loss_is_the_decay_of_sgd(settle):
    def farthest_weight(seed):
        g = generator(seed)
        X, y = randn(30, 4, g=g), randn(30, 1, g=g)

        def trained(in_loss=0.0, **hyper):
            model = mlp([4, 8, 1], nn.Tanh, generator=generator(seed)).double()
            weights = list(model.parameters())
            train(
                model,
                X,
                y,
                torch.optim.SGD(weights, lr=0.1, **hyper),
                epochs=10,
                batch_size=10,
                generator=generator(seed),
                loss_fn=lambda y_hat, y: (
                    F.mse_loss(y_hat, y) + in_loss / 2 * sum(w.square().sum() for w in weights)
                ),
            )
            return nn.utils.parameters_to_vector(weights).detach()

        free, held, decayed = trained(), trained(in_loss=0.1), trained(weight_decay=0.1)
        assert held.norm() < 0.95 * free.norm()
        return farthest(held, decayed)

    settle("WD-10", [farthest_weight(s) for s in SEEDS])


def test_keras_regularizes_the_kernel_and_the_activity(settle):
    def differences(seed):
        """Of either term from the decay, as a share of the decay, for the weights."""
        g = generator(seed)
        layer = nn.Linear(4, 3, bias=True).double()
        for p in layer.parameters():
            p.data = randn(*p.shape, g=g)
        W, b = layer.parameters()

        def gradients(term):
            return torch.autograd.grad(term, (W, b), allow_unused=True)

        kernel, of_bias = gradients(0.01 * W.square().sum())
        assert of_bias is None
        X = randn(16, 4, g=g)
        activity, zero = (gradients(0.01 * layer(x).abs().sum() / 16) for x in (X, 0 * X))
        assert farthest(zero[0]) == 0
        assert activity[0].abs().min() > 0  # with an input it depends on that input,
        assert zero[1].abs().min() > 0  # and it moves the biases

        before = W.detach().clone()
        W.grad = torch.zeros_like(W)
        torch.optim.SGD([W], lr=0.1, weight_decay=0.02).step()
        decay = (before - W.detach()) / 0.1
        return [((x - decay).norm() / decay.norm()).item() for x in (kernel, zero[0])]

    kernel, activity = zip(*map(differences, SEEDS))
    settle("WD-15", where=kernel, where_not=activity)


def test_the_price_is_put_on_weight_matrices(settle):
    model = mlp([4, 8, 3], norm=nn.BatchNorm1d, generator=generator(SEEDS[0]))
    groups = decay_groups(model, 0.5)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)

    def norms():
        return [nn.utils.parameters_to_vector(group["params"]).norm() for group in groups]

    before = norms()
    torch.optim.SGD(groups, lr=0.1).step()
    matrices, others = (1 - (b / a).item() for a, b in zip(before, norms()))
    assert [p.ndim for p in groups[0]["params"]] == [2, 2]
    settle("WD-22", where=Exact(matrices), where_not=Exact(others))
