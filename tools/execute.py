"""Run the notebooks whose outputs are not those of the present sources, then fill the book.

A notebook is fresh while nothing it depends on has changed: its code cells, its claims, `lib/`,
the packages, the seed, the device, the data. Prose is not among them. nbval runs the others,
two at a time; their outputs go into the cache that Jupyter Book reads and into
`_build/settled.json`, which the ledger page and its tests read.

usage: python tools/execute.py
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import nbformat

from lib import claims, data, device
from tools import exercises
from tools import notebooks as twins

BUILD = Path("_build")
EXECUTED = BUILD / "executed"
CACHE = BUILD / ".jupyter_cache"
BY_TESTS = BUILD / "settled_by_tests"  # where tests/claims leaves its records
TIMEOUT = 300  # s a single cell may take; a whole chapter is to take half as long


def digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def surroundings(root: Path) -> str:
    """A hash of all that every notebook depends on."""
    files = sorted((root / "lib").rglob("*.py")) + [
        p for p in (root / "requirements.txt", root / "constraints.txt") if p.is_file()
    ]
    return digest(
        [(str(p.relative_to(root)), p.read_text(encoding="utf-8")) for p in files],
        sys.version,
        metadata.version("torch"),
        str(device.device()),
        device.course_seed(),
        data.has_mnist(),
    )


def claims_of(source: str) -> list:
    """What the claims settled by `source` say, as far as a measurement can disagree."""
    return [
        (c.id, c.verdict, c.predicts, c.measured, c.statement, c.where, c.where_not)
        for c in claims.load().values()
        if c.settled_by == source
    ]


def key_of(path: Path, root: Path, around: str) -> str:
    """A hash of all that the outputs of one notebook depend on."""
    cells = nbformat.read(to_run(path, root), as_version=4).cells
    code = [(c.source, c.metadata) for c in cells if c.cell_type == "code"]
    source = str(path.relative_to(root).with_suffix(".md"))
    return digest(around, code, [str(c) for c in claims_of(source)])


def stale(notebooks: list[Path], root: Path) -> dict[Path, str]:
    """The notebooks to run, each with the key its outputs will have."""
    around = surroundings(root)
    keys = {path: key_of(path, root, around) for path in notebooks}
    return {path: key for path, key in keys.items() if _known_key(path, root) != key}


def _known_key(path: Path, root: Path) -> str | None:
    done = executed(path, root)
    note = done.with_suffix(".key")
    return note.read_text().strip() if done.is_file() and note.is_file() else None


def executed(path: Path, root: Path) -> Path:
    return root / EXECUTED / path.relative_to(root)


def to_run(path: Path, root: Path) -> Path:
    """The notebook that nbval runs for a twin: the twin, or the solved exercises."""
    if not exercises.is_exercises(path):
        return path
    solved = root / exercises.SOLVED / path.relative_to(root)
    text = twins.solved(path.with_suffix(".md"), root)
    if not solved.is_file() or solved.read_text(encoding="utf-8") != text:
        solved.parent.mkdir(parents=True, exist_ok=True)
        solved.write_text(text, encoding="utf-8")
    return solved


def run(todo: dict[Path, str], root: Path) -> int:
    """Run notebooks through nbval; remember the key of each that passed."""
    for path in todo:
        executed(path, root).unlink(missing_ok=True)
        executed(path, root).with_suffix(".key").unlink(missing_ok=True)
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-p", "tools.nbval_plugin", "--nbval-lax"),
        *(f"--nbval-cell-timeout={TIMEOUT}", "-p", "no:cacheprovider", "--tb=short"),
        *(f"--rootdir={root}", "--no-header"),
        *(("-n", str(min(2, len(todo))), "--dist", "loadfile") if len(todo) > 1 else ()),
        *(str(to_run(path, root)) for path in todo),
    ]
    here = str(Path(__file__).resolve().parent.parent)
    paths = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    code = subprocess.run(
        command, cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    ).returncode
    for path, key in todo.items():
        if executed(path, root).is_file():
            executed(path, root).with_suffix(".key").write_text(key + "\n")
    return code


def run_claim_tests(root: Path) -> int:
    """Run the tests that settle claims, unless nothing they depend on has changed."""
    files = sorted((root / "tests" / "claims").glob("*.py"))
    if not any(f.name.startswith("test_") for f in files):
        return 0
    said = [c for f in files for c in claims_of(str(f.relative_to(root)))]
    key = digest(surroundings(root), [f.read_text(encoding="utf-8") for f in files], said)
    note = root / BUILD / "settled_by_tests.key"
    if note.is_file() and note.read_text() == key:
        print("claims: those that tests settle are fresh, none was run")
        return 0
    note.unlink(missing_ok=True)
    shutil.rmtree(root / BY_TESTS, ignore_errors=True)
    print("claims: running the tests that settle some", flush=True)
    code = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/claims", "-n", "2"], cwd=root
    ).returncode
    if not code:
        note.write_text(key)
    return code


def may_wait(claim: claims.Claim) -> bool:
    """Whether a claim may stay unmeasured here: it needs MNIST, and MNIST is not at hand."""
    return claim.needs == "mnist" and not data.has_mnist()


def fill_cache(notebooks: list[Path], root: Path) -> None:
    """Give Jupyter Book the outputs of the executed notebooks, and no others."""
    from jupyter_cache import get_cache
    from jupyter_cache.base import CacheBundleIn

    shutil.rmtree(root / CACHE, ignore_errors=True)
    (root / CACHE).mkdir(parents=True)
    cache = get_cache(str((root / CACHE).resolve()))
    for path in notebooks:
        notebook = nbformat.read(executed(path, root), as_version=4)
        notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
        bundle = CacheBundleIn(notebook, str(path), data={})
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
    cache.db.dispose()


def collect(notebooks: list[Path], root: Path) -> str | None:
    """Write `_build/settled.json`; return what is wrong with it, if anything."""
    found: dict[str, dict] = {}
    for path in notebooks:
        source = str(path.relative_to(root).with_suffix(".md"))
        notebook = json.loads(executed(path, root).read_text(encoding="utf-8"))
        for record in claims.records_of(notebook):
            if record["id"] in found:
                return f"{record['id']} is settled twice, the second time in {source}"
            found[record["id"]] = record | {"settled_by": source}
    for path in sorted((root / BY_TESTS).glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["id"] in found:
            return f"{record['id']} is settled by a chapter and by {record['settled_by']}"
        found[record["id"]] = record
    for claim in claims.load().values():
        told, got = claim.settled_by, found.get(claim.id, {}).get("settled_by")
        if told != "reference" and got != told and not may_wait(claim):
            return f"{claim.id}: claims.yml says settled by {told}, the run says {got}"
    text = json.dumps({"built": time.strftime("%Y-%m-%d"), "claims": found}, indent=1)
    path = root / BUILD / "settled.json"
    if not path.is_file() or json.loads(path.read_text())["claims"] != found:
        path.write_text(text + "\n", encoding="utf-8")
    return None


def main() -> int:
    root = Path.cwd()
    notebooks = sorted((root / "chapters").rglob("*.ipynb"))
    (root / BUILD).mkdir(exist_ok=True)
    todo = stale(notebooks, root)
    if todo:
        names = ", ".join(str(p.relative_to(root)) for p in todo)
        print(f"notebooks: running {names}", flush=True)
        code = run(todo, root)
        if code:
            print("notebooks: a cell failed, so nothing is published", file=sys.stderr)
            return code
    else:
        print(f"notebooks: all {len(notebooks)} are fresh, none was run")
    code = run_claim_tests(root)
    if code:
        return code
    if todo or not (root / CACHE).is_dir():
        fill_cache(notebooks, root)
    problem = collect(notebooks, root)
    if problem:
        print(f"claims: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
