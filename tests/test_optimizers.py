import copy
import io
import math

import pytest
import torch

from lib.optimizers import SGD, Adam, Optimizer

RULES = [
    (SGD, torch.optim.SGD, {"lr": 0.05}),
    (SGD, torch.optim.SGD, {"lr": 0.05, "weight_decay": 0.1}),
    (SGD, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    (SGD, torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}),
    (
        SGD,
        torch.optim.SGD,
        {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.02},
    ),
    (Adam, torch.optim.Adam, {}),
    (Adam, torch.optim.Adam, {"lr": 0.02, "betas": (0.5, 0.9), "eps": 1e-3}),
    (Adam, torch.optim.Adam, {"lr": 0.05, "weight_decay": 0.1}),
]
rules = pytest.mark.parametrize(("ours", "theirs", "options"), RULES)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def parameters(dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = [(4, 3), (3,), (), (2, 2)]
    return [torch.randn(s, generator=g, dtype=dtype).requires_grad_() for s in shapes]


def loss_of(params):
    """Curved, and without the last parameter, which never gets a gradient."""
    W, b, c, _ = params
    return ((W @ b).tanh() - c).square().sum() + 0.1 * W.square().sum() + b.cosh().sum()


def train(optimizer, params, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(params).backward()
        optimizer.step()


def groups(params):
    return [{"params": params[:2], "lr": 0.02, "weight_decay": 0.3}, {"params": params[2:]}]


def assert_same(mine, other):
    """Equal up to what 50 steps of rounding may make of it."""
    for p, q in zip(mine, other, strict=True):
        tolerance = {torch.float32: 1e-5, torch.float64: 1e-13}[p.dtype]
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


# --- against torch ---


@rules
@dtypes
@pytest.mark.parametrize("arrange", [list, groups])
def test_fifty_steps_equal_torch(ours, theirs, options, dtype, arrange):
    mine, other = parameters(dtype), parameters(dtype)
    train(ours(arrange(mine), **options), mine, 50)
    train(theirs(arrange(other), **options), other, 50)
    assert not torch.equal(mine[0], parameters(dtype)[0])
    assert_same(mine, other)
    assert torch.equal(mine[3], parameters(dtype)[3])


@rules
def test_state_saved_and_resumed_continues_as_if_nothing_happened(ours, theirs, options):
    through, torchs = parameters(torch.float64), parameters(torch.float64)
    train(ours(groups(through), **options), through, 50)
    train(theirs(groups(torchs), **options), torchs, 50)
    first = parameters(torch.float64)
    optimizer = ours(groups(first), **options)
    train(optimizer, first, 25)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second = [p.detach().clone().requires_grad_() for p in first]
    resumed = ours(groups(second), lr=0.77)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(resumed, second, 25)
    for p, q in zip(second, through, strict=True):
        assert torch.equal(p, q)
    assert_same(second, torchs)


def test_a_gradient_that_comes_late_starts_its_own_state():
    def run(make):
        params = parameters(torch.float64)
        optimizer = make(params)
        for step in range(20):
            optimizer.zero_grad()
            loss_of(params).backward()
            if step < 10:
                params[0].grad = None
            optimizer.step()
        return params

    assert_same(run(Adam), run(torch.optim.Adam))


@pytest.mark.parametrize(("ours", "theirs"), [(SGD, torch.optim.SGD), (Adam, torch.optim.Adam)])
def test_defaults_are_torchs(ours, theirs):
    mine, other = ours(parameters(torch.float32)), theirs(parameters(torch.float32))
    assert mine.defaults.items() <= other.defaults.items()
    assert "lr" in mine.defaults


# --- the rules ---


@rules
def test_update_changes_nothing_it_is_given(ours, theirs, options):
    grad, param = torch.ones(3), torch.arange(3.0)
    hyper = ours([torch.zeros(1, requires_grad=True)], **options).defaults
    _, state = ours.update(grad, {}, param, **hyper)
    before = copy.deepcopy((grad, state, param))
    ours.update(grad, state, param, **hyper)
    torch.testing.assert_close((grad, state, param), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("rule", "several", "common"),
    [
        (
            SGD,
            {"lr": [0.1, 0.2], "momentum": [0.9, 0.5], "weight_decay": [0.1, 0.3]},
            {"dampening": 0.0, "nesterov": False},
        ),
        (
            Adam,
            {"lr": [0.1, 0.2], "eps": [1e-8, 1e-2], "weight_decay": [0.1, 0.3]},
            {"betas": (0.9, 0.999)},
        ),
    ],
)
def test_a_tensor_of_numbers_trains_each_row_by_its_own(rule, several, common):
    g = torch.Generator().manual_seed(0)
    start, grads = torch.randn(2, 5, generator=g), torch.randn(4, 2, 5, generator=g)

    def run(param, grads, hyper):
        state = {}
        for grad in grads:
            change, state = rule.update(grad, state, param, **hyper, **common)
            param = param + change
        return param

    tensors = {name: torch.tensor(values)[:, None] for name, values in several.items()}
    together = run(start, grads, tensors)
    for row in range(2):
        numbers = {name: values[row] for name, values in several.items()}
        torch.testing.assert_close(together[row], run(start[row], grads[:, row], numbers))


def test_first_step_of_adam_is_the_rate_whatever_the_gradient():
    p = torch.zeros(3, requires_grad=True)
    p.grad = torch.tensor([1e-3, -1.0, 1e3])
    Adam([p], lr=0.1).step()
    torch.testing.assert_close(p.detach(), torch.tensor([-0.1, 0.1, -0.1]), rtol=1e-4, atol=0)


def test_momentum_takes_steps_of_lr_over_one_minus_momentum():
    p = torch.zeros((), dtype=torch.float64, requires_grad=True)
    p.grad = torch.ones_like(p)
    optimizer = SGD([p], lr=0.1, momentum=0.9)
    for _ in range(300):
        optimizer.step()
    before = p.item()
    optimizer.step()
    assert p.item() - before == pytest.approx(-0.1 / (1 - 0.9))


# --- the interface ---


def test_step_returns_what_the_closure_returns_and_lets_it_differentiate():
    (p, *_) = parameters(torch.float64)
    optimizer = SGD([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    before = p.detach().clone()
    assert optimizer.step(closure).item() == before.square().sum().item()
    torch.testing.assert_close(p.detach(), 0.8 * before)


def test_zero_grad_forgets_or_zeroes():
    p = torch.ones(2, requires_grad=True)
    optimizer = SGD([p])
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is None
    p.sum().backward()
    optimizer.zero_grad(set_to_none=False)
    assert torch.equal(p.grad, torch.zeros(2))
    optimizer.zero_grad()
    assert p.grad is None


def test_parameters_stay_leaves_without_history():
    params = parameters(torch.float32)
    optimizer = Adam(params)
    train(optimizer, params, 2)
    assert all(p.is_leaf and p.requires_grad for p in params)
    assert all(s["exp_avg"].grad_fn is None for s in optimizer.state.values())


def test_rate_of_a_group_can_be_changed_between_steps():
    p = torch.zeros(1, requires_grad=True)
    p.grad = torch.ones(1)
    optimizer = SGD([p], lr=0.1)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 1.0
    optimizer.step()
    assert p.item() == pytest.approx(-1.1)


def test_a_loaded_state_is_a_copy_in_the_parameters_type():
    first, second = parameters(torch.float64), parameters(torch.float32)
    optimizer = SGD(first, lr=0.1, momentum=0.9)
    train(optimizer, first, 1)
    saved = optimizer.state_dict()
    assert list(saved["state"]) == [0, 1, 2]  # what never had a gradient has no state
    other = SGD(second, momentum=0.1)
    other.load_state_dict(saved)
    assert other.param_groups[0]["momentum"] == 0.9
    buffer = other.state[second[0]]["momentum_buffer"]
    assert buffer.dtype == torch.float32
    buffer.zero_()
    assert saved["state"][0]["momentum_buffer"].abs().sum() > 0
    with pytest.raises(ValueError, match=r"groups of \[1\] parameters, but got \[4\]"):
        SGD(second[:1]).load_state_dict(saved)


def test_repr_names_rule_and_numbers():
    assert "SGD({'lr': 0.5, 'momentum': 0.0" in repr(SGD(parameters(torch.float32), lr=0.5))


def one():
    return [torch.zeros(1, requires_grad=True)]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: SGD([]), ValueError, "empty parameter list"),
        (lambda: SGD(one()[0]), TypeError, "one tensor"),
        (lambda: SGD([1.0]), TypeError, "only optimize Tensors"),
        (lambda: SGD([one()[0] * 2]), ValueError, "non-leaf"),
        (lambda: SGD(one() * 2), ValueError, "twice"),
        (lambda: SGD(one(), lr=-0.1), ValueError, "lr .* but got -0.1"),
        (lambda: SGD(one(), lr=math.nan), ValueError, "lr .* but got nan"),
        (lambda: SGD(one(), lr=math.inf), ValueError, "lr .* but got inf"),
        (lambda: SGD(one(), lr="0.1"), TypeError, "lr has to be a number"),
        (lambda: SGD(one(), momentum=-1), ValueError, "momentum .* but got -1"),
        (lambda: SGD(one(), weight_decay=-1), ValueError, "weight_decay"),
        (lambda: SGD(one(), nesterov=True), ValueError, "momentum=0.0"),
        (lambda: SGD(one(), momentum=0.9, dampening=0.1, nesterov=True), ValueError, "0.1"),
        (lambda: SGD([{"params": one(), "lr": -3}]), ValueError, "lr .* but got -3"),
        (lambda: Adam(one(), betas=(1.0, 0.9)), ValueError, r"betas\[0\] .* but got 1.0"),
        (lambda: Adam(one(), betas=(0.9, -0.1)), ValueError, r"betas\[1\]"),
        (lambda: Adam(one(), betas=0.9), TypeError, "two numbers, but got 0.9"),
        (lambda: Adam(one(), eps=-1e-8), ValueError, "eps"),
        (lambda: Adam(one(), weight_decay=math.nan), ValueError, "weight_decay"),
        (lambda: Optimizer(one(), {}).update(None, {}, None), NotImplementedError, None),
    ],
)
def test_bad_input_is_refused_by_name(make, error, words):
    with pytest.raises(error, match=words):
        make()
