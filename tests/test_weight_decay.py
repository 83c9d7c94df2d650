import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import ElasticNet, Lasso
from torch import nn

import lib.blocks
from lib import batch_norm, models, normalization
from lib.data import digits
from lib.device import generator
from lib.models import mlp
from lib.optimizers import SGD, Adam, AdamW
from lib.study import study
from lib.train import train
from lib.weight_decay import (
    SGDW,
    ProximalSGD,
    SubgradientSGD,
    activity_penalty,
    decay_groups,
    elastic_net_penalty,
    l1_penalty,
    l2_penalty,
    max_norm_,
    soft_threshold,
    weight_decay_of_keras,
)

NAN = math.nan


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def trained(optimizer, penalty=lambda weights: 0, steps=20, **hyper):
    """Weights of a small tanh network, in one vector; ``penalty`` is added to its loss."""
    X, y = randn(30, 4), randn(30, 1, seed=1)
    model = mlp([4, 6, 1], nn.Tanh, generator=generator(0)).double()
    weights = list(model.parameters())
    train(
        model,
        X,
        y,
        optimizer(weights, **hyper),
        epochs=steps,
        batch_size=len(X),
        loss_fn=lambda y_hat, y: F.mse_loss(y_hat, y) + penalty(weights),
    )
    return torch.cat([w.detach().flatten() for w in weights])


def linear_problem():
    """40 samples, 12 features that are correlated, of which 3 matter."""
    X = randn(40, 12) @ (torch.eye(12, dtype=torch.float64) + 0.3)
    w = torch.zeros(12, dtype=torch.float64)
    w[:3] = torch.tensor([3.0, -2.0, 1.0])
    return X, X @ w + 0.5 * randn(40, seed=1)


def descend(optimizer, steps=3000, **hyper):
    """Minimize sum((X w - y)^2) / (2 N) at the rate 1 / L of its curvature L."""
    X, y = linear_problem()
    w = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    curvature = torch.linalg.eigvalsh(X.T @ X / len(X))[-1].item()
    curvature += hyper.get("weight_decay", 0.0)
    rule = optimizer([w], lr=1 / curvature, **hyper)
    for _ in range(steps):
        w.grad = X.T @ (X @ w.detach() - y) / len(X)
        rule.step()
    return w.detach().numpy()


def assert_close(x, y, tolerance=1e-12):
    torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


def assert_apart(x, y, by=1e-3):
    assert (x - y).abs().max() > by


# --- penalty and decay ---


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("optimizer", [SGD, torch.optim.SGD])
def test_for_sgd_the_penalty_is_weight_decay(optimizer, momentum):
    hyper = {"lr": 0.1, "momentum": momentum}
    in_loss = trained(optimizer, lambda w: l2_penalty(w, 0.1), **hyper)
    assert_close(trained(optimizer, weight_decay=0.1, **hyper), in_loss)
    assert_apart(trained(optimizer, **hyper), in_loss)


def test_for_adam_the_penalty_is_weight_decay_and_not_that_of_adamw():
    in_loss = trained(Adam, lambda w: l2_penalty(w, 0.1), lr=0.1)
    assert_close(trained(Adam, weight_decay=0.1, lr=0.1), in_loss)
    assert_apart(trained(AdamW, weight_decay=0.1, lr=0.1), in_loss, by=0.05)


def test_decoupled_decay_of_sgd_differs_with_momentum_only():
    plain, heavy = {"lr": 0.1, "weight_decay": 0.1}, {"nesterov": True, "momentum": 0.9}
    assert_close(trained(SGDW, **plain), trained(SGD, **plain))
    assert_apart(trained(SGDW, **plain, **heavy), trained(SGD, **plain, **heavy))
    w = torch.full((), 4.0, dtype=torch.float64, requires_grad=True)
    w.grad = torch.zeros_like(w)
    rule = SGDW([w], **plain, momentum=0.9)
    for _ in range(10):
        rule.step()
    assert w.item() == pytest.approx(4 * (1 - 0.1 * 0.1) ** 10)


def test_weight_decay_of_keras():
    """Keras adds 0.01 * sum(w^2): the gradient is 0.02 * w, and so is torch's decay."""
    keras = trained(SGD, lambda weights: 0.01 * sum((w**2).sum() for w in weights), lr=0.1)
    decay = weight_decay_of_keras(0.01)
    assert decay == 0.02
    assert_close(trained(torch.optim.SGD, weight_decay=decay, lr=0.1), keras)


def test_penalties_by_hand_and_their_gradients():
    w, b = (torch.tensor(x, requires_grad=True) for x in ([[3.0, 0.0], [-4.0, 1.0]], [2.0]))
    for penalty, value, grads in [
        (lambda x: l2_penalty(x, 0.1), 0.05 * 30, (0.1 * w, 0.1 * b)),
        (lambda x: l1_penalty(x, 0.1), 0.1 * 10, (0.1 * w.sign(), 0.1 * b.sign())),
        (
            lambda x: elastic_net_penalty(x, 0.2, 0.1),
            0.2 * 10 + 0.05 * 30,
            (0.2 * w.sign() + 0.1 * w, 0.2 * b.sign() + 0.1 * b),
        ),
    ]:
        found = penalty(p for p in (w, b))
        assert found.shape == ()
        assert found.item() == pytest.approx(value)
        torch.testing.assert_close(torch.autograd.grad(found, (w, b)), grads)
    alone = torch.autograd.grad(l1_penalty(w, 0.1), w)[0]
    assert alone[0, 1] == 0  # the subgradient at 0 that autograd takes


def test_activity_penalty_is_a_mean_over_samples():
    h = torch.tensor([[1.0, -2.0], [0.0, 3.0], [4.0, 0.0]])
    assert activity_penalty(h, 0.5).item() == pytest.approx(0.5 * 10 / 3)
    assert_close(activity_penalty(h.repeat(4, 1), 0.5), activity_penalty(h, 0.5), 1e-6)
    layer = nn.Linear(2, 2)
    activity_penalty(layer(torch.zeros(5, 2)), 0.5).backward()
    assert torch.equal(layer.weight.grad, torch.zeros(2, 2))
    assert layer.bias.grad.abs().min() > 0


# --- proximal steps ---


def test_soft_threshold_is_the_minimizer():
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)  # steps of 0.001
    x = torch.cat([3 * randn(50), torch.tensor([-1.0, 0.0, 0.5, 1.0])])[:, None]
    for t in (0.0, 0.5, 1.0):
        cost = (grid - x).square() / 2 + t * grid.abs()  # (n, grid)
        best = grid[cost.argmin(1)].clamp(x.min() - 1, x.max() + 1)
        found = soft_threshold(x[:, 0], t)
        inside = x[:, 0].abs() < 4
        assert (found - best)[inside].abs().max() <= 0.00051
        assert torch.equal(found == 0, x[:, 0].abs() <= t)
        assert_close(found, F.softshrink(x[:, 0], t), 1e-15)


def test_soft_threshold_takes_a_threshold_per_row_and_keeps_nan():
    x = randn(3, 5)
    t = torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64)
    rows = [soft_threshold(row, s.item()) for row, s in zip(x, t)]
    assert torch.equal(soft_threshold(x, t), torch.stack(rows))
    assert soft_threshold(torch.tensor([NAN]), 1.0).isnan().all()


def test_proximal_steps_reach_lasso_with_its_zeros():
    X, y = linear_problem()
    lasso = Lasso(0.5, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(X, y).coef_
    found = descend(ProximalSGD, l1=0.5)
    np.testing.assert_allclose(found, lasso, atol=1e-8)
    assert 3 <= (found == 0).sum() <= 9
    np.testing.assert_array_equal(found == 0, lasso == 0)
    subgradient = descend(SubgradientSGD, l1=0.5)
    assert (subgradient == 0).sum() == 0
    assert 1e-4 < abs(subgradient - lasso).max() < 0.5


@pytest.mark.parametrize("l1_ratio", [0.2, 0.7])
def test_proximal_steps_reach_the_elastic_net(l1_ratio):
    X, y = linear_problem()
    net = ElasticNet(0.6, l1_ratio=l1_ratio, fit_intercept=False, tol=1e-12, max_iter=100_000)
    found = descend(ProximalSGD, l1=0.6 * l1_ratio, weight_decay=0.6 * (1 - l1_ratio))
    np.testing.assert_allclose(found, net.fit(X, y).coef_, atol=1e-8)


@pytest.mark.parametrize("optimizer", [SGD, SGDW, ProximalSGD, SubgradientSGD])
def test_weight_decay_reaches_ridge_in_closed_form(optimizer):
    X, y = linear_problem()
    alpha = 20.0  # of sum((X w - y)^2) + alpha * sum(w^2)
    ridge = torch.linalg.solve(X.T @ X + alpha * torch.eye(12), X.T @ y)
    found = descend(optimizer, weight_decay=alpha / len(X))
    np.testing.assert_allclose(found, ridge, atol=1e-10)


def test_a_step_of_subgradient_sgd_is_that_of_a_penalty_in_the_loss():
    in_loss = trained(SGD, lambda w: elastic_net_penalty(w, 0.05, 0.1), lr=0.1)
    assert_close(trained(SubgradientSGD, l1=0.05, weight_decay=0.1, lr=0.1), in_loss)


RULES = [(SGDW, "momentum"), (ProximalSGD, "l1"), (SubgradientSGD, "l1")]


@pytest.mark.parametrize(("rule", "name"), RULES)
def test_a_tensor_of_strengths_trains_each_row_by_its_own(rule, name):
    numbers = {"lr": [0.1, 0.2, 0.3], "weight_decay": [0.1, 0.0, 0.5], name: [0.2, 0.5, 0.0]}
    defaults = rule([torch.zeros(1, requires_grad=True)]).defaults
    start, grads = randn(3, 5), randn(4, 3, 5, seed=1)

    def run(param, grads, numbers):
        state, before = {}, param.clone()
        for grad in grads:
            change, state = rule.update(grad, state, param, **{**defaults, **numbers})
            assert change.shape == param.shape
            assert torch.equal(param, before)
            param = param + change
            before = param.clone()
        return param

    tensors = {key: torch.tensor(x, dtype=torch.float64)[:, None] for key, x in numbers.items()}
    found = run(start, grads, tensors)
    for i in range(3):
        alone = run(start[i], grads[:, i], {key: x[i] for key, x in numbers.items()})
        assert_close(found[i], alone)


def test_a_study_trains_sparse_networks_in_one_batched_program_as_well(monkeypatch):
    found = []
    for batched in (True, False):
        monkeypatch.setattr(lib.blocks, "stacked", lambda device, batched=batched: batched)
        result = study(
            {"plain": {}, "sparse": {"l1": 0.02}, "sparser": {"l1": 0.05}},
            model=lambda g: mlp([64, 6, 10], generator=g),
            split=lambda seed: digits(seed, num_train=100),
            optimizer=ProximalSGD,
            lr=0.1,
            seeds=[0, 1],
            epochs=2,
            block=2,
            inspect={"zeros": lambda p: (p["0.weight"] == 0).double().mean()},
        )
        found.append(
            np.stack([result[name, "zeros"][:, -1] for name in ("plain", "sparse", "sparser")])
        )
    np.testing.assert_allclose(*found, atol=0.02)
    plain, sparse, sparser = found[1]
    assert (plain == 0).all()
    assert (sparse > 0.03).all()
    assert (sparser > sparse + 0.05).all()


# --- groups ---


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.conv = nn.Conv2d(1, 4, 3)
        self.norms = nn.ModuleList(
            [
                nn.BatchNorm2d(4),
                nn.LayerNorm((3, 4)),  # its weight is a matrix
                batch_norm.BatchNorm1d(4),
                normalization.LayerNorm((3, 4)),
                normalization.RMSNorm((3, 4)),
                normalization.GroupNorm(2, 4),
            ]
        )
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.slope = nn.PReLU()
        self.scale = nn.Parameter(torch.ones(()))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.out = nn.Linear(4, 7)
        self.out.weight = self.embedding.weight


DECAYED = {"embedding.weight", "conv.weight", "attention.in_proj_weight", "frozen.weight"}
DECAYED |= {"attention.out_proj.weight"}


@pytest.mark.parametrize("rule", [SGD, torch.optim.SGD])
def test_groups_decay_matrices_and_spare_biases_and_normalization(rule):
    model = Net()
    names = {p: name for name, p in model.named_parameters()}
    decayed, spared = decay_groups(model, 0.5)
    assert [names[p] for p in decayed["params"]] == [n for n in names.values() if n in DECAYED]
    assert len(spared["params"]) == len(names) - len(DECAYED)

    for p in names:
        nn.init.ones_(p)
        p.grad = torch.zeros_like(p)
    rule([decayed, spared], lr=0.1, weight_decay=0.9).step()  # the groups' own numbers count
    for p, name in names.items():
        expected = 1 - 0.1 * 0.5 if name in DECAYED else 1.0
        assert_close(p.detach(), torch.full_like(p, expected), 1e-6)


def test_more_can_be_spared():
    model = Net()
    decayed, _ = decay_groups(model, 0.5, spare=(nn.Embedding, nn.Conv2d))
    ids = {id(p) for p in decayed["params"]}
    assert len(ids) == 3
    assert id(model.out.weight) not in ids  # tied to the embedding
    containers = decay_groups(models.convnet(8), 0.5, spare=(nn.Sequential,))
    assert len(containers[0]["params"]) == 3  # only a module's own parameters are spared


def test_a_normalization_is_known_by_its_class_or_a_base():
    class NormalizedLinear(nn.Linear):
        pass

    class MyOwn(nn.LayerNorm):
        pass

    class LayerNorm2d(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(5, 1, 1))

    model = nn.Sequential(NormalizedLinear(2, 3), MyOwn((2, 3)), LayerNorm2d())
    decayed, spared = decay_groups(model, 0.1)
    assert [p.shape for p in decayed["params"]] == [(3, 2)]
    assert len(spared["params"]) == 4


# --- max-norm ---


@pytest.mark.parametrize(
    ("shape", "dim", "c"), [((5, 4), 0, 1.9), ((5, 4), 1, 1.9), ((5, 2, 3, 3), -4, 4.2)]
)
def test_max_norm_is_torchs_and_a_projection(shape, dim, c):
    before = randn(*shape).requires_grad_()
    weight = before.detach().clone().requires_grad_()
    assert max_norm_(weight, c, dim) is weight
    assert weight.grad_fn is None
    assert_close(weight.detach(), torch.renorm(before.detach(), 2, dim, c), 1e-6)
    rows, old = (x.detach().movedim(dim, 0).flatten(1) for x in (weight, before))
    small = old.norm(dim=1) <= c
    assert small.any()
    assert not small.all()
    assert torch.equal(rows[small], old[small])
    assert_close(rows[~small].norm(dim=1), torch.full_like(rows[~small, 0], c))
    once = weight.detach().clone()
    assert_close(max_norm_(weight, c, dim).detach(), once)  # again changes nothing
    for seed in range(1, 20):  # of the ball, no point is closer
        other = max_norm_(randn(*shape, seed=seed), c, dim).movedim(dim, 0).flatten(1)
        assert ((old - rows) * (other - rows)).sum(1).max() < 1e-12


def test_max_norm_0_and_rows_of_0():
    weight = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    assert torch.equal(max_norm_(weight.clone(), 0.0), torch.zeros(2, 2))
    assert_close(max_norm_(weight, 2.0), torch.tensor([[0.0, 0.0], [1.2, 1.6]]), 1e-6)


def test_max_norm_after_each_step_of_a_torch_optimizer():
    model = nn.Linear(4, 1).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    optimizer.register_step_post_hook(lambda *_: max_norm_(model.weight, 0.1))
    train(model, randn(8, 4), 9 + randn(8, 1, seed=1), optimizer, epochs=2, loss_fn=F.mse_loss)
    assert model.weight.norm().item() == pytest.approx(0.1)


# --- bad input ---

W = torch.ones(2, 2)


def one():
    return [torch.zeros(1, requires_grad=True)]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: l2_penalty(W, -0.1), ValueError, "weight_decay .* but got -0.1"),
        (lambda: l2_penalty(W, "0.1"), TypeError, "weight_decay has to be a number"),
        (lambda: l1_penalty(W, NAN), ValueError, "l1 .* but got nan"),
        (lambda: l1_penalty(W, True), TypeError, "l1 has to be a number"),
        (lambda: l1_penalty([], 0.1), ValueError, "at least one tensor"),
        (lambda: l1_penalty(3.0, 0.1), TypeError, "but got 3.0"),
        (lambda: l1_penalty(["w"], 0.1), TypeError, r"weights\[0\] .* but got 'w'"),
        (lambda: l2_penalty([W, W.long()], 0.1), TypeError, r"weights\[1\] .*int64"),
        (lambda: elastic_net_penalty(W, 0.1, math.inf), ValueError, "weight_decay .* inf"),
        (lambda: activity_penalty(W, -1), ValueError, "l1 .* but got -1"),
        (lambda: activity_penalty([W], 1), TypeError, "outputs"),
        (lambda: activity_penalty(W[:0], 1), ValueError, r"outputs .* \(0, 2\)"),
        (lambda: weight_decay_of_keras(-0.1), ValueError, "l2 .* but got -0.1"),
        (lambda: soft_threshold(W, -0.5), ValueError, "threshold .* but got -0.5"),
        (lambda: soft_threshold(1.0, 0.5), TypeError, "x has to be a float tensor"),
        (lambda: ProximalSGD(one(), l1=-0.1), ValueError, "l1 .* but got -0.1"),
        (lambda: ProximalSGD(one(), lr=NAN), ValueError, "lr .* but got nan"),
        (lambda: ProximalSGD(one(), l1="1"), TypeError, "l1 has to be a number"),
        (lambda: SubgradientSGD(one(), weight_decay=-1), ValueError, "weight_decay"),
        (lambda: SGDW(one(), weight_decay=NAN), ValueError, "weight_decay .* but got nan"),
        (lambda: decay_groups(nn.Linear(2, 2), -0.1), ValueError, "weight_decay .* -0.1"),
        (lambda: decay_groups([W], 0.1), TypeError, "model has to be a module"),
        (lambda: decay_groups(nn.ReLU(), 0.1), ValueError, r"parameters, but got ReLU\(\)"),
        (lambda: max_norm_(W, -1.0), ValueError, "max_norm .* but got -1.0"),
        (lambda: max_norm_(W, NAN), ValueError, "max_norm .* but got nan"),
        (lambda: max_norm_(W[0], 1.0), ValueError, "two dimensions or more, got 1"),
        (lambda: max_norm_(W.long(), 1.0), TypeError, "weight .*int64"),
        (lambda: max_norm_(W, 1.0, dim=2), IndexError, r"\(2, 2\), but got 2"),
    ],
)
def test_bad_input_is_refused_by_name(make, error, words):
    with pytest.raises(error, match=words):
        make()
