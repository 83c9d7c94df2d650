"""What a study returns: arrays named by setting and record."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "trained-and-tested study 1"


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Recorded arrays by setting and name, the first axis being the seed.

    ``result["He", "val_loss"]`` has shape (seeds, points), ``result["He", "test_loss"]``
    shape (seeds,): the test set is read once, at the end.

    Attributes:
        arrays: by (setting, name).
        seeds: in the order of the first axis.
        settings: what each setting was, in numbers and words.
        epochs: of the second axis; None where the study counted steps.
    """

    arrays: Mapping[tuple[str, str], np.ndarray]
    seeds: Sequence[int]
    settings: Mapping[str, Mapping[str, Any]]
    epochs: Sequence[int] | None = None

    def __getitem__(self, key: tuple[str, str]) -> np.ndarray:
        if not isinstance(key, tuple) or len(key) != 2:
            raise TypeError(f"result needs [setting, record], but got {key!r}")
        setting, record = key
        if setting not in self.settings:
            raise KeyError(f"no setting {setting!r}; there are {list(self.settings)}")
        if key not in self.arrays:
            raise KeyError(f"no record {record!r}; there are {self.records}")
        return self.arrays[key]

    @property
    def records(self) -> list[str]:
        """Names of what was recorded."""
        return list(dict.fromkeys(name for _, name in self.arrays))

    @property
    def steps(self) -> np.ndarray:
        """Steps taken at each point of the second axis, (points,).

        Raises:
            ValueError: settings took different numbers of steps, because of their batch
                sizes or training sets; ``result[setting, "step"]`` has them.
        """
        rows = np.concatenate([self[name, "step"] for name in self.settings])
        if (rows != rows[0]).any():
            raise ValueError("settings took different steps; see result[setting, 'step']")
        return rows[0]

    @property
    def diverged(self) -> dict[str, np.ndarray]:
        """Which seeds of each setting met a loss that was not finite, (seeds,) bool."""
        return {name: self[name, "diverged"] for name in self.settings}

    def final(self, setting: str, record: str) -> np.ndarray:
        """The record at the end of training, (seeds,) for one that is a number."""
        values = self[setting, record]
        return values if record.startswith("test_") or values.ndim == 1 else values[:, -1]

    def difference(self, setting: str, other: str, record: str) -> np.ndarray:
        """``setting`` minus ``other`` at the end, paired by seed, (seeds,)."""
        return self.final(setting, record) - self.final(other, record)

    def save(self, path: str | os.PathLike) -> None:
        """Write everything into one ``.npz`` file; a file already there is replaced."""
        path = Path(path)
        head = {
            "format": FORMAT,
            "keys": list(self.arrays),
            "seeds": list(self.seeds),
            "settings": self.settings,
            "epochs": self.epochs,
        }
        named = {str(i): array for i, array in enumerate(self.arrays.values())}
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                np.savez_compressed(file, head=np.array(json.dumps(head)), **named)
            part.replace(path)  # whole or not at all
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Result":
        """Read what `save` wrote.

        Raises:
            ValueError: the file is something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                head = json.loads(file["head"].item())
                if head["format"] != FORMAT:
                    raise ValueError(f"its format is {head['format']!r}")
                keys = [tuple(key) for key in head["keys"]]
                arrays = {key: file[str(i)] for i, key in enumerate(keys)}
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(
                f"path has to be a file that Result.save wrote, but got {os.fspath(path)!r}: "
                f"{error}"
            ) from error
        return cls(arrays, head["seeds"], head["settings"], head["epochs"])

    def __repr__(self) -> str:
        """A table: the mean over seeds of every number at the end."""
        names = [n for n in self.records if n not in ("step", "diverged")]
        names = [n for n in names if self.final(next(iter(self.settings)), n).ndim == 1]
        table = [["", *names, "diverged"]]
        for setting in self.settings:
            means = (self.final(setting, name).mean() for name in names)
            lost = self[setting, "diverged"].sum()
            table.append([setting, *(f"{mean:.4g}" for mean in means), str(lost)])
        widths = [max(map(len, column)) for column in zip(*table)]
        lines = (
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in table
        )
        end = f"epoch {self.epochs[-1]}" if self.epochs else "the last step"
        title = f"{len(self.settings)} settings × {len(self.seeds)} seeds, means at {end}"
        return "\n".join([title, *lines])
