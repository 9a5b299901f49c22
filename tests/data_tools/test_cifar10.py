"""CIFAR-10: both versions of the files, the split into pools, and files that are damaged or hostile."""

from __future__ import annotations

import hashlib
import pickle
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_tools.errors import UserError
from data_tools.sources.cifar10 import CLASSES, Cifar10
from data_tools.sources.common import check_resolution, key_part
from tests.support.checks import check_any_part_can_be_cut_elsewhere, refuses
from tests.support.tables import read_csv

REAL = Path(__file__).parents[3] / "shared" / "data" / "cifar10_car"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the CIFAR-10 car data set is not here")
NUMBERS = np.random.default_rng(7)
LABELS = [1, 0, 1, 9, 1, 2, 1, 3, 1, 4]


def rows(count: int = 10) -> np.ndarray:
    return NUMBERS.integers(0, 256, (count, 3072), dtype=np.uint8)


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as the strings of Python 2, as the original files have them."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_string(self, text: str | bytes) -> None:
        raw = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)  # pyright: ignore[reportAttributeAccessIssue]
        self.memoize(text)  # pyright: ignore[reportAttributeAccessIssue]

    dispatch[str] = dispatch[bytes] = save_string  # pyright: ignore[reportArgumentType]


def write_pickle(path: Path, data: object, labels: object, version: str = "python 2") -> None:
    content = {"batch_label": "made up", "labels": labels, "data": data, "filenames": ["x.png"]}
    if version == "python 2":
        with open(path, "wb") as file:
            Python2Pickler(file, protocol=2).dump(content)
        return
    if version == "python 3, bytes":
        content = {key.encode(): value for key, value in content.items()}
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_binary(path: Path, data: np.ndarray, labels: list[int]) -> None:
    np.concatenate([np.array(labels, np.uint8)[:, None], data], axis=1).tofile(path)


def make(folder: Path, version: str = "python 2") -> dict[str, np.ndarray]:
    """Write two training files and a test file of ten images each; return their rows."""
    folder.mkdir(exist_ok=True)
    data = {name: rows() for name in ("data_batch_1", "data_batch_3", "test_batch")}
    for name, array in data.items():
        if version == "binary":
            write_binary(folder / f"{name}.bin", array, LABELS)
        else:
            write_pickle(folder / name, array, LABELS, version)
    return data


@pytest.mark.parametrize("version", ["python 2", "python 3, bytes", "python 3, text", "binary"])
def test_patches_are_the_rows(tmp_path: Path, version: str) -> None:
    data = make(tmp_path, version)
    source = Cifar10(tmp_path, test_size=5)
    patches = list(source.plan().patches())
    assert Counter(patch.pool for patch in patches) == {
        "train-normal": 10,
        "train-anomaly": 10,
        "test-normal": 5,
        "test-anomaly": 5,
    }
    assert len({patch.key for patch in patches}) == len(patches)
    for patch in patches:
        assert patch.image.shape == (source.resolution, source.resolution, source.channels)
        assert patch.image.dtype == np.uint8
        origin = patch.provenance
        row = data[origin["file"].removesuffix(".bin")][origin["row"]]
        red, green, blue = row[:1024], row[1024:2048], row[2048:]
        assert np.array_equal(patch.image[3, 5], [red[3 * 32 + 5], green[3 * 32 + 5], blue[3 * 32 + 5]])
        assert origin["label"] == LABELS[origin["row"]] and origin["class"] == CLASSES[origin["label"]]
        assert patch.pool.endswith("normal" if origin["label"] == 1 else "anomaly")
        assert patch.pool.startswith("test" if origin["file"].startswith("test") else "train")


def test_any_part_can_be_cut_by_another_process(tmp_path: Path) -> None:
    make(tmp_path)
    plan = Cifar10(tmp_path, test_size=5).plan()
    assert {pool: len(drafts) for pool, drafts in plan.drafts.items()} == {
        "train-normal": 10,
        "train-anomaly": 10,
        "test-normal": 5,
        "test-anomaly": 5,
    }
    check_any_part_can_be_cut_elsewhere(plan)
    for pool in plan.drafts:
        keys = [patch.key for patch in plan.patches() if patch.pool == pool]
        assert keys == sorted(keys)


def test_the_drawn_test_images_depend_on_the_seed_alone(tmp_path: Path) -> None:
    make(tmp_path)

    def drawn(seed: int) -> set[str]:
        return {
            patch.key for patch in Cifar10(tmp_path, test_size=3, seed=seed).plan().patches() if "test" in patch.pool
        }

    assert drawn(0) == drawn(0)
    assert len(drawn(0)) == 6
    assert len({frozenset(drawn(seed)) for seed in range(5)}) > 1


def test_another_class_can_be_normal_and_names_come_from_the_file(tmp_path: Path) -> None:
    make(tmp_path)
    names = [f"thing{number}" for number in range(10)]
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, protocol=2))
    patches = list(Cifar10(tmp_path, normal_class="thing9", test_size=1).plan().patches())
    assert {patch.provenance["class"] for patch in patches if patch.pool.endswith("normal")} == {"thing9"}


def test_the_folder_around_the_usual_one_will_do(tmp_path: Path) -> None:
    make(tmp_path / "cifar-10-batches-bin", "binary")
    assert len(list(Cifar10(tmp_path, test_size=5).plan().patches())) == 30


class Attack:
    """Its pickle asks whoever loads it to create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        import os

        return os.system, (f"touch '{self.target}'",)


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    make(tmp_path)
    target = tmp_path / "owned"
    (tmp_path / name).write_bytes(pickle.dumps({b"data": Attack(target), b"labels": LABELS}, protocol=2))
    refuses(Cifar10(tmp_path, test_size=5).plan, name, "system", "do not trust")
    assert not target.exists()
    pickle.loads((tmp_path / name).read_bytes())
    assert target.exists(), "the attack itself works"


def test_wrong_folders_and_options(tmp_path: Path) -> None:
    refuses(Cifar10(tmp_path / "none").plan, "none", "no such folder")
    refuses(Cifar10(tmp_path).plan, str(tmp_path), "data_batch_1")
    make(tmp_path)
    refuses(Cifar10(tmp_path, normal_class="car").plan, "--normal-class", "automobile", "truck")
    refuses(Cifar10(tmp_path).plan, "--test-size is 1000", "at most 5")
    refuses(Cifar10(tmp_path, test_size=0).plan, "--test-size")
    refuses(Cifar10(tmp_path, seed=-1).plan, "--seed")
    refuses(Cifar10(tmp_path, normal_class="horse", test_size=1).plan, "no training image is of class horse")
    write_pickle(tmp_path / "test_batch", rows(), [7] * 10)
    refuses(Cifar10(tmp_path, test_size=5).plan, "test_batch", "0 normal", "download it again")
    (tmp_path / "test_batch").unlink()
    refuses(Cifar10(tmp_path).plan, "test_batch", "missing")


@pytest.mark.parametrize(
    "data, labels",
    [
        (rows()[:, :3071], LABELS),
        (rows().astype(np.float32), LABELS),
        (rows().reshape(10, 3, 32, 32), LABELS),
        (np.zeros((0, 3072), np.uint8), []),
        ([1, 2, 3], LABELS),
        (rows(), LABELS[:9]),
        (rows(), 5),
        (rows(), ["1"] * 10),
        (rows(), [1] * 9 + [10]),
        (rows(), [1] * 9 + [-1]),
        (rows(), [1] * 9 + [10**40]),
    ],
)
def test_wrong_content_of_a_pickle(tmp_path: Path, data: object, labels: object) -> None:
    make(tmp_path)
    write_pickle(tmp_path / "data_batch_3", data, labels)
    refuses(Cifar10(tmp_path, test_size=5).plan, "data_batch_3")


def test_damaged_pickles(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / "data_batch_3"
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole[:1000], whole[:5], b"<html>not found</html>", pickle.dumps([1], 2)):
        path.write_bytes(content)
        refuses(Cifar10(tmp_path, test_size=5).plan, "data_batch_3")
    path.write_bytes(pickle.dumps({b"data": 1, b"fine_labels": []}, 2))
    refuses(Cifar10(tmp_path, test_size=5).plan, "data_batch_3", "'labels'")


def test_damaged_binary_files(tmp_path: Path) -> None:
    make(tmp_path, "binary")
    path = tmp_path / "test_batch.bin"
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole + b"\0"):
        path.write_bytes(content)
        refuses(Cifar10(tmp_path, test_size=5).plan, "test_batch.bin", "3073")
    path.write_bytes(bytes([77]) + whole[1:])
    refuses(Cifar10(tmp_path, test_size=5).plan, "test_batch.bin", "row 0", "77")
    path.write_bytes(whole)
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\n")
    refuses(Cifar10(tmp_path, test_size=5).plan, "batches.meta.txt", "2 class names")


@needs_real
def test_real_counts_and_pixels() -> None:
    expected = {(line["file"], int(line["row"])): line for line in read_csv(REAL / "index.csv")}
    pools: Counter[str] = Counter()
    for patch in Cifar10(REAL).plan().patches():
        pools[patch.pool] += 1
        line = expected[patch.provenance["file"], patch.provenance["row"]]
        assert line["class"] == patch.provenance["class"]
        assert hashlib.md5(patch.image.transpose(2, 0, 1).tobytes()).hexdigest() == line["md5_of_3072_bytes"]
    assert pools == {"train-normal": 5000, "train-anomaly": 1250, "test-normal": 1000, "test-anomaly": 1000}


@needs_real
def test_real_binary_rows_are_rows_of_the_pickles() -> None:
    known = {line["md5_of_3072_bytes"]: line["class"] for line in read_csv(REAL / "index.csv")}
    folder = REAL / "cifar-10-batches-bin"
    count = 0
    for patch in Cifar10(folder, test_size=20).plan().patches():
        assert known[hashlib.md5(patch.image.transpose(2, 0, 1).tobytes()).hexdigest()] == patch.provenance["class"]
        count += 1
    assert count == 200 + 40


@pytest.mark.parametrize("resolution", [-4, 0, 1, 2, 3, 5, 6, 63, 65, 100])
def test_resolutions_that_cannot_be_grown_into(resolution: int) -> None:
    with pytest.raises(UserError, match=f"^--side is {resolution}, .* - give (4|4 or 8|32 or 64|64 or 128)$"):
        check_resolution(resolution, "--side")


def test_resolutions_that_can() -> None:
    for exponent in range(2, 12):
        check_resolution(2**exponent)


@pytest.mark.parametrize(
    "text, piece", [("a.b c", "a-b-c"), ("Zelle_7-x", "Zelle_7-x"), ("äöü", "x"), ("", "x"), ("a" * 99, "a" * 60)]
)
def test_key_parts(text: str, piece: str) -> None:
    assert key_part(text) == piece
