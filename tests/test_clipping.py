import inspect
import math

import pytest
import torch
from torch import nn

from lib.clipping import clip_grad_norm_, clip_grad_value_


def parameters(dtype=torch.float64, scale=1.0):
    """Three with gradients of norm 5, 0 and 12 times scale, and one without."""
    gradients = ([[3.0, 0.0], [0.0, -4.0]], [0.0, 0.0], [12.0], None)
    params = [torch.ones(s, dtype=dtype, requires_grad=True) for s in ((2, 2), 2, 1, 3)]
    for p, gradient in zip(params, gradients, strict=True):
        p.grad = None if gradient is None else scale * torch.tensor(gradient, dtype=dtype)
    return params


def gradients(params):
    return [p.grad for p in params if p.grad is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm_type", [1, 2.0, 3.5, math.inf, "inf"])
@pytest.mark.parametrize(
    ("max_norm", "scale"), [(0, 1), (0.1, 1), (12.5, 1), (100, 1), (1e-6, 1e-6), (1, 0), (0, 0)]
)
def test_clipping_the_norm_equals_torch(dtype, norm_type, max_norm, scale):
    mine, other = parameters(dtype, scale), parameters(dtype, scale)
    found = clip_grad_norm_(iter(mine), max_norm, norm_type)
    expected = nn.utils.clip_grad_norm_(other, max_norm, norm_type)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients(mine), gradients(other), rtol=1e-6, atol=0)
    assert mine[3].grad is None


def test_the_norm_is_one_of_all_gradients_and_the_direction_stays():
    params = parameters()
    before = [p.clone() for p in gradients(params)]
    assert clip_grad_norm_(params, 6.5).item() == 13
    for p, q in zip(gradients(params), before, strict=True):
        torch.testing.assert_close(p, q / 2)


def test_gradients_below_the_bound_stay_bit_for_bit():
    params = parameters(scale=0.1)
    before = [p.clone() for p in gradients(params)]
    for max_norm in (1.4, math.inf):
        clip_grad_norm_(params, max_norm)
        assert all(torch.equal(p, q) for p, q in zip(gradients(params), before, strict=True))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_norm_that_is_not_finite(bad):
    mine, other = parameters(), parameters()
    for params in (mine, other):
        params[0].grad[0, 0] = bad
    before = mine[2].grad.clone()
    with pytest.raises(RuntimeError, match=f"finite to clip it, but got {bad}"):
        clip_grad_norm_(mine, 1.0, error_if_nonfinite=True)
    assert torch.equal(mine[2].grad, before)
    found = clip_grad_norm_(mine, 1.0)
    torch.testing.assert_close(found, nn.utils.clip_grad_norm_(other, 1.0), equal_nan=True)
    torch.testing.assert_close(gradients(mine), gradients(other), equal_nan=True)


@pytest.mark.parametrize("clip_value", [0, 0.5, 3.5, 100])
def test_clipping_values_equals_torch(clip_value):
    mine, other = parameters(), parameters()
    for params in (mine, other):
        params[1].grad = torch.tensor([math.nan, -math.inf], dtype=torch.float64)
    assert clip_grad_value_(iter(mine), clip_value) is None
    nn.utils.clip_grad_value_(other, clip_value)
    torch.testing.assert_close(gradients(mine), gradients(other), equal_nan=True)
    assert mine[0].grad.abs().max() <= clip_value


@pytest.mark.parametrize("clip", [clip_grad_norm_, clip_grad_value_])
def test_one_tensor_is_clipped_in_place_outside_any_graph(clip):
    p = torch.full((3,), 2.0, requires_grad=True)
    p.grad = gradient = torch.full((3,), 12.0, requires_grad=True)
    found = clip(p, 1.0)
    assert p.grad is gradient
    assert 0 < gradient.abs().max() <= 1
    assert found is None or not found.requires_grad


def test_without_gradients_the_norm_is_zero():
    p = torch.zeros(2, requires_grad=True)
    for params in ([], [p]):
        norm = clip_grad_norm_(params, 1.0)
        torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(params, 1.0))
        assert clip_grad_value_(params, 1.0) is None
    assert p.grad is None


@pytest.mark.parametrize("ours", [clip_grad_norm_, clip_grad_value_])
def test_names_order_and_defaults_are_torchs(ours):
    theirs = inspect.signature(getattr(nn.utils, ours.__name__)).parameters
    expected = {name: p.default for name, p in theirs.items() if name != "foreach"}
    found = {name: p.default for name, p in inspect.signature(ours).parameters.items()}
    assert list(found.items()) == list(expected.items())


@pytest.mark.parametrize(
    ("clip", "error", "words"),
    [
        (lambda p: clip_grad_norm_(p, -1.0), ValueError, "max_norm .* but got -1.0"),
        (lambda p: clip_grad_norm_(p, math.nan), ValueError, "max_norm .* but got nan"),
        (lambda p: clip_grad_norm_(p, "far"), TypeError, "max_norm .* but got 'far'"),
        (lambda p: clip_grad_norm_(p, 1.0, 0), ValueError, "norm_type .* above 0"),
        (lambda p: clip_grad_norm_(p, 1.0, -2), ValueError, "norm_type .* but got -2"),
        (lambda p: clip_grad_norm_(p, 1.0, None), TypeError, "norm_type .* but got None"),
        (lambda p: clip_grad_norm_([*p, 1.0], 1.0), TypeError, "tensors, but got 1.0"),
        (lambda p: clip_grad_value_(p, -0.5), ValueError, "clip_value .* but got -0.5"),
        (lambda p: clip_grad_value_(p, math.nan), ValueError, "clip_value .* but got nan"),
        (lambda p: clip_grad_value_(p, [1]), TypeError, r"clip_value .* but got \[1\]"),
        (lambda p: clip_grad_value_([None], 1.0), TypeError, "tensors, but got None"),
    ],
)
def test_bad_input_is_refused_by_name(clip, error, words):
    params = parameters()
    with pytest.raises(error, match=words):
        clip(params)
    assert params[2].grad.item() == 12
