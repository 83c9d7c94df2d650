"""Make the notebook twin of every MyST source: `chapters/x.md` -> `chapters/x.ipynb`.

The twin is what nbval runs and what people open in Jupyter, Binder or Colab. It carries no
outputs, and the same source gives the same bytes. Of exercises the twin is the student's
version, and nbval runs the solved one. What only the book can show (citations,
numbers from the run, links between pages) is put in words that plain Markdown can.

usage: python -m tools.notebooks [--check | --format]

--check   write nothing, fail if a twin or the format of a code cell is not what it should be
--format  format the code cells of the sources, at a width that the page shows without scrolling
"""

import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
from pybtex.database import parse_file

from tools import exercises

CELL = re.compile(
    r"(?<=^```\{code-cell\} ipython3\n)(?P<tags>(?::[^\n]*\n)*\n?)(?P<code>.*?)(?=^```$)",
    re.M | re.S,
)
COLUMNS = 84
HEADER = re.compile(r"\A---\n.*?format_name: myst.*?\n---\n", re.S)


def sources(root: Path) -> list[Path]:
    """All MyST notebooks below `chapters/`, in order."""
    return [p for p in sorted((root / "chapters").rglob("*.md")) if is_notebook(p)]


def is_notebook(path: Path) -> bool:
    return bool(HEADER.match(path.read_text(encoding="utf-8")))


def twin(source: Path, root: Path) -> str:
    """The text of the twin of a source; of exercises, that for students."""
    text = source.read_text(encoding="utf-8")
    if not exercises.is_exercises(source):
        return _written(_notebook(text, source, root))
    notebook = _notebook(exercises.for_students(text), source, root)
    exercises.add_metadata(notebook, source.stem)
    return _written(notebook)


def solved(source: Path, root: Path) -> str:
    """The text of the notebook with every cell of a source, solutions and all."""
    return _written(_notebook(source.read_text(encoding="utf-8"), source, root))


def for_instructors(source: Path, root: Path) -> str:
    """The text of the notebook of exercises from which nbgrader makes an assignment."""
    text = source.read_text(encoding="utf-8")
    notebook = _notebook(exercises.for_instructors(text), source, root)
    exercises.add_metadata(notebook, source.stem)
    return _written(notebook)


def _notebook(text: str, source: Path, root: Path) -> nbformat.NotebookNode:
    notebook = jupytext.reads(text, fmt="md:myst")
    cells = text.count("```{code-cell}")
    if sum(c.cell_type == "code" for c in notebook.cells) != cells:
        raise SystemExit(f"{source}: jupytext read other code cells than the {cells} it holds")
    names = _names(root)
    for i, cell in enumerate(notebook.cells):
        cell.id = f"{source.stem.replace('_', '-')}-{i:03d}"
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source, names)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]} | {
        "language_info": {"name": "python"}
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _written(notebook: nbformat.NotebookNode) -> str:
    nbformat.validate(notebook)
    return nbformat.writes(notebook, indent=1) + "\n"


def _names(root: Path) -> dict[str, tuple[str, str]]:
    """Citation key -> (authors, year), from references.bib."""
    bib = root / "references.bib"
    if not bib.is_file():
        return {}
    names = {}
    for key, entry in parse_file(str(bib), bib_format="bibtex").entries.items():
        people = [" ".join(p.prelast_names + p.last_names) for p in entry.persons["author"]]
        people = [re.sub(r"[{}]", "", p) for p in people]
        if len(people) > 2:
            people = [f"{people[0]} et al."]
        names[key] = (" and ".join(people), entry.fields["year"])
    return names


def plain(text: str, names: dict) -> str:
    """MyST roles and targets in words that plain Markdown can show."""

    def cite(match: re.Match) -> str:
        keys = [key.strip() for key in match[2].split(",")]
        if unknown := [key for key in keys if key not in names]:
            raise SystemExit(f"notebooks: references.bib has no {', '.join(unknown)}")
        found = [names[key] for key in keys]
        if match[1] == "t":
            return ", ".join(f"{who} ({year})" for who, year in found)
        return "(" + "; ".join(f"{who}, {year}" for who, year in found) + ")"

    text = re.sub(r"\{cite:(t|p)\}`([^`]+)`", cite, text)
    text = re.sub(r"\{glue:text\}`([^`:]+)[^`]*`", r'`numbers["\1"]`', text)
    text = re.sub(r"\{claim\}`([^`]+)`", r"\1", text)
    text = re.sub(r"^\([\w-]+\)=\n", "", text, flags=re.M)
    return re.sub(r"\]\(([\w/.-]*)\.md(#[\w-]+)?\)", r"](\1.ipynb)", text)


def formatted(text: str) -> str:
    """A source with its code cells as ruff formats them."""

    def one(match: re.Match) -> str:
        ruff = [sys.executable, "-m", "ruff", "format", f"--line-length={COLUMNS}", "-"]
        done = subprocess.run(ruff, input=match["code"], capture_output=True, text=True)
        code = match["code"] if done.returncode else done.stdout
        if match["code"].rstrip().endswith(";"):  # it silences the cell, and ruff drops it
            code = code.rstrip().removesuffix(";") + ";\n"
        return match["tags"] + code

    return CELL.sub(one, text)


def _lint(notebook: str, source: Path) -> None:
    """Have ruff look at the solved exercises; of the others it reads the twins themselves."""
    ruff = [sys.executable, "-m", "ruff", "check", "--quiet", "--output-format=concise"]
    name = f"--stdin-filename=solved/{source.stem}.ipynb"
    done = subprocess.run([*ruff, name, "-"], input=notebook, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{source}: {done.stdout}{done.stderr}".rstrip())


def main() -> None:
    if "--format" in sys.argv[1:]:
        for source in sources(Path.cwd()):
            text = source.read_text(encoding="utf-8")
            source.write_text(formatted(text), encoding="utf-8")
    root, check = Path.cwd(), "--check" in sys.argv[1:]
    stale = []
    made = set()
    for source in sources(root):
        path = source.with_suffix(".ipynb")
        made.add(path)
        text = twin(source, root)
        if check:
            written = source.read_text(encoding="utf-8")
            if formatted(written) != written:
                raise SystemExit(f"{source.relative_to(root)}: run `make format`")
            if exercises.is_exercises(source):
                _lint(solved(source, root), source.relative_to(root))
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
            if not check:
                path.write_text(text, encoding="utf-8")
    stale += [p for p in (root / "chapters").rglob("*.ipynb") if p not in made]
    names = ", ".join(str(p.relative_to(root)) for p in stale)
    if check and stale:
        raise SystemExit(f"not what the sources say: {names}. Run `make notebooks`.")
    if stale:
        print(f"notebooks: wrote {names}")


if __name__ == "__main__":
    main()
