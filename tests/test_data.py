import gzip
import hashlib
import http.server
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pooch
import pytest
import sklearn.datasets
import torch

from lib import data
from lib import mnist as files
from lib.data import Split, breast_cancer, digits, has_mnist, mnist, polynomial, spirals, wine
from lib.device import generator

PARTS = ("train", "val", "test")
TABLES = {"digits": digits, "wine": wine, "breast_cancer": breast_cancer}
SETS = {**TABLES, "spirals": spirals, "polynomial": polynomial}


def equal(a, b, *names):
    names = names or vars(a)
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


def rows(split, part):
    """Samples as hashable rows, with their targets."""
    X, y = getattr(split, f"X_{part}"), getattr(split, f"y_{part}")
    return [
        (tuple(x), *t) for x, t in zip(X.tolist(), y.view(len(y), -1).tolist(), strict=True)
    ]


# --- every set ---


@pytest.mark.parametrize("load", SETS.values(), ids=SETS)
def test_a_seed_is_a_split_bit_for_bit(load):
    torch.manual_seed(1)
    first, before = load(3), torch.get_rng_state()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert equal(first, load(3))
    assert not any(equal(first, load(4), f"X_{part}") for part in PARTS)


@pytest.mark.parametrize("load", SETS.values(), ids=SETS)
def test_loading_leaves_the_global_generator_alone(load):
    before = torch.get_rng_state()
    load(0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("load", SETS.values(), ids=SETS)
def test_sets_share_no_sample(load):
    split = load(0)
    sets = [set(rows(split, part)) for part in PARTS]
    assert sum(len(s) for s in sets) == len(set().union(*sets))


@pytest.mark.parametrize("load", SETS.values(), ids=SETS)
def test_what_a_caller_does_to_a_split_stays_with_them(load):
    split = load(0)
    for tensor in vars(split).values():
        tensor.zero_()
    assert not any(equal(split, load(0), f"X_{part}") for part in PARTS)


@pytest.mark.parametrize("load", SETS.values(), ids=SETS)
@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ValueError), (10**9 + 1, ValueError), (0.5, TypeError)]
)
def test_bad_seed(load, seed, error):
    with pytest.raises(error, match="seed has to be"):
        load(seed)


def test_splits_do_not_reuse_the_numbers_of_weights_and_batch_orders():
    noise = polynomial(5, n=50, noise=1.0, test=50, coefficients=[0.0])
    assert not torch.equal(noise.X_test, 2 * torch.rand(50, 1, generator=generator(5)) - 1)
    assert torch.equal(noise.X_test, 2 * torch.rand(50, 1, generator=generator(10**9 + 5)) - 1)


# --- tables ---


@pytest.mark.parametrize("name", TABLES)
def test_the_three_sets_make_up_the_table(name):
    X, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    options = {"raw": True} if name == "digits" else {"dtype": torch.float64}
    split = TABLES[name](1, **options)
    expected = [(tuple(x), t) for x, t in zip(X.tolist(), y.tolist(), strict=True)]
    assert sorted(row for part in PARTS for row in rows(split, part)) == sorted(expected)


@pytest.mark.parametrize("load", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("sizes", [{}, {"val": 0.1, "test": 0.5}, {"val": 40, "test": 31}])
def test_sizes_are_as_asked_and_every_class_keeps_its_share(load, sizes):
    split = load(2, **sizes)
    y = torch.cat([split.y_train, split.y_val, split.y_test])
    for part, default in (("val", 0.2), ("test", 0.25)):
        size = sizes.get(part, default)
        expected = size if isinstance(size, int) else round(size * len(y))
        assert len(getattr(split, f"y_{part}")) == expected
    for part in PARTS:
        labels = getattr(split, f"y_{part}")
        share = len(labels) * y.bincount() / len(y)
        assert (labels.bincount(minlength=len(share)) - share).abs().max() <= 2


def test_each_sample_is_equally_likely_to_be_held_out():
    """A stratified draw that favoured some samples would leak structure into every study."""
    tests = torch.zeros(178)
    X = torch.from_numpy(sklearn.datasets.load_wine().data)
    for seed in range(200):
        in_test = (X[:, None] == wine(seed, dtype=torch.float64).X_test).all(-1).any(1)
        tests += in_test
    expected = 200 * 44 / 178
    sigma = math.sqrt(expected * (1 - 44 / 178))
    assert (tests - expected).abs().max() < 4.5 * sigma
    assert tests.std() == pytest.approx(sigma, rel=0.25)


def test_classes_get_their_exact_share_on_average():
    """Rounding falls on another class from seed to seed."""
    counts = torch.stack([wine(seed).y_test.bincount() for seed in range(200)]).double()
    share = 44 * torch.tensor([59, 71, 48]) / 178
    assert (counts.mean(0) - share).abs().max() < 0.15
    assert counts.std(0).min() > 0.2


def test_order_within_a_set_is_random():
    y = wine(0).y_train  # the file lists the wines class by class
    changes = (y[1:] != y[:-1]).float().mean()
    assert 0.5 < changes < 0.8  # 0.66 for these classes when the order is random


def test_types_and_ranges():
    split = digits(0)
    assert split.X_train.shape == (989, 64)
    assert {t.dtype for n, t in vars(split).items() if n[0] == "X"} == {torch.float32}
    assert {t.dtype for n, t in vars(split).items() if n[0] == "y"} == {torch.int64}
    assert (split.X_train.min(), split.X_train.max()) == (0, 1)
    assert torch.equal(digits(0, raw=True).X_val, split.X_val * 16)
    assert wine(0).X_train.dtype == torch.float32
    exact = wine(0, dtype=torch.float64)
    assert exact.X_train.dtype == torch.float64
    assert torch.equal(exact.X_test.float(), wine(0).X_test)
    assert wine(0).X_train.shape[1] == 13
    assert breast_cancer(0).X_train.shape[1] == 30


def test_a_smaller_training_set_leaves_the_other_sets_and_stays_stratified():
    full, few = digits(0), digits(0, num_train=100)
    assert equal(full, few, "X_val", "y_val", "X_test", "y_test")
    assert len(few.X_train) == len(few.y_train) == 100
    assert set(rows(few, "train")) < set(rows(full, "train"))
    assert few.y_train.bincount().tolist() == pytest.approx([10] * 10, abs=1)
    assert equal(full, digits(0, num_train=989))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.95])
def test_label_noise_is_on_training_labels_alone_and_at_its_rate(rate):
    clean, noisy = digits(0), digits(0, label_noise=rate)
    assert equal(clean, noisy, "X_train", "X_val", "y_val", "X_test", "y_test")
    assert (clean.y_train != noisy.y_train).sum() == round(rate * 989)
    assert set(noisy.y_train.tolist()) == set(range(10))
    assert equal(noisy, digits(0, label_noise=rate))


def test_wrong_labels_are_spread_over_the_other_classes_and_nested():
    clean, some, more = (digits(0, label_noise=rate).y_train for rate in (0.0, 0.3, 0.6))
    hit = some != clean
    assert torch.equal(some[hit], more[hit])
    shift = (more - clean)[more != clean] % 10
    counts = shift.bincount(minlength=10)[1:]
    assert counts.min() > 0.6 * counts.sum() / 9


def test_wrong_labels_are_spread_over_the_training_set():
    hit = (digits(0).y_train != digits(0, label_noise=0.3).y_train).nonzero().double()
    assert hit.mean() == pytest.approx(989 / 2, rel=0.1)


def test_wrong_labels_may_be_of_classes_that_a_small_training_set_lacks():
    pairs = [
        (digits(s, num_train=1).y_train, digits(s, num_train=1, label_noise=0.9).y_train)
        for s in range(20)
    ]
    assert all(wrong != right for right, wrong in pairs)
    assert {bool(wrong > right) for right, wrong in pairs} == {True, False}


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        (
            {"val": 0.0},
            ValueError,
            r"val has to be a fraction in \(0, 1\) or an int, but got 0.0",
        ),
        ({"val": 1.0}, ValueError, "val has to be a fraction"),
        ({"val": 0}, ValueError, "val has to be between 1 and 1796, but got 0"),
        ({"val": "big"}, TypeError, "val has to be an int, but got 'big'"),
        ({"test": math.nan}, ValueError, "test has to be a fraction"),
        ({"test": 1797}, ValueError, "test has to be between 1 and 1796"),
        ({"val": 0.6, "test": 0.5}, ValueError, "leave training samples, but got 1976 of 1797"),
        ({"num_train": 990}, ValueError, "num_train has to be between 1 and 989, but got 990"),
        ({"num_train": 0}, ValueError, "num_train has to be"),
        ({"num_train": 0.5}, TypeError, "num_train has to be an int"),
        ({"label_noise": 1.0}, ValueError, r"label_noise has to be in \[0, 1\), but got 1.0"),
        ({"label_noise": -0.1}, ValueError, "label_noise has to be"),
        ({"label_noise": math.nan}, ValueError, "label_noise has to be"),
    ],
)
def test_bad_options(options, error, match):
    with pytest.raises(error, match=match):
        digits(0, **options)


def test_integers_cannot_hold_raw_features():
    with pytest.raises(ValueError, match=r"dtype has to be a floating.* got torch.int64"):
        wine(0, dtype=torch.int64)


# --- Split ---


def test_map_changes_every_x_and_no_y():
    split = digits(0)
    mean = split.X_train.mean(0)
    shifted = split.map(lambda X: X - mean)
    assert shifted.X_train.mean(0).abs().max() < 1e-6
    assert torch.equal(shifted.X_test, split.X_test - mean)
    assert equal(split, shifted, "y_train", "y_val", "y_test")
    with pytest.raises(ValueError, match="X_train and y_train have to be of one length"):
        split.map(lambda X: X[1:])


def test_split_is_frozen_moves_and_prints_briefly():
    split = digits(0)
    with pytest.raises(AttributeError):
        split.X_train = None
    moved = split.to("meta")
    assert {t.device.type for t in vars(moved).values()} == {"meta"}
    assert repr(split).startswith("Split(X_train=(989, 64), y_train=(989,), ")
    X, y = torch.zeros(2, 1), torch.zeros(3)
    with pytest.raises(ValueError, match=r"X_test and y_test .* but got 2 and 3"):
        Split(X, y[:2], X, y[:2], X, y)


# --- synthetic sets ---


@pytest.mark.parametrize("num_classes", [2, 3])
def test_spirals_are_balanced_and_on_their_curves(num_classes):
    split = spirals(0, 300, 0.0, num_classes=num_classes)
    assert split.y_train.bincount().tolist() == [300 // num_classes] * num_classes
    radius = split.X_test.norm(dim=1)
    assert radius.max() <= 1 + 1e-6
    turns = split.X_test[:, 1].atan2(split.X_test[:, 0]) / (2 * math.pi)
    off = (turns - radius - split.y_test / num_classes) % 1
    assert torch.minimum(off, 1 - off).max() < 1e-4


def test_polynomial_is_its_formula_plus_noise_of_the_given_size():
    split = polynomial(0, noise=0.3, test=20_000)
    x = split.X_test.double()
    assert split.y_test.shape == x.shape == (20_000, 1)
    noise = split.y_test - (4 * x**3 - 3 * x)
    assert noise.std() == pytest.approx(0.3, rel=0.03)
    assert noise.mean().abs() < 0.01
    assert (x.min(), x.max()) == (pytest.approx(-1, abs=1e-3), pytest.approx(1, abs=1e-3))
    line = polynomial(0, noise=0.0, coefficients=[1.0, 2.0])
    torch.testing.assert_close(line.y_val, 1 + 2 * line.X_val)


@pytest.mark.parametrize("load", [spirals, polynomial])
def test_pairing_over_size_and_noise(load):
    few, many = load(0, n=10), load(0, n=50)
    assert (len(few.X_train), len(many.X_train)) == (10, 50)
    assert equal(few, many, "X_val", "y_val", "X_test", "y_test")
    clean, low, high = (load(0, noise=s) for s in (0.0, 0.1, 0.2))
    name = "X_train" if load is spirals else "y_train"
    base, one, two = (getattr(s, name) for s in (clean, low, high))
    torch.testing.assert_close(two - base, 2 * (one - base), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("load", [spirals, polynomial])
@pytest.mark.parametrize("name", ["n", "val", "test"])
def test_bad_sizes(load, name):
    with pytest.raises(ValueError, match=f"{name} has to be at least 1, but got 0"):
        load(0, **{name: 0})


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: spirals(0, noise=-1.0), "noise has to be finite and at least 0, but got -1.0"),
        (lambda: polynomial(0, noise=math.inf), "noise has to be finite"),
        (lambda: polynomial(0, noise=math.nan), "noise has to be finite"),
        (lambda: spirals(0, num_classes=1), "num_classes has to be at least 2, but got 1"),
        (lambda: polynomial(0, coefficients=[]), "coefficients has to hold at least one"),
    ],
)
def test_bad_synthetic_options(call, match):
    with pytest.raises(ValueError, match=match):
        call()


# --- MNIST: fetching, on a small stand-in served from this machine ---


def idx(tensor, magic=None):
    head = [0x0800 + tensor.ndim if magic is None else magic, *tensor.shape]
    raw = b"".join(value.to_bytes(4, "big") for value in head) + bytes(
        tensor.flatten().tolist()
    )
    return gzip.compress(raw, mtime=0)


def stand_in():
    g = generator(0)
    tensors = []
    for n in (60, 20):
        tensors += [torch.randint(256, (n, 4, 4), generator=g), torch.arange(n) % 10]
    return dict(zip(files.MNIST_MD5, map(idx, tensors), strict=True))


FILES = stand_in()
NAMES = list(FILES)


class Mirror:
    """What a mirror serves, and the paths that it was asked for."""

    def __init__(self):
        self.files, self.asked = dict(FILES), []
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.rsplit("/", 1)[-1]
                mirror.asked.append(name)
                body = mirror.files.get(name)
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(len(FILES[name])))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/mnist/"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def mirrors(monkeypatch):
    pair = [Mirror(), Mirror()]
    monkeypatch.setattr(files, "MNIST_MIRRORS", tuple(mirror.url for mirror in pair))
    md5s = {name: hashlib.md5(raw).hexdigest() for name, raw in FILES.items()}
    monkeypatch.setattr(files, "MNIST_MD5", md5s)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield pair
    for mirror in pair:
        mirror.server.shutdown()
        mirror.server.server_close()


@pytest.fixture
def place(monkeypatch):
    """A folder that others may enter (tmp_path is closed to them), and the two roots in it."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "cache").mkdir()
        monkeypatch.setenv("COURSE_DATA", str(root / "course"))
        monkeypatch.setattr(pooch, "os_cache", lambda project: root / "cache" / project)
        yield root


def course(root):
    return root / "course" / "mnist"


def cache(root):
    return root / "cache" / "trained-and-tested" / "mnist"


def put(folder, files=FILES):
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)


def held(folder):
    return (
        {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}
    )


@contextmanager
def read_only(folder):
    """Make a folder read-only, and stop being root, to whom that means nothing."""
    mode, root = folder.stat().st_mode, os.geteuid() == 0
    folder.chmod(0o555)
    if root:
        try:
            os.seteuid(65534)
            os.listdir(folder)
        except OSError:
            os.seteuid(0)
            pytest.skip("root cannot become somebody who sees the temporary folder")
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(mode)


def load(**options):
    return mnist(0, val=20, **options)


def test_first_call_fetches_the_second_finds(mirrors, place, capfd):
    assert not has_mnist()
    split = load()
    captured = capfd.readouterr()
    assert "B/s" in captured.err  # the progress bar
    assert captured.out == ""
    assert held(course(place)) == FILES
    assert held(cache(place)) == {}
    assert (mirrors[0].asked, mirrors[1].asked) == (NAMES, [])
    assert has_mnist()
    assert equal(split, load())
    assert mirrors[0].asked == NAMES
    assert capfd.readouterr().err == ""


def test_the_split_of_mnist(mirrors, place):
    put(course(place))
    split = load()
    assert split.X_train.shape == (40, 16)
    assert split.X_train.dtype == torch.float32
    assert split.y_train.dtype == torch.int64
    train = gzip.decompress(FILES[NAMES[0]])[16:]
    expected = (torch.tensor(list(train)).view(60, 16) / 255).tolist()
    assert sorted(map(tuple, [*split.X_train.tolist(), *split.X_val.tolist()])) == sorted(
        map(tuple, expected)
    )
    images = {tuple(x): i % 10 for i, x in enumerate(expected)}
    assert [(x, images[x]) for x, _ in rows(split, "train")] == rows(split, "train")
    assert [(x, images[x]) for x, _ in rows(split, "val")] == rows(split, "val")
    assert split.y_val.bincount().tolist() == [2] * 10
    assert split.y_test.tolist() == [k % 10 for k in range(20)]
    assert equal(split, mnist(1, val=20), "X_test", "y_test")
    assert not equal(split, mnist(1, val=20), "X_val")
    few = load(num_train=10)
    assert equal(split, few, "X_val", "y_val")
    assert few.y_train.bincount().tolist() == [1] * 10
    split.X_test.zero_()
    assert load().X_test.max() > 0.9


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:-9], lambda raw: raw[:40] + b"x" + raw[41:], lambda raw: b""],
    ids=["truncated", "altered", "empty"],
)
def test_a_damaged_file_is_fetched_anew(mirrors, place, damage):
    put(course(place), FILES | {NAMES[0]: damage(FILES[NAMES[0]])})
    assert not has_mnist()
    with pytest.raises(FileNotFoundError, match=f"undamaged {NAMES[0]} in"):
        load(download=False)
    load()
    assert held(course(place)) == FILES
    assert mirrors[0].asked == [NAMES[0]]


@pytest.mark.parametrize(
    "served",
    [None, FILES[NAMES[1]][:-4], bytes(len(FILES[NAMES[1]]))],
    ids=["absent", "cut off", "wrong md5"],
)
def test_the_second_mirror_helps_where_the_first_fails(mirrors, place, served):
    mirrors[0].files[NAMES[1]] = served
    load()
    assert held(course(place)) == FILES
    assert mirrors[1].asked == [NAMES[1]]


def test_what_no_mirror_serves_right_is_refused_and_leaves_nothing_behind(mirrors, place):
    for mirror in mirrors:
        mirror.files[NAMES[2]] = FILES[NAMES[2]][:-4] + b"oops"
    with pytest.raises(FileNotFoundError, match="another md5") as caught:
        load()
    assert f"undamaged {NAMES[2]}, {NAMES[3]} in" in str(caught.value)
    assert sorted(held(course(place))) == sorted(NAMES[:2])


def test_without_network_one_clear_error(mirrors, place, monkeypatch):
    for mirror in mirrors:
        mirror.server.shutdown()
        mirror.server.server_close()
    put(course(place), {name: FILES[name] for name in NAMES[:2]})
    with pytest.raises(FileNotFoundError) as caught:
        load()
    message = str(caught.value)
    for part in (
        str(course(place)),
        str(cache(place)),
        *NAMES[2:],
        "COURSE_DATA",
        "ConnectionError",
        *files.MNIST_MIRRORS,
    ):
        assert part in message
    assert NAMES[0] not in message
    assert "\n" not in message
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    monkeypatch.delenv("COURSE_DATA")
    with pytest.raises(FileNotFoundError, match=f"in {cache(place)}, but"):
        load()


def test_offline_means_offline_and_touches_nothing(mirrors, place):
    with pytest.raises(FileNotFoundError, match="download is False"):
        load(download=False)
    assert not has_mnist()
    assert mirrors[0].asked == []
    assert not course(place).exists()
    assert not cache(place).exists()


@pytest.mark.parametrize("variable", [None, ""])
def test_without_the_variable_the_cache_is_used(mirrors, place, monkeypatch, variable):
    if variable is None:
        monkeypatch.delenv("COURSE_DATA")
    else:
        monkeypatch.setenv("COURSE_DATA", variable)
    load()
    assert held(cache(place)) == FILES
    assert not course(place).exists()


def test_a_read_only_folder_is_read(mirrors, place):
    put(course(place))
    with read_only(course(place)):
        load()
    assert mirrors[0].asked == []
    assert not cache(place).exists()


@pytest.mark.parametrize("flaw", ["missing", "damaged"])
def test_a_read_only_folder_is_completed_from_the_cache(mirrors, place, flaw):
    put(course(place), FILES | {NAMES[1]: b"damaged"})
    if flaw == "missing":
        (course(place) / NAMES[1]).unlink()
    (place / "cache").chmod(0o777)
    before = held(course(place))
    with read_only(course(place)):
        load()
        load()
        assert has_mnist()
    assert held(course(place)) == before
    assert held(cache(place)) == {NAMES[1]: FILES[NAMES[1]]}
    assert mirrors[0].asked == [NAMES[1]]


def test_nowhere_to_write_is_said(mirrors, place):
    course(place).mkdir(parents=True)
    (place / "cache").chmod(0o555)
    with read_only(course(place)), pytest.raises(FileNotFoundError, match="no folder to write"):
        load()
    (place / "cache").chmod(0o755)
    assert mirrors[0].asked == []


def test_two_processes_fetch_at_the_same_time(mirrors, place):
    script = (
        "import json, sys, pathlib\n"
        "from lib import data\n"
        "from lib import mnist as files\n"
        "files.MNIST_MD5, files.MNIST_MIRRORS = json.loads(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "print(data.mnist(0, val=20).X_train.double().sum().item())\n"
    )
    arguments = json.dumps([files.MNIST_MD5, files.MNIST_MIRRORS])
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", script, arguments],
            text=True,
            cwd=Path(data.__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in pair:
        assert process.stdout.readline() == "ready\n"
    for process in pair:
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=60) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], results
    expected = load(download=False).X_train.double().sum().item()
    assert [float(out) for out, _ in results] == [expected] * 2
    assert held(course(place)) == FILES


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (
            idx(torch.zeros(2, 3, 3).int(), magic=0x0D03),
            "magic number has to be 0x0803, but got",
        ),
        (idx(torch.zeros(2).int()), "magic number has to be 0x0803, but got 0x0801"),
        (gzip.compress(gzip.decompress(idx(torch.zeros(2, 3, 3).int()))[:-1]), "but got 17"),
        (gzip.compress(gzip.decompress(idx(torch.zeros(2, 3, 3).int())) + b"0"), "but got 19"),
        (gzip.compress(b"\0\0\x08\x03\0\0\0\x01"), "idx"),
        (gzip.compress(b""), "magic number has to be"),
    ],
    ids=["type", "dimensions", "short", "long", "header", "empty"],
)
def test_idx_files_that_contradict_their_header(raw, match):
    with pytest.raises(ValueError, match=match):
        files.parse_idx(raw, 3)


def test_idx_keeps_every_byte_in_place():
    tensor = torch.arange(2 * 3 * 4).view(2, 3, 4)
    assert torch.equal(files.parse_idx(idx(tensor), 3), tensor.to(torch.uint8))


# --- MNIST: the real files ---

real = pytest.mark.skipif(
    not has_mnist(), reason="MNIST is not here: set COURSE_DATA to the folder that holds mnist/"
)


@real
def test_real_mnist():
    split = mnist(0, num_train=5_000, download=False)
    assert [len(getattr(split, f"y_{part}")) for part in PARTS] == [5_000, 10_000, 10_000]
    assert split.X_train.shape == (5_000, 784)
    assert (split.X_train.min(), split.X_train.max()) == (0, 1)
    # The first test images show 7, 2, 1, 0, 4; there are 980 zeros among all 10,000.
    assert split.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert split.y_test.bincount()[0] == 980
    share = torch.tensor([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]) / 60_000
    assert (split.y_val.bincount() - 10_000 * share).abs().max() <= 2
    assert split.X_test.mean().item() == pytest.approx(0.1325, abs=5e-4)
