import functools
import itertools

import pytest
import torch
from torch import nn

from lib.device import generator
from lib.models import convnet, mlp, num_parameters


def default_mlp(sizes):
    """The same network written out by hand, with torch's own starting weights."""
    layers = []
    for fan_in, fan_out in itertools.pairwise(sizes[:-1]):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def default_convnet(side, classes, c1, c2):
    return nn.Sequential(
        nn.Unflatten(1, (1, side, side)),
        nn.Conv2d(1, c1, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(c1, c2, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(c2 * (side // 4) ** 2, classes),
    )


def assert_same(model, expected):
    mine, theirs = model.state_dict(), expected.state_dict()
    assert list(mine) == list(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert all(p.requires_grad and p.device.type == "cpu" for p in model.parameters())


BUILDERS = [
    (lambda g: mlp([5, 7, 6, 3], generator=g), lambda: default_mlp([5, 7, 6, 3])),
    (lambda g: mlp([5, 3], generator=g), lambda: default_mlp([5, 3])),
    (
        lambda g: convnet(9, 4, channels=(3, 5), generator=g),
        lambda: default_convnet(9, 4, 3, 5),
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), BUILDERS, ids=["mlp", "linear", "convnet"])
@pytest.mark.parametrize("seed", [0, 1234])
def test_starting_weights_are_torchs_bit_for_bit(ours, theirs, seed):
    torch.manual_seed(seed)
    expected = theirs()
    assert_same(ours(generator(seed)), expected)
    torch.manual_seed(seed)
    assert_same(ours(None), expected)


@pytest.mark.parametrize(("ours", "theirs"), BUILDERS, ids=["mlp", "linear", "convnet"])
def test_a_generator_leaves_the_global_one_alone(ours, theirs):
    before = torch.get_rng_state()
    ours(generator(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_norm_and_dropout_keep_the_starting_weights():
    plain = mlp([5, 7, 3], generator=generator(0))
    rich = mlp([5, 7, 3], norm=nn.BatchNorm1d, dropout=0.5, generator=generator(0))
    assert torch.equal(plain[0].weight, rich[0].weight)
    assert torch.equal(plain[-1].weight, rich[-1].weight)


def test_order_of_the_blocks_and_plain_last_layer():
    model = mlp([5, 7, 6, 3], nn.Tanh, norm=nn.LayerNorm, dropout=0.1)
    block = [nn.Linear, nn.LayerNorm, nn.Tanh, nn.Dropout]
    assert [type(m) for m in model] == [*block, *block, nn.Linear]
    assert [m.normalized_shape for m in model if isinstance(m, nn.LayerNorm)] == [(7,), (6,)]
    assert model[3].p == 0.1
    assert [type(m) for m in mlp([5, 7, 3], dropout=0.0)] == [nn.Linear, nn.ReLU, nn.Linear]


def test_factories_may_be_functions():
    model = mlp(
        [4, 6, 2], functools.partial(nn.LeakyReLU, 0.2), norm=lambda d: nn.GroupNorm(2, d)
    )
    assert model[2].negative_slope == 0.2
    assert model[1].num_groups == 2


@pytest.mark.parametrize("side", [4, 8, 9, 28])
def test_convnet_maps_flat_images_to_classes(side):
    model = convnet(side, 7)
    assert model(torch.zeros(2, side * side)).shape == (2, 7)


def test_num_parameters_counts_trainable_numbers_once():
    model = mlp([5, 7, 3])
    assert num_parameters(model) == (5 * 7 + 7) + (7 * 3 + 3)
    model[0].weight.requires_grad_(False)
    assert num_parameters(model) == 7 + (7 * 3 + 3)
    shared = nn.Linear(4, 4)
    assert num_parameters(nn.Sequential(shared, shared)) == 20


@pytest.mark.parametrize(
    ("build", "error", "match"),
    [
        (lambda: mlp([5]), ValueError, r"sizes has to hold .* got \[5\]"),
        (lambda: mlp([]), ValueError, "sizes has to hold"),
        (lambda: mlp([5, 0, 3]), ValueError, r"sizes\[1\] has to be at least 1, but got 0"),
        (lambda: mlp([5, 2.5]), TypeError, r"sizes\[1\] has to be an int, but got 2.5"),
        (lambda: mlp([5, 3], dropout=1.0), ValueError, r"in \[0, 1\), but got 1.0"),
        (lambda: mlp([5, 3], dropout=-0.1), ValueError, "got -0.1"),
        (lambda: mlp([5, 3], dropout=float("nan")), ValueError, "got nan"),
        (lambda: mlp([5, 4, 3], nn.ReLU()), TypeError, r"activation has .* got ReLU\(\)"),
        (lambda: mlp([5, 4, 3], torch.tanh), TypeError, "activation has to be a class"),
        (lambda: mlp([5, 4, 3], norm=nn.BatchNorm1d(4)), TypeError, "norm has to be a class"),
        (lambda: mlp([5, 4, 3], norm=lambda d: d), TypeError, "norm has to be a class"),
        (lambda: convnet(3), ValueError, "side has to be at least 4, but got 3"),
        (lambda: convnet(8, 0), ValueError, "num_classes has to be at least 1"),
        (lambda: convnet(8, channels=(4,)), ValueError, "channels has to hold two numbers"),
        (
            lambda: convnet(8, channels=(4, 0)),
            ValueError,
            r"channels\[1\] has to be at least 1",
        ),
    ],
)
def test_bad_arguments(build, error, match):
    with pytest.raises(error, match=match):
        build()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_generator_on_the_gpu_is_refused():
    with pytest.raises(ValueError, match="generator has to be on the CPU"):
        mlp([5, 3], generator=generator(0, "cuda"))
