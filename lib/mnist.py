"""The four files of MNIST: found, checked, fetched where they are missing, and parsed."""

import functools
import gzip
import hashlib
import math
import os
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor

with warnings.catch_warnings():
    # tqdm misses ipywidgets, which would show nothing in a book; its text bar is what we want
    warnings.simplefilter("ignore")
    import pooch

MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


def has_mnist() -> bool:
    """Return whether `lib.data.mnist` works offline: four files are here, with their md5."""
    return all(_read(name) is not None for name in MNIST_MD5)


def _folders() -> list[Path]:
    """Where MNIST may lie, in the order in which we look and in which we would store it."""
    cache = Path(pooch.os_cache("trained-and-tested")) / "mnist"
    chosen = os.environ.get("COURSE_DATA")
    return [Path(chosen).expanduser() / "mnist", cache] if chosen else [cache]


def _read(name: str) -> bytes | None:
    """Return the bytes of a file that has its md5; what was checked is what gets parsed."""
    for folder in _folders():
        try:
            raw = (folder / name).read_bytes()
        except OSError:
            continue
        if hashlib.md5(raw, usedforsecurity=False).hexdigest() == MNIST_MD5[name]:
            return raw
    return None


def mnist_files(download: bool) -> list[bytes]:
    """Return the files in the order of ``MNIST_MD5``, fetched where needed and allowed."""
    files = {name: _read(name) for name in MNIST_MD5}
    why = "download is False"
    for name in [name for name, raw in files.items() if raw is None] if download else []:
        why = _fetch(name)
        files[name] = _read(name)
        if files[name] is None:
            break  # the next file would only make the reader wait for the same failure
    missing = [name for name, raw in files.items() if raw is None]
    if missing:
        places = " or ".join(str(folder) for folder in _folders())
        raise FileNotFoundError(
            f"MNIST needs undamaged {', '.join(missing)} in {places}, but found none and could "
            f"not fetch them ({why}). Set COURSE_DATA to a folder whose mnist/ holds the files."
        )
    return list(files.values())


def _fetch(name: str) -> str:
    """Fetch one file into the first folder that can be written; return what went wrong."""
    folder = next((folder for folder in _folders() if _writable(folder)), None)
    if folder is None:
        return "no folder to write to"
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=(10, 30))
    problems = []
    for mirror in MNIST_MIRRORS:
        try:
            # Writes beside the target, checks the md5, then renames: other processes and a
            # killed download leave no half file under this name.
            url, known = mirror + name, "md5:" + MNIST_MD5[name]
            pooch.retrieve(url, known, name, folder, downloader=downloader)
            return ""
        except ValueError:
            problems.append(f"{mirror} sent a file with another md5")
        except OSError as error:  # requests' errors are OSErrors
            problems.append(f"{mirror} failed with {type(error).__name__}")
    return ", ".join(problems)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@functools.lru_cache(maxsize=4)
def parse_idx(raw: bytes, ndim: int) -> Tensor:
    """Return the uint8 tensor of a gzipped idx file: magic number, ``ndim`` sizes, bytes."""
    data = gzip.decompress(raw)
    head = 4 * (1 + ndim)
    magic, *shape = (int.from_bytes(data[i : i + 4], "big") for i in range(0, head, 4))
    if magic != 0x0800 + ndim:
        raise ValueError(
            f"idx magic number has to be {0x0800 + ndim:#06x}, but got {magic:#06x}"
        )
    if len(data) - head != math.prod(shape):
        raise ValueError(
            f"idx file has to hold {math.prod(shape)} bytes for {shape}, "
            f"but got {len(data) - head}"
        )
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=head).reshape(shape)
