"""Many networks of one architecture as one program.

On a GPU, R networks are one batched network: `torch.func.vmap` over their stacked weights.
A small network leaves a GPU nearly idle, so R of them take little longer than one.

On a CPU, networks run one after another, each through its own module. Batching them would
save nothing there, and it would cost the equality that the course rests on. In a batch, where
a network's numbers lie in memory depends on the networks before it, and results depend on
where numbers lie: matrix products add in another order, and the last few elements that do not
fill a vector register take another path through `sigmoid`. Both change the last bit.

Either way the weights of a network are one row of numbers, so that an optimizer needs a
handful of operations for all parameters together.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from lib.noise import Noise
from lib.train import noise_from

ALIGNMENT = 64  # bytes; torch allocates at multiples of it, and matrix products may care


class Networks:
    """A single network, or a stack of R networks that differ in numbers only.

    Shapes below are those of a stack; a single network has no leading R.

    Args:
        models: modules on the CPU, one per network. They are taken over: a single network
            trains in its own module.
        seeds: of the networks' noise.
        device: where to run.
        stacked: whether to run as one batched program, as on a GPU.

    Attributes:
        weights: all trainable numbers, (R, P).
        gradient: of the loss that `backward` saw last, (R, P).
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        seeds: Sequence[int],
        device: torch.device,
        stacked: bool,
    ):
        self.model = models[0].to(device)
        self.stacked = stacked
        self.steps = 0
        if stacked:
            self.lead = (len(models),)
            self.seeds = torch.tensor(seeds, device=device)
            self.params, self.buffers = stack_module_state([m.to(device) for m in models])
        else:
            self.lead = ()
            self.params, self.buffers = dict(self.model.named_parameters()), {}
        self.trained = [p for p in self.params.values() if p.requires_grad]
        self.weights = self._rows()
        for p, view in zip(self.trained, self._views(self.weights), strict=True):
            p.data = view.copy_(p.detach())
        self.gradient = self._rows()
        self._gradients = self._views(self.gradient)

    def each(self, fn: Callable[..., Any], *data: Tensor) -> Any:
        """Return ``fn(model, *data)`` of every network, stacked to (R, ...).

        Args:
            fn: takes a function from inputs to outputs, and one network's share of the data.
            data: (R, ...) each.
        """
        if not self.stacked:
            return fn(self.model, *data)

        def one(seed: Tensor, state: dict[str, Tensor], *data: Tensor) -> tuple[Any, dict]:
            with Noise(seed, self.steps):
                out = fn(partial(functional_call, self.model, state), *data)
            return out, {name: state[name] for name in self.buffers}

        out, buffers = vmap(one)(self.seeds, self.params | self.buffers, *data)
        self.buffers = {name: buffer.detach() for name, buffer in buffers.items()}
        return out

    def backward(self, loss: Tensor) -> None:
        """Set `gradient` from the networks' losses, (R,), none of which knows the others."""
        gradients = torch.autograd.grad(
            loss, self.trained, torch.ones_like(loss), materialize_grads=True
        )
        torch._foreach_copy_(self._gradients, gradients)
        self.steps += 1

    def inspect(self, fn: Callable[[dict[str, Tensor]], Tensor]) -> Tensor:
        """Return ``fn`` of every network's parameters and buffers by name, (R, ...)."""
        if self.stacked:
            return vmap(fn)(self.params | self.buffers)
        return fn(self.params | dict(self.model.named_buffers()))

    def stack(self, tensors: Sequence[Tensor]) -> Tensor:
        """Bring one tensor per network to the device, as (R, ...)."""
        joined = torch.stack(list(tensors)) if self.stacked else tensors[0]
        return joined.to(self.weights.device)

    @contextmanager
    def noise(self, generators: Sequence[torch.Generator]) -> Iterator[None]:
        """Let a single network's noise follow its generator; a stack's is counted instead."""
        if self.stacked:
            yield
        else:
            with noise_from(generators[0], self.weights.device):
                yield

    def _rows(self) -> Tensor:
        """Zeros, (R, P), with room for every trained parameter."""
        like = self.trained[0]
        return like.new_zeros(*self.lead, sum(map(self._room, self.trained)))

    def _views(self, rows: Tensor) -> list[Tensor]:
        """The parts of ``rows`` that belong to each parameter, in the parameter's shape."""
        parts = rows.split([self._room(p) for p in self.trained], dim=-1)
        shapes = [p.shape[len(self.lead) :] for p in self.trained]
        return [
            part[..., : shape.numel()].view(*self.lead, *shape)
            for part, shape in zip(parts, shapes, strict=True)
        ]

    def _room(self, p: Tensor) -> int:
        """How many numbers of a row ``p`` takes, rounded up to `ALIGNMENT`."""
        unit = ALIGNMENT // p.element_size()
        return -(-p.shape[len(self.lead) :].numel() // unit) * unit
