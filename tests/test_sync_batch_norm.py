import copy
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from lib.device import generator
from lib.sync_batch_norm import SyncBatchNorm

ROOT = Path(__file__).parents[1]
CASES = {  # what to build, dtype, shape of the whole, mean, how many samples go to process 0
    "halves": ({}, torch.float64, (8, 3), 0.0, 4),
    "unequal": ({"momentum": None}, torch.float64, (7, 3), 0.0, 2),
    "one sample each": ({"affine": False}, torch.float64, (2, 3), 0.0, 1),
    "all in one": ({"momentum": 0.7}, torch.float64, (5, 3), 0.0, 0),
    "images": ({"eps": 0.1}, torch.float64, (5, 2, 3, 4), 0.0, 3),
    "large mean": ({}, torch.float64, (9, 3), 1e6, 2),
    "large mean, float32": ({}, torch.float32, (64, 3), 1e4, 24),
    "untracked": ({"track_running_stats": False}, torch.float64, (6, 3), 0.0, 1),
}


def randn(*shape, seed, dtype):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def build(make, C, options, dtype):
    layer = make(C, **options, dtype=dtype)
    for i, p in enumerate(layer.parameters()):
        p.data = 1 + 0.5 * randn(C, seed=i, dtype=dtype)
    return layer


def trace(layer, shape, mean, dtype, part=slice(None), compute=None):
    """Two steps on a part of the batch, then evaluation: what comes out, by name.

    The batch consists of numbers that ``dtype`` holds, and is then cast to ``compute``.
    """
    found = {}
    for step in range(2):
        X = mean + 2 * randn(*shape, seed=10 + step, dtype=dtype)
        weights = randn(*shape, seed=20 + step, dtype=dtype)
        X, weights = (t[part].to(compute or dtype) for t in (X, weights))
        y = layer(X.requires_grad_())
        grads = torch.autograd.grad((y * weights).sum(), [X, *layer.parameters()])
        found |= {f"y {step}": y.detach(), f"d_x {step}": grads[0]}
        found |= {f"d_p {step} {i}": grad for i, grad in enumerate(grads[1:])}
    found |= {name: b.clone() for name, b in layer.named_buffers()}
    found["eval"] = layer.eval()(X).detach()
    return found


def process(rank, folder):
    """What each of the two processes does."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=30),
    )
    found = {}
    for name, (options, dtype, shape, mean, first) in CASES.items():
        layer = build(SyncBatchNorm, shape[1], options, dtype)
        part = slice(None, first) if rank == 0 else slice(first, None)
        if not options.get("track_running_stats", True):
            layer.eval = lambda layer=layer: layer  # both would be on their own
        found[name] = trace(layer, shape, mean, dtype, part)
    try:
        SyncBatchNorm(3)(torch.ones(rank, 3))  # one value per channel in all
    except ValueError as error:
        found["errors"] = str(error)
    alone = dist.new_group([0]), dist.new_group([1])
    layer = build(SyncBatchNorm, 3, {"process_group": alone[rank]}, torch.float64)
    found["own group"] = trace(layer, (4 + rank, 3), 0.0, torch.float64)
    layer = SyncBatchNorm(3, affine=False, track_running_stats=False).eval()
    found["untracked eval"] = layer(randn(4, 3, seed=rank, dtype=torch.float32))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """What two processes found, each with a part of the batch."""
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("needs gloo")
    folder = tmp_path_factory.mktemp("processes")
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__]
    with (
        subprocess.Popen([*command, "0", folder], env=env) as zero,
        subprocess.Popen([*command, "1", folder], env=env) as one,
    ):
        try:
            codes = [child.wait(timeout=60) for child in (zero, one)]
        finally:
            for child in (zero, one):
                child.kill()
    assert codes == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_with_a_part_each_equal_one_with_all(name, parts):
    options, dtype, shape, mean, _ = CASES[name]
    make = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    whole = build(make, shape[1], options, dtype)
    if not whole.track_running_stats:
        whole.eval = lambda: whole
    # In float64, as torch's own float32 is not exact at a large mean.
    expected = trace(whole.double(), shape, mean, dtype, compute=torch.float64)
    tolerance = 1e-8 if dtype == torch.float64 else 5e-3
    for key, value in expected.items():
        a, b = (part[name][key] for part in parts)
        if key.startswith("d_p"):
            found = a + b  # each has the gradient of its own part
        elif key.startswith(("y", "d_x", "eval")):
            found = torch.cat([a, b])
        else:
            assert torch.equal(a, b)
            found = a
        torch.testing.assert_close(
            found.to(value.dtype), value, rtol=tolerance, atol=tolerance, msg=f"{name}: {key}"
        )
    assert parts[0][name].keys() == expected.keys()


@pytest.mark.parametrize("training", [True, False])
def test_without_processes_it_is_ordinary_batch_norm(training):
    X = randn(4, 3, 2, 2, seed=0, dtype=torch.float32)
    layers = [build(make, 3, {}, torch.float32) for make in (SyncBatchNorm, nn.BatchNorm2d)]
    a, b = (layer.train(training)(X) for layer in layers)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layers[0].state_dict(), layers[1].state_dict())
    layers[0].load_state_dict(copy.deepcopy(layers[1].state_dict()))


def test_a_group_of_one_process_is_on_its_own(parts):
    for rank in range(2):
        layer = build(nn.BatchNorm1d, 3, {}, torch.float64)
        expected = trace(layer, (4 + rank, 3), 0.0, torch.float64)
        torch.testing.assert_close(parts[rank]["own group"], expected, rtol=1e-9, atol=1e-9)


def test_evaluation_shares_nothing(parts):
    layer = nn.BatchNorm1d(3, affine=False, track_running_stats=False).eval()
    for rank in range(2):
        expected = layer(randn(4, 3, seed=rank, dtype=torch.float32))
        torch.testing.assert_close(parts[rank]["untracked eval"], expected)


def test_too_few_values_in_all_are_refused_in_every_process(parts):
    for part in parts:
        assert "Expected more than 1 value per channel" in part["errors"]


if __name__ == "__main__":
    process(int(sys.argv[1]), sys.argv[2])
