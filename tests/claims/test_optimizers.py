"""Claims on optimizers that need no page: what torch's rules do to gradients we choose."""

import ast
import math
import re
from functools import partial

import pytest
import torch
from torch.optim import SGD, Adagrad, Adam, RMSprop

from lib import claims
from lib.claims import Exact
from lib.device import generator, seeds

LR = 0.1


def steps(optimizer, gradients):
    """How far one weight moves against its gradient at each step, (steps,)."""
    w, path = torch.zeros((), dtype=torch.float64), [0.0]
    rule = optimizer([w], lr=LR)
    for g in gradients:
        w.grad = torch.tensor(g, dtype=torch.float64)
        rule.step()
        path.append(-w.item())
    return torch.tensor(path, dtype=torch.float64).diff()


def powers_of_ten(after, before):
    return math.log10(after / before)


def test_the_first_step_of_adam_and_adagrad_is_the_rate(settle):
    def growth(optimizer):
        small, large = (steps(optimizer, [g]).item() for g in (0.01, 100.0))
        return powers_of_ten(large, small)

    settle(
        "OPT-01",
        where=Exact(growth(SGD)),
        where_not=Exact(max(growth(Adam), growth(Adagrad), key=abs)),
    )


def test_only_adagrad_decays_under_a_constant_gradient(settle):
    def fall(optimizer):
        moved = steps(optimizer, [1.0] * 1000)
        return powers_of_ten(moved[499], moved[999])  # when the running means have settled

    assert fall(Adagrad) > 0.1
    settle("OPT-04", Exact(max(fall(RMSprop), fall(Adam))))


def test_beta_1_sets_no_decay(settle):
    def fall(beta_1):
        moved = steps(partial(Adam, betas=(beta_1, 0.999)), [1.0] * 1000)
        return powers_of_ten(moved[0], moved[999])

    settle("OPT-05", Exact(max((fall(b) for b in (0.5, 0.89, 0.9)), key=abs)))


def test_the_listing_for_keras_does_not_parse(settle):
    def parsed(listing):
        try:
            return len(ast.parse(listing).body)
        except SyntaxError:
            return 0

    (listing,) = re.findall("`(.*?)`", claims.load()["OPT-06"].statement)
    assert (
        parsed(listing + ")") == 1
    )  # with the parenthesis closed, loss and metrics are Adam's
    with pytest.raises(TypeError, match="unexpected keyword argument 'loss'"):
        Adam([torch.zeros(1)], lr=LR, loss="...", metrics=["..."])
    settle("OPT-06", Exact(parsed(listing)))


def test_momentum_steadies_only_steps_close_to_the_limit(settle):
    noise = torch.stack(
        [
            torch.randn(2000, 100, generator=generator(s), dtype=torch.float64)
            for s in seeds(20)
        ],
        dim=1,
    )  # (steps, seeds, runs)

    def spread(lr, momentum):
        """log10 of the stationary mean of x^2 on x^2 / 2 with noisy gradients, (seeds,)."""
        x = torch.zeros_like(noise[0])
        rule, total = SGD([x], lr=lr, momentum=momentum), 0
        for step, z in enumerate(noise):
            x.grad = x + z
            rule.step()
            if step >= len(noise) / 2:
                total = total + x.square().mean(1)
        return (total / (len(noise) / 2)).log10()

    plain = spread(0.01, 0)
    saved = [plain - spread(lr, 0.9) for lr in (0.01, 0.001)]  # same rate, same lr / (1 - 0.9)
    settle(
        "OPT-08",
        where=spread(1.99, 0) - spread(1.99, 0.9),
        where_not=torch.maximum(*saved),
    )


def test_the_rate_falls_for_good_in_adagrad_only(settle):
    gradients = [0.99**t for t in range(1000)]

    def fall(optimizer):
        rate = steps(optimizer, gradients) / torch.tensor(gradients)  # per unit gradient
        return powers_of_ten(rate[0], rate[999])

    settle(
        "OPT-10",
        where=Exact(fall(Adagrad)),
        where_not=Exact(max(fall(RMSprop), fall(Adam))),
    )


def test_adagrad_raises_no_rate(settle):
    rare = [0.0] * 19 + [1.0]

    def rise(optimizer):
        """From a gradient at every step to one in twenty, that of the way per gradient."""
        moved = steps(optimizer, [1.0] * 1000 + rare * 50)
        return powers_of_ten(moved[-20:].sum(), moved[980:1000].sum() / 20)

    settle(
        "OPT-11", where=Exact(min(rise(RMSprop), rise(Adam))), where_not=Exact(rise(Adagrad))
    )


def test_the_pace_shrinks_on_the_way_at_a_fixed_rate(settle):
    def paces(lr, num_steps):
        x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        rule, path = SGD([x], lr=lr), [1.0]
        for _ in range(num_steps):
            rule.zero_grad()
            (x.square() / 2).backward()
            rule.step()
            path.append(x.item())
        return -torch.tensor(path, dtype=torch.float64).diff()

    slow, fast = paces(LR, 50), paces(2 * LR, 1)
    settle(
        "OPT-13",
        where=Exact(math.log2(fast[0] / slow[0]) - 1),
        where_not=Exact(math.log2(slow[-1] / slow[0])),
    )
