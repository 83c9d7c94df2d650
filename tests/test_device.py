import math

import numpy as np
import pytest
import torch

from lib import device as dev


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    monkeypatch.delenv("COURSE_SEED", raising=False)


@pytest.mark.parametrize(
    ("variable", "cuda", "expected"),
    [
        (None, False, "cpu"),
        (None, True, "cuda"),
        ("", True, "cuda"),
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_device_follows_the_variable_and_else_takes_cuda(monkeypatch, variable, cuda, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    if variable is not None:
        monkeypatch.setenv("COURSE_DEVICE", variable)
    assert dev.device() == torch.device(expected)


@pytest.mark.parametrize("value", ["cuda", "gpu", "CPU", "cuda:1", "mps"])
def test_impossible_device_is_refused_by_name(monkeypatch, value):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("COURSE_DEVICE", value)
    with pytest.raises(ValueError, match=rf"COURSE_DEVICE has to be 'cpu'.*got '{value}'"):
        dev.device()


@pytest.mark.parametrize(("value", "expected"), [(None, 0), ("", 0), ("0", 0), ("999", 999)])
def test_course_seed(monkeypatch, value, expected):
    if value is not None:
        monkeypatch.setenv("COURSE_SEED", value)
    assert dev.course_seed() == expected


@pytest.mark.parametrize("value", ["-1", "1000", "1.5", "one", "²", "1_0", " "])
def test_bad_course_seed_is_refused(monkeypatch, value):
    monkeypatch.setenv("COURSE_SEED", value)
    with pytest.raises(ValueError, match="COURSE_SEED has to be an int from 0 to 999, but got"):
        dev.course_seed()


def test_blocks_of_seeds_are_nested_and_never_overlap(monkeypatch):
    blocks = []
    for base in ("0", "1", "2", "999"):
        monkeypatch.setenv("COURSE_SEED", base)
        blocks.append(dev.seeds(1000))
        assert dev.seeds(20) == blocks[-1][:20]
    assert blocks[0][:3] == [0, 1, 2]
    assert len(set().union(*blocks)) == 4000


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (1001, ValueError), (2.0, TypeError)]
)
def test_bad_number_of_seeds(n, error):
    with pytest.raises(error, match="n has to be"):
        dev.seeds(n)


def test_every_seed_starts_its_own_numbers_bit_for_bit():
    def draw(seed):
        return torch.rand(4, generator=dev.generator(seed))

    torch.manual_seed(7)
    assert torch.equal(draw(7), torch.rand(4))  # the numbers of torch's own seed
    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    # The largest seed of the course is far below what the CPU generator can tell apart.
    assert len({draw(seed)[0].item() for seed in (0, 999_999, 2**32 - 1)}) == 3


@pytest.mark.parametrize(
    ("seed", "error"),
    [(-1, ValueError), (2**32, ValueError), (1.0, TypeError), ("1", TypeError)],
)
def test_bad_seed(seed, error):
    with pytest.raises(error, match="seed has to be"):
        dev.generator(seed)


def test_check_int_takes_numpy_and_says_what_it_expects():
    assert type(dev.check_int("k", np.int64(3), 1)) is int
    with pytest.raises(ValueError, match="k has to be at least 1, but got 0"):
        dev.check_int("k", 0, 1)
    with pytest.raises(ValueError, match="k has to be between 1 and 5, but got 6"):
        dev.check_int("k", 6, 1, 5)
    with pytest.raises(TypeError, match="k has to be an int, but got True"):
        dev.check_int("k", True, 1)


def test_numbers_in_range_pass():
    dev.check_numbers(a=0, b=2.5)
    dev.check_numbers(-math.inf, b=-2.5)
    dev.check_numbers(0, 1, a=0.999)
    dev.check_numbers(positive=True, a=1e-300)


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((), {"rate": "0.1"}, TypeError, "rate has to be a number, but got '0.1'"),
        ((), {"rate": True}, TypeError, "rate has to be a number, but got True"),
        ((), {"rate": -0.1}, ValueError, r"rate has to be in \[0, inf\), but got -0.1"),
        ((), {"rate": math.nan}, ValueError, "but got nan"),
        ((), {"rate": math.inf}, ValueError, "but got inf"),
        ((-math.inf,), {"rate": -math.inf}, ValueError, "but got -inf"),
        ((0, 1), {"fine": 0, "beta": 1}, ValueError, r"beta has to be in \[0, 1\)"),
        ((), {"positive": True, "rate": 0}, ValueError, r"rate has to be in \(0, inf\)"),
    ],
)
def test_numbers_out_of_range_are_named(args, options, error, message):
    with pytest.raises(error, match=message):
        dev.check_numbers(*args, **options)
