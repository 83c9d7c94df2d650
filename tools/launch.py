"""Stamp the notebooks with the commit they belong to, so that Colab can install the course.

A committed notebook cannot know its own commit, nor the address of the fork it lies in. The
publishing workflow stamps both into the notebooks of the branch `launch`, to which the book's
launch links point. Standard library only: the job that pushes the branch installs nothing.

usage: python tools/launch.py https://github.com/OWNER/REPOSITORY COMMIT
"""

import json
import re
import sys
from pathlib import Path

CELL_ID = "launch"
SOURCE = """\
# On Colab this installs the course as it was when the page was built; elsewhere, nothing.
import os

if "COLAB_RELEASE_TAG" in os.environ:
    %pip install --quiet "trained-and-tested @ git+{repository}@{commit}"
"""


def stamped(text: str, repository: str, commit: str) -> str:
    """The text of a notebook with a first cell that installs the course at a commit.

    A cell stamped before is replaced. Raises ValueError where the address or the commit is
    not one, or where the notebook carries outputs.
    """
    if not re.fullmatch(r"https://[\w.-]+(/[\w.~-]+){2,}", repository):
        raise ValueError(f"repository has to be an https address, but got {repository!r}")
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise ValueError(f"commit has to be 40 hexadecimal digits, but got {commit!r}")
    notebook = json.loads(text)
    cells = [c for c in notebook["cells"] if c.get("id") != CELL_ID]
    if any(c.get("outputs") for c in cells):
        raise ValueError("the notebook carries outputs")
    source = SOURCE.format(repository=repository.removesuffix(".git"), commit=commit)
    first = {
        "cell_type": "code",
        "execution_count": None,
        "id": CELL_ID,
        "metadata": {},
        "outputs": [],
        "source": source.rstrip("\n").splitlines(keepends=True),
    }
    notebook["cells"] = [first, *cells]
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(__doc__.splitlines()[-1], file=sys.stderr)
        return 2
    paths = sorted(Path("chapters").rglob("*.ipynb"))
    try:
        texts = {path: stamped(path.read_text(encoding="utf-8"), *arguments) for path in paths}
    except ValueError as error:
        print(f"launch: {error}", file=sys.stderr)
        return 1
    if not texts:
        print("launch: found no notebook below chapters/", file=sys.stderr)
        return 1
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    print(f"launch: stamped {len(texts)} notebooks with {arguments[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
