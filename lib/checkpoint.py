"""Checkpoints: a run that is killed goes on from its last one as if nothing had happened.

A checkpoint holds the states of all that changes while training: model, optimizer, whatever
else has ``state_dict`` and ``load_state_dict``, and generators. Torch's global CPU generator is
always among them. On a GPU, train with a generator: torch's global one there is not saved.
"""

import copy
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

FORMAT = "trained-and-tested checkpoint 1"


def save_checkpoint(path: str | os.PathLike, data: Any = None, **parts: Any) -> None:
    """Write the states of ``parts`` into one file, whole or not at all.

    They go to ``path`` with ".part" added, which then replaces ``path`` in one step. A process
    killed at any moment leaves the old checkpoint or the new one.

    Args:
        path: a file already there is replaced.
        data: numbers, strings and tensors in lists and dicts, for `load_checkpoint` to return.
        parts: by name; generators, or anything with a ``state_dict``.

    Example::

        >>> save_checkpoint("run.pt", epoch, model=model, optimizer=optimizer, generator=g)
        >>> epoch = load_checkpoint("run.pt", model=model, optimizer=optimizer, generator=g)
    """
    parts = _with_global(parts)
    content = {
        "format": FORMAT,
        "kinds": {name: _kind(part) for name, part in parts.items()},
        "states": {name: _state(part) for name, part in parts.items()},
        "data": _plain(data),
    }
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())  # else a power cut could leave the new name and no content
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_checkpoint(path: str | os.PathLike, **parts: Any) -> Any:
    """Give ``parts`` the states that `save_checkpoint` wrote and return its ``data``.

    A model has to print as the saved one did, and other parts have to be of the same class.

    Raises:
        OSError: the file cannot be read, FileNotFoundError if it is not there.
        ValueError: the file is damaged or something else, or of other parts. Then all parts
            are as they were.
    """
    parts = _with_global(parts)
    content = _read(path)
    kinds, states = content["kinds"], content["states"]
    if list(kinds) != list(parts):
        raise ValueError(f"parts have to be {list(kinds)} as in {path}, but got {list(parts)}")
    for name, part in parts.items():
        if _kind(part) != kinds[name]:
            raise ValueError(
                f"{name} has to be what {path} holds, {kinds[name]}, but got {_kind(part)}"
            )
    before = {name: copy.deepcopy(_state(part)) for name, part in parts.items()}
    try:
        for name, part in parts.items():
            _set_state(part, states[name])
    except Exception as error:  # torch loads what fits before it complains of the rest
        for other, part in parts.items():
            _set_state(part, before[other])
        raise ValueError(f"{name} has to fit what {path} holds: {error}") from error
    return content["data"]


def _read(path: str | os.PathLike) -> dict:
    try:
        with zipfile.ZipFile(path) as file:  # torch.load itself does not verify checksums
            if damaged := file.testzip():
                raise ValueError(f"{damaged} is damaged")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
    except OSError:
        raise
    except Exception as error:
        raise ValueError(
            "path has to be a whole file that save_checkpoint wrote, "
            f"but got {os.fspath(path)!r}: {error}"
        ) from error
    return content


def _with_global(parts: dict[str, Any]) -> dict[str, Any]:
    for name, part in parts.items():
        if not isinstance(part, Generator) and not hasattr(part, "load_state_dict"):
            raise TypeError(f"{name} has to be a generator or have a state_dict, got {part!r}")
    return dict(sorted(parts.items())) | {"global generator": torch.default_generator}


def _kind(part: Any) -> str:
    return str(part) if isinstance(part, nn.Module) else type(part).__qualname__


def _state(part: Any) -> Any:
    if isinstance(part, Generator):
        return part.get_state()
    state = part.state_dict()
    return state if isinstance(part, nn.Module) else _plain(state)


def _set_state(part: Any, state: Any) -> None:
    if isinstance(part, Generator):
        part.set_state(state)
    else:
        part.load_state_dict(state)


def _plain(x: Any) -> Any:
    """x with numbers of NumPy, such as a rate from logspace, made into Python's."""
    if isinstance(x, dict):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return type(x)(map(_plain, x))
    return x.item() if hasattr(x, "item") and not isinstance(x, Tensor) else x
