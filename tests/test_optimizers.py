import copy
import inspect
import io
import math

import numpy as np
import pytest
import torch
from torch.func import vmap

import lib.blocks
from lib.data import digits
from lib.models import mlp
from lib.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from lib.study import study

RULES = [
    (SGD, {"lr": 0.05}),
    (SGD, {"lr": 0.05, "weight_decay": 0.1}),
    (SGD, {"lr": 0.05, "momentum": 0.9}),
    (SGD, {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}),
    (SGD, {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.02}),
    (Adagrad, {}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "eps": 1e-3}),
    (Adagrad, {"initial_accumulator_value": 0.5}),
    (RMSprop, {}),
    (RMSprop, {"lr": 0.02, "alpha": 0.9, "eps": 1e-2, "weight_decay": 0.1}),
    (RMSprop, {"momentum": 0.9}),
    (RMSprop, {"centered": True, "eps": 1e-3}),
    (RMSprop, {"momentum": 0.5, "centered": True, "weight_decay": 0.02}),
    (Adam, {}),
    (Adam, {"lr": 0.02, "betas": (0.5, 0.9), "eps": 1e-3}),
    (Adam, {"lr": 0.05, "weight_decay": 0.1}),
    (Adam, {"lr": 0.05, "betas": (0.9, 0.5), "amsgrad": True}),
    (AdamW, {"lr": 0.05}),
    (AdamW, {"lr": 0.02, "weight_decay": 0.5, "betas": (0.8, 0.6), "amsgrad": True}),
]
EACH = [SGD, Adagrad, RMSprop, Adam, AdamW]
rules = pytest.mark.parametrize(("ours", "options"), RULES)
each = pytest.mark.parametrize("rule", EACH)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def theirs(rule):
    return getattr(torch.optim, rule.__name__)


def parameters(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (3,), (), (2, 2), (2,)]
    return [torch.randn(s, generator=g, dtype=dtype).requires_grad_() for s in shapes]


def train(optimizer, params, steps):
    """Follow a gradient that depends on step and weights; two come late, or never."""
    for step in steps:
        for i, p in enumerate(params):
            has_gradient = i < 3 or (i == 3 and step >= 30)
            p.grad = (p.detach() + step).sin() if has_gradient else None
        optimizer.step()
    return params


def groups(params):
    """Two groups; the first has its own numbers."""
    return [{"params": params[:2], "lr": 0.03, "weight_decay": 0.3}, {"params": params[2:]}]


def copied(params):
    return [p.detach().clone().requires_grad_() for p in params]


def assert_same(mine, other):
    """Equal up to what 50 steps of rounding may make of it."""
    for p, q in zip(mine, other, strict=True):
        tolerance = {torch.float32: 1e-5, torch.float64: 1e-13}[p.dtype]
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


def assert_equal(mine, other):
    assert all(torch.equal(p, q) for p, q in zip(mine, other, strict=True))


# --- against torch ---


@rules
@dtypes
@pytest.mark.parametrize("arrange", [list, groups])
def test_fifty_steps_equal_torch(ours, options, dtype, arrange):
    start, mine, other = parameters(dtype), parameters(dtype), parameters(dtype)
    train(ours(arrange(mine), **options), mine, range(50))
    train(theirs(ours)(arrange(other), **options), other, range(50))
    assert_same(mine, other)
    assert not any(torch.equal(p, q) for p, q in zip(mine[:4], start[:4], strict=True))
    assert torch.equal(mine[4], start[4])


@rules
def test_a_saved_state_continues_as_if_nothing_happened(ours, options):
    through, first = parameters(), parameters()
    train(ours(groups(through), **options), through, range(50))
    optimizer = ours(groups(first), **options)
    train(optimizer, first, range(25))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second = copied(first)
    resumed = ours(groups(second), lr=0.77)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert_equal(train(resumed, second, range(25, 50)), through)


@rules
def test_torch_continues_from_our_state_and_we_from_torchs(ours, options):
    makers, ends, halves, saved = (ours, theirs(ours)), [], [], []
    for make in makers:
        params = parameters()
        optimizer = make(groups(params), **options)
        train(optimizer, params, range(25))
        halves.append(copied(params))
        saved.append(copy.deepcopy(optimizer.state_dict()))  # torch goes on in these tensors
        ends.append(train(optimizer, params, range(25, 50)))

    mine, torchs = saved
    assert {i: set(s) for i, s in mine["state"].items()} == {
        i: set(s) for i, s in torchs["state"].items()
    }
    for group, theirs_group in zip(mine["param_groups"], torchs["param_groups"], strict=True):
        assert group.items() <= theirs_group.items()

    for half, state, make, end in zip(
        halves, saved, reversed(makers), reversed(ends), strict=True
    ):
        resumed = make(groups(half), lr=0.77)
        resumed.load_state_dict(state)
        assert_same(train(resumed, half, range(25, 50)), end)
        if make is ours:
            assert all(type(s.get("step", 0)) is int for s in resumed.state.values())


@each
def test_names_order_and_defaults_are_torchs(rule):
    mine, other = (inspect.signature(x).parameters for x in (rule, theirs(rule)))
    missing = {"maximize", "foreach", "capturable", "differentiable", "fused"}
    missing |= {"decoupled_weight_decay"}
    order = [name for name in other if name not in missing]
    assert list(mine) == order
    for name in order:
        assert mine[name].default == other[name].default
    defaults = theirs(rule)([torch.zeros(1, requires_grad=True)]).defaults
    assert rule([torch.zeros(1, requires_grad=True)]).defaults.items() <= defaults.items()


# --- the rules ---


@rules
def test_update_changes_nothing_it_is_given(ours, options):
    grad, param = torch.ones(3), torch.arange(3.0)
    hyper = ours([torch.zeros(1, requires_grad=True)], **options).defaults
    change, state = ours.update(grad, {}, param, **hyper)
    before = copy.deepcopy((grad, state, param))
    ours.update(grad, state, param, **hyper)
    torch.testing.assert_close((grad, state, param), before, rtol=0, atol=0)
    for x in (grad, param, change):  # none of them is part of the state
        x.zero_()
    torch.testing.assert_close(state, before[1], rtol=0, atol=0)


SEVERAL = {  # numbers of three networks, and what they share
    "SGD": (SGD, {"momentum": [0.9, 0.5, 0.1], "dampening": [0.0, 0.3, 0.5]}, {}),
    "Nesterov": (SGD, {"momentum": [0.9, 0.5, 0.1]}, {"nesterov": True}),
    "Adagrad": (
        Adagrad,
        {
            "eps": [1e-3, 1e-2, 0.1],
            "lr_decay": [0.0, 0.1, 0.5],
            "initial_accumulator_value": [0.0, 0.1, 1.0],
        },
        {},
    ),
    "RMSprop": (
        RMSprop,
        {"eps": [1e-3, 1e-2, 0.1], "alpha": [0.9, 0.5, 0.1], "momentum": [0.9, 0.5, 0.0]},
        {"centered": True},
    ),
    "Adam": (Adam, {"eps": [1e-8, 1e-2, 0.1], "betas": [(0.9, 0.99), (0.5, 0.7), (0, 0)]}, {}),
    "AMSGrad": (AdamW, {"betas": [(0.9, 0.99), (0.5, 0.1), (0, 0)]}, {"amsgrad": True}),
}


@pytest.mark.parametrize(("rule", "several", "common"), SEVERAL.values(), ids=SEVERAL)
@dtypes
def test_a_tensor_of_numbers_trains_each_row_by_its_own(rule, several, common, dtype):
    several = {"lr": [0.1, 0.2, 0.3], "weight_decay": [0.1, 0.0, 0.5], **several}
    hyper = rule([torch.zeros(1, requires_grad=True)]).defaults | common
    g = torch.Generator().manual_seed(0)
    start = torch.randn(3, 5, generator=g, dtype=dtype)
    grads = torch.randn(3, 4, 5, generator=g, dtype=dtype)

    def run(param, grads, numbers):
        state = {}
        for grad in grads.unbind(-2):
            change, state = rule.update(grad, state, param, **{**hyper, **numbers})
            param = param + change
        return param

    def rows(values):  # as the study engine passes them; pairs become a pair of tensors
        if isinstance(values[0], tuple):
            return tuple(rows(each) for each in zip(*values, strict=True))
        return torch.tensor(values, dtype=dtype)[:, None]

    tensors = {name: rows(values) for name, values in several.items()}
    together, mapped = run(start, grads, tensors), vmap(run)(start, grads, tensors)
    for i in range(3):
        alone = run(start[i], grads[i], {name: values[i] for name, values in several.items()})
        # 1 - 0.99 has lost digits if 0.99 comes in single precision
        tolerance = {torch.float32: 1e-4, torch.float64: 1e-12}[dtype]
        for found in (together[i], mapped[i]):
            torch.testing.assert_close(found, alone, rtol=tolerance, atol=tolerance)


BATCHED = [
    (SGD, {"a": {"momentum": 0.9}, "b": {"momentum": 0.5, "lr": 0.02}}),
    (RMSprop, {"a": {"alpha": 0.9}, "b": {"alpha": 0.5, "eps": 0.01}}),
    (AdamW, {"a": {"lr": 0.01}, "b": {"betas": (0.5, 0.9)}, "c": {"weight_decay": 0.5}}),
]


@pytest.mark.parametrize(("rule", "settings"), BATCHED)
def test_a_study_in_one_batched_program_computes_the_same(rule, settings, monkeypatch):
    found = []
    for batched in (True, False):
        monkeypatch.setattr(lib.blocks, "stacked", lambda device, batched=batched: batched)
        result = study(
            settings,
            model=lambda g: mlp([64, 6, 10], generator=g),
            split=lambda seed: digits(seed, num_train=100),
            optimizer=rule,
            lr=0.05,
            seeds=[0, 1],
            epochs=2,
            block=2,
        )
        found.append(np.stack([result[name, "val_loss"] for name in settings]))
    assert np.abs(found[1][0] - found[1][1]).min() > 1e-4
    np.testing.assert_allclose(*found, rtol=1e-3)


def test_decay_of_adamw_does_not_depend_on_the_gradient():
    p = torch.full((2,), 4.0, dtype=torch.float64, requires_grad=True)
    q = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = AdamW([p, q], lr=0.1, weight_decay=0.5)
    p.grad = q.grad = torch.tensor([1e-3, 1e3], dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close((p - q).detach(), torch.full_like(p, 4 * (1 - 0.1 * 0.5)))


def test_amsgrad_remembers_the_largest_gradient():
    def last_step(amsgrad):
        p = torch.zeros((), requires_grad=True)
        optimizer = Adam([p], lr=0.1, betas=(0.0, 0.5), amsgrad=amsgrad)
        for gradient in (100.0, *[1.0] * 30):
            before = p.item()
            p.grad = torch.tensor(gradient)
            optimizer.step()
        return before - p.item()

    assert last_step(False) == pytest.approx(0.1, rel=1e-3)
    assert last_step(True) == pytest.approx(0.1 / math.sqrt(0.5 * 100**2), rel=1e-2)


def test_a_groups_own_start_of_adagrad_counts():
    p, q = (torch.zeros((), requires_grad=True) for _ in range(2))
    p.grad = q.grad = torch.tensor(3.0)
    Adagrad([{"params": p, "initial_accumulator_value": 16.0}, {"params": q}], lr=1).step()
    assert (p.item(), q.item()) == pytest.approx((-3 / 5, -1))


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
    params = parameters()
    optimizer = Adam(params, weight_decay=0.1)
    params[0].grad = 2 * params[0]  # a gradient with a history
    optimizer.step()
    assert all(p.is_leaf and p.requires_grad for p in params)
    assert optimizer.state[params[0]]["exp_avg"].grad_fn is None


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
    train(optimizer, first, [0])
    saved = optimizer.state_dict()
    assert list(saved["state"]) == [0, 1, 2]  # what never had a gradient has no state
    other = SGD(second, momentum=0.1)
    other.load_state_dict(saved)
    assert other.param_groups[0]["momentum"] == 0.9
    buffer = other.state[second[0]]["momentum_buffer"]
    assert buffer.dtype == torch.float32
    buffer.zero_()
    assert saved["state"][0]["momentum_buffer"].abs().sum() > 0
    with pytest.raises(ValueError, match=r"groups of \[1\] parameters, but got \[5\]"):
        SGD(second[:1]).load_state_dict(saved)


def test_a_loaded_state_is_nobody_elses_and_replaces_the_old_one():
    first, second = parameters(), parameters()
    other, mine = theirs(SGD)(first, momentum=0.9), SGD(second, momentum=0.9)
    train(other, first, [0])
    train(mine, second, [40])  # here the fourth has a state, too
    mine.load_state_dict(other.state_dict())
    loaded = copy.deepcopy(mine.state_dict()["state"])
    assert list(loaded) == [0, 1, 2]
    train(other, first, [1])  # torch goes on in the tensors that it saved
    torch.testing.assert_close(mine.state_dict()["state"], loaded, rtol=0, atol=0)


def test_a_state_that_cannot_be_loaded_changes_nothing():
    for foreign, rule in (
        ("maximize", SGD),
        ("maximize", AdamW),
        ("decoupled_weight_decay", Adam),
    ):
        other = theirs(rule)(one(), lr=0.5)
        other.param_groups[0][foreign] = True
        mine = rule(one(), lr=0.1)
        with pytest.raises(ValueError, match=f"{rule.__name__} has no {foreign}"):
            mine.load_state_dict(other.state_dict())
        assert mine.param_groups[0]["lr"] == 0.1


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
        (lambda: SGD(one(), dampening=-math.inf), ValueError, "dampening"),
        (lambda: SGD(one(), weight_decay=-1), ValueError, "weight_decay"),
        (lambda: SGD(one(), nesterov=True), ValueError, "momentum=0.0"),
        (lambda: SGD(one(), momentum=0.9, dampening=0.1, nesterov=True), ValueError, "0.1"),
        (lambda: SGD([{"params": one(), "lr": -3}]), ValueError, "lr .* but got -3"),
        (lambda: Adam(one(), betas=(1.0, 0.9)), ValueError, r"betas\[0\] .* but got 1.0"),
        (lambda: Adam(one(), betas=(0.9, -0.1)), ValueError, r"betas\[1\]"),
        (lambda: Adam(one(), betas=0.9), TypeError, "two numbers, but got 0.9"),
        (lambda: Adam(one(), eps=-1e-8), ValueError, "eps"),
        (lambda: Adam(one(), weight_decay=math.nan), ValueError, "weight_decay"),
        (lambda: Adam(one(), betas=(0.9, math.nan)), ValueError, r"betas\[1\]"),
        (lambda: AdamW(one(), betas=(0.9, 1)), ValueError, r"betas\[1\]"),
        (lambda: AdamW(one(), weight_decay=-0.1), ValueError, "weight_decay"),
        (lambda: Adagrad(one(), lr=-1), ValueError, "lr .* but got -1"),
        (lambda: Adagrad(one(), lr_decay=-1), ValueError, "lr_decay"),
        (lambda: Adagrad(one(), eps=-1), ValueError, "eps"),
        (lambda: Adagrad(one(), initial_accumulator_value=-1), ValueError, "accumulator"),
        (lambda: RMSprop(one(), lr=math.nan), ValueError, "lr .* but got nan"),
        (lambda: RMSprop(one(), alpha=-0.1), ValueError, "alpha .* but got -0.1"),
        (lambda: RMSprop(one(), alpha=1.0), ValueError, "alpha .* but got 1.0"),
        (lambda: RMSprop(one(), momentum=-1), ValueError, "momentum"),
        (lambda: RMSprop(one(), eps=-1), ValueError, "eps"),
        (lambda: RMSprop(one(), weight_decay=-1), ValueError, "weight_decay"),
        (lambda: SGD([{"params": one(), "maximize": True}]), ValueError, "no maximize"),
        (lambda: Optimizer(one(), {}).update(None, {}, None), NotImplementedError, None),
    ],
)
def test_bad_input_is_refused_by_name(make, error, words):
    with pytest.raises(error, match=words):
        make()
