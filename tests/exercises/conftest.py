"""The exercises as their tests see them: cells with a number and a kind, run right here."""

import runpy
from dataclasses import dataclass
from pathlib import Path

import nbformat

from tools import exercises, notebooks

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "chapters" / "exercises").glob("*.md"))
KINDS = ("solution", "check", "grade")


@dataclass
class Cell:
    """A code cell: its exercise (0 before the first), kind ("" for a plain one) and code."""

    number: int
    kind: str
    code: str


class Exercises:
    """One source of exercises, as the notebook that nbval runs."""

    def __init__(self, path: Path):
        self.path, self.text = path, path.read_text(encoding="utf-8")
        self.cells, number = [], 0
        for cell in nbformat.reads(notebooks.solved(path, ROOT), as_version=4).cells:
            if cell.cell_type == "code":
                tags = cell.metadata.get("tags", [])
                kind = next((k for k in KINDS if k in tags), "")
                number += kind == "solution"
                self.cells.append(Cell(number, kind, cell.source))
        self.numbers = range(1, number + 1)

    def cell(self, number: int, kind: str) -> str:
        (found,) = [c.code for c in self.cells if (c.number, c.kind) == (number, kind)]
        return found

    def run(self) -> None:
        """Every cell, as nbval does."""
        space = {}
        for cell in self.cells:
            execute(cell, space)

    def answered(self, answers: dict[int, str]) -> dict:
        """The names that stand after all solutions, some replaced; no check was run."""
        space = {}
        for cell in self.cells:
            if cell.kind in ("", "solution"):
                if cell.kind and cell.number in answers:
                    cell = Cell(cell.number, cell.kind, answers[cell.number])
                execute(cell, space)
        return space

    def wrong(self) -> dict[int, dict[str, tuple[str, str]]]:
        """Typical wrong answers: exercise -> mistake -> (code, what the check has to say)."""
        path = Path(__file__).parent / "wrong" / f"{self.path.stem}.py"
        return runpy.run_path(str(path))["WRONG"] if path.is_file() else {}


def execute(cell: Cell, space: dict) -> None:
    name = f"exercise {cell.number} {cell.kind}".strip()
    exec(compile(cell.code, f"<{name}>", "exec"), space)


def stub(code: str) -> str:
    return exercises.stub(code)
