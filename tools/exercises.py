"""Exercises: one source for the page, the student's notebook and the instructor's.

A source lies in `chapters/exercises/`. An exercise is a heading, its statement, hints, and then

    <details class="solution">
    <summary>Solution</summary>

    a code cell tagged `solution`, its answer between ### BEGIN SOLUTION and ### END SOLUTION,
    and words about it

    </details>

    a code cell tagged `check` and `hide-input`, which all have

    <details class="grading">
    <summary>Further checks, for grading</summary>

    a code cell tagged `grade`

    </details>

nbval runs all of it. The page shows the stub before the closed solution. The student's notebook
has stubs in place of solutions; the checks for grading are left as empty cells, for nbgrader to
fill. Metadata for nbgrader is made from the tags.

usage: python -m tools.exercises FOLDER    write the instructor's notebooks for nbgrader
"""

import re
import sys
from pathlib import Path

STUB = "# YOUR CODE HERE\nraise NotImplementedError()"  # as nbgrader writes it
ON_THE_PAGE = """\
The buttons at the top open or download the notebook with these stubs. On this page each check
has run on the solution above it.
"""
SOLVED = Path("_build/solved")  # where nbval finds the notebooks with solutions
LATER = "# Further checks run here when the work is graded."
CELL = r"```\{code-cell\} ipython3\n(?::[^\n]*\n)*\n?(?P<code>.*?)^```\n"
SOLUTION = re.compile(
    rf'^<details class="solution">\n.*?(?P<cell>{CELL}).*?^</details>\n', re.M | re.S
)
GRADING = re.compile(
    rf'^<details class="grading">\n.*?(?P<cell>{CELL}).*?^</details>\n', re.M | re.S
)
ANSWER = re.compile(
    r"^(?P<indent> *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION\n?", re.M | re.S
)


def is_exercises(path: Path) -> bool:
    return path.parent.name == "exercises"


def stub(code: str) -> str:
    """A solution cell as the student gets it: every answer raises."""

    def blank(match: re.Match) -> str:
        lines = STUB.splitlines()
        return "".join(f"{match['indent']}{line}\n" for line in lines)

    cleared, n = ANSWER.subn(blank, code.rstrip("\n") + "\n")
    if not n:
        raise ValueError(f"a solution cell has to hold ### BEGIN SOLUTION, but is {code!r}")
    return cleared.rstrip("\n") + "\n"


def for_students(text: str) -> str:
    """The source without solutions, and without the checks for grading."""

    def open_(match: re.Match) -> str:
        return f"```{{code-cell}} ipython3\n:tags: [solution]\n\n{stub(match['code'])}```\n"

    def later(match: re.Match) -> str:
        return f"```{{code-cell}} ipython3\n:tags: [grade]\n\n{LATER}\n```\n"

    return GRADING.sub(later, SOLUTION.sub(open_, text))


def for_instructors(text: str) -> str:
    """The source as nbgrader wants it: cells in the open, hidden tests between its marks."""

    def hide(match: re.Match) -> str:
        code = f"{LATER}\n### BEGIN HIDDEN TESTS\n{match['code']}### END HIDDEN TESTS\n"
        return f"```{{code-cell}} ipython3\n:tags: [grade]\n\n{code}```\n"

    return GRADING.sub(hide, SOLUTION.sub(lambda m: m["cell"], text))


def for_the_page(text: str) -> str:
    """The source with each stub shown before its solution, and what to do with them."""

    def show(match: re.Match) -> str:
        return f"```python\n{stub(match['code'])}```\n\n{match[0]}"

    before, first, after = text.partition("```{code-cell}")
    return f"{before}{ON_THE_PAGE}\n{first}{SOLUTION.sub(show, after)}"


def add_metadata(notebook, stem: str) -> None:
    """Give the cells of a notebook what nbgrader wants to know, made from their tags."""
    number = 0
    for cell in notebook.cells:
        tags = set(cell.metadata.pop("tags", []))
        kind = next((k for k in ("solution", "check", "grade") if k in tags), None)
        if kind is None:
            continue
        number += kind == "solution"
        graded = kind != "solution"
        cell.metadata["nbgrader"] = {
            "cell_type": "code",
            "grade": graded,
            "grade_id": f"{stem}-{number}-{kind}",
            "locked": graded,
            "schema_version": 3,
            "solution": not graded,
            "task": False,
        } | ({"points": 1} if graded else {})
        if graded:  # it names the mistakes, so it stays folded until somebody wants to see it
            cell.metadata["jupyter"] = {"source_hidden": True}


def main(arguments: list[str]) -> int:
    from tools import notebooks

    if len(arguments) != 1:
        print(__doc__.splitlines()[-1], file=sys.stderr)
        return 2
    root = Path.cwd()
    for source in filter(is_exercises, notebooks.sources(root)):
        path = Path(arguments[0]) / source.stem / f"{source.stem}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(notebooks.for_instructors(source, root), encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
