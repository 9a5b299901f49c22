"""One rule of intensity a dataset, which goes where its detector goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_tools.__main__ import main as data_tools
from data_tools.dataset.intensity import Intensity
from data_tools.dataset.manifest import read_manifest
from data_tools.errors import run_command
from data_tools.sources.ctc import Ctc
from data_tools.sources.images import Images, find_images, read_image
from data_tools.storage import open_storage
from tests.support.checks import refuses
from tests.support.odd_images import GREY, RAMP, SIDE


def twelve_bits(folder: Path) -> Path:
    """Three bright images of a camera of 12 bits, and three that are dim."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(6):
        scale = 4095 if number < 3 else 409
        tifffile.imwrite(
            folder / f"{number}.tif", (np.clip(rng.normal(0.5, 0.15, (64, 64)), 0, 1) * scale).astype("u2")
        )
    return folder


def test_twelve_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Images(twelve_bits(tmp_path / "in"), resolution=64).plan()
    stack = np.concatenate([tifffile.imread(tmp_path / "in" / f"{number}.tif").ravel() for number in range(6)])
    low, high = (float(np.percentile(stack, share, method="inverted_cdf")) for share in (0.1, 99.9))
    assert plan.intensity == Intensity(low, high)
    told = capsys.readouterr().err
    assert f"{low:g} becomes 0 and {high:g} becomes 255" in told
    assert "warning: 3 of 6 images that were looked at keep fewer than 64 grey levels" in told
    for patch, number in zip(plan.patches(), range(6)):
        raw = tifffile.imread(tmp_path / "in" / f"{number}.tif").astype(float)
        expected = np.rint(np.clip((raw - low) / (high - low), 0, 1) * 255)
        assert np.abs(patch.image[:, :, 0] - expected).max() <= 1  # the same line for all, the dim ones stay dim
        assert len(np.unique(patch.image)) > (200 if number < 3 else 15)


def test_intensity_is_recorded_and_the_same_whoever_cuts(tmp_path: Path) -> None:
    images = str(twelve_bits(tmp_path / "in"))
    for name, words in {"a": [], "b": ["--processes", "2", "--samples-per-shard", "2"], "c": []}.items():
        made = ["images", images, "--out", str(tmp_path / name), "--resolution", "8", *words]
        assert run_command(data_tools, made) == 0
    manifests = {name: read_manifest(open_storage(str(tmp_path / name))) for name in "abc"}
    assert manifests["a"].intensity == manifests["b"].intensity != None  # noqa: E711
    assert [shard.sha256 for shard in manifests["a"].shards] == [shard.sha256 for shard in manifests["c"].shards]
    facts = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert facts["format_version"] == 2 and facts["source"]["intensity"] == "auto"
    assert run_command(data_tools, ["images", images, "--out", str(tmp_path / "d"), "--resolution", "8",
                                    "--intensity", "0,4095"]) == 0  # fmt: skip
    facts = json.loads((tmp_path / "d" / "manifest.json").read_text())
    assert facts["intensity"] == [0, 4095]


def test_images_of_eight_bits_stay_and_their_dataset_is_readable_for_older_programs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        Image.fromarray(GREY // 2 + number).save(tmp_path / "in" / f"{number}.png")
    assert (
        run_command(data_tools, ["images", str(tmp_path / "in"), "--out", str(tmp_path / "d"), "--resolution", "16"])
        == 0
    )
    facts = json.loads((tmp_path / "d" / "manifest.json").read_text())
    assert facts["format_version"] == 1 and facts["intensity"] is None
    fixed = Images(tmp_path / "in", resolution=16, intensity="0,4095").plan()
    assert np.array_equal(next(fixed.patches()).image[:, :, 0], GREY // 2)


@pytest.mark.parametrize("option", ["", "auto,", "1", "1,1", "2,1", "a,b", "0,inf", "nan,1", "1,2,3"])
def test_what_no_intensity_is(tmp_path: Path, option: str) -> None:
    twelve_bits(tmp_path)
    refuses(Images(tmp_path, intensity=option).plan, "--intensity is", "LOW,HIGH")
    refuses(Ctc(tmp_path, intensity=option).plan, "--intensity is", "LOW,HIGH")


@pytest.mark.parametrize(
    "value", [1, "auto", [], [1], [2, 1], [1, "2"], [True, 2], [0, 10**400], [0, float("nan")], {}]
)
def test_what_no_intensity_of_a_manifest_is(value: Any) -> None:
    with pytest.raises(ValueError, match="intensity"):
        Intensity.from_json(value)
    assert Intensity.from_json(None) is None


def test_kinds_of_values_that_no_line_fits_are_refused(tmp_path: Path) -> None:
    for number in range(3):
        tifffile.imwrite(tmp_path / f"{number}.tif", RAMP.astype(np.float32))
    tifffile.imwrite(tmp_path / "3.tif", np.rint(RAMP * 65535).astype(np.uint16))
    refuses(Images(tmp_path, resolution=16).plan, "0.tif", "float32", "3.tif uint16", "--intensity")
    assert len(list(Images(tmp_path, resolution=16, intensity="0,1").plan().patches())) == 4


def test_an_image_unlike_those_that_were_looked_at_is_refused_where_it_is_cut(tmp_path: Path) -> None:
    for number in range(100):
        Image.fromarray(GREY).save(tmp_path / f"{number:03d}.png")
    (tmp_path / "050.png").unlink()
    tifffile.imwrite(tmp_path / "050.tif", np.rint(RAMP * 65535).astype(np.uint16))
    plan = Images(tmp_path, resolution=16).plan()
    assert plan.intensity is None
    refuses(lambda: list(plan.patches()), "050.tif", "holds uint16 values", "--intensity LOW,HIGH")


def test_floats_are_not_stretched_one_by_one(tmp_path: Path) -> None:
    for number, scale in enumerate((1.0, 0.5, 0.25)):
        tifffile.imwrite(tmp_path / f"{number}.tif", (-2 + 6 * scale * RAMP).astype(np.float32))
    first, second, third = (patch.image[:, :, 0] for patch in Images(tmp_path, resolution=16).plan().patches())
    assert first.max() == 255 and abs(int(second.max()) - 128) <= 1 and abs(int(third.max()) - 64) <= 1


def test_colour_of_sixteen_bits_keeps_its_contrast(tmp_path: Path) -> None:
    """Pillow keeps the upper 8 of 16 bits in colour."""
    deep = np.dstack([np.rint(RAMP * 4095).astype(np.uint16)] * 3)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    tifffile.imwrite(tmp_path / "b.tif", deep, photometric="rgb")
    for name in ("a.png", "b.tif"):
        found = read_image(tmp_path / name, SIDE, 3, Intensity(0, 4095))
        assert np.array_equal(found, np.dstack([GREY] * 3)), name
        assert len(np.unique(read_image(tmp_path / name, SIDE, 3))) == 16  # as old checkpoints have it


def test_one_line_for_all_sequences(tmp_path: Path) -> None:
    for sequence, scale in (("01", 1000), ("02", 4000)):
        (tmp_path / sequence).mkdir()
        (tmp_path / f"{sequence}_GT/SEG").mkdir(parents=True)
        mask = np.zeros((64, 64), np.uint16)
        mask[30:34, 30:34] = 1
        for number in range(3):
            ramp = np.linspace(0, scale, 64)[None].repeat(64, 0).astype(np.uint16)
            tifffile.imwrite(tmp_path / sequence / f"t{number:03d}.tif", ramp)
            tifffile.imwrite(tmp_path / f"{sequence}_GT/SEG/man_seg{number:03d}.tif", mask)
    plan = Ctc(tmp_path, resolution=64, rotations=0, test_size=1, split="object").plan()
    assert plan.intensity == Intensity(0, 4000)
    tops = {patch.provenance["sequence"]: int(patch.image.max()) for patch in plan.patches()}
    assert tops == {"01": 64, "02": 255}
    fixed = Ctc(tmp_path, resolution=64, rotations=0, test_size=1, split="object", intensity="0,65535").plan()
    assert fixed.intensity == Intensity(0, 65535) and max(patch.image.max() for patch in fixed.patches()) == 16


@settings(max_examples=50, deadline=None)
@given(
    low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6), name=st.sampled_from(["u2", "i2", "i4", "u4", "f4", "f8"]),
    seed=st.integers(0, 99), side=st.sampled_from([3, 300]),
)  # fmt: skip
def test_the_line_is_the_line(low: float, width: float, name: str, seed: int, side: int) -> None:
    """By the table, for many values of 16 bits, as without it."""
    dtype = np.dtype(name)
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**16, (side, side), dtype=np.uint16).astype(dtype, casting="unsafe")
    line = Intensity(low, low + width)
    exact = (values.astype(np.float64) - low) * (255 / (line.high - low))
    expected = np.rint(np.clip(exact, 0, 255))
    found = line.eight_bit(values)
    assert found.dtype == np.uint8 and np.abs(found - expected).max() <= (np.abs(exact % 1 - 0.5).min() < 1e-6)
    assert Intensity.from_json(json.loads(json.dumps(line.to_json()))) == line


# The rule goes where the detector goes


def test_a_detector_reads_images_as_its_dataset_was_made(tmp_path: Path) -> None:
    from cluster.images import Unit
    from cluster.unit_table import score_unit
    from tests.support.runs import TINY
    from trainer.__main__ import main as trainer
    from trainer.commands.export import Export
    from trainer.export import standalone
    from trainer.run.checkpoint import newest_checkpoint, read_info
    from trainer.scoring.criterion import Criterion
    from trainer.scoring.detector import Detector

    data, run, images = str(tmp_path / "data"), str(tmp_path / "run"), twelve_bits(tmp_path / "in")
    for number in range(6, 70):
        values = np.random.default_rng(number).integers(100, 3000, (16, 16)).astype(np.uint16)
        tifffile.imwrite(images / f"{number}.tif", values)
    assert run_command(data_tools, ["images", str(images), "--out", data, "--resolution", "8"]) == 0
    assert run_command(trainer, ["train", "--data", data, "--out", run, "--cache", str(tmp_path / "cache"), *TINY]) == 0
    line = read_manifest(open_storage(data)).intensity
    info = read_info(newest_checkpoint(run))
    detector = Detector.load(run, Criterion(by="a"))
    assert line and info.intensity == detector.intensity == line
    assert json.loads(Path(info.url, "checkpoint.json").read_text())["format_version"] == 4
    # Scoring sees what training saw.
    raw = tifffile.imread(images / "7.tif")
    seen = np.stack([patch.image for patch in Images(images, resolution=8).plan().patches()])
    scores = detector.score(seen).score
    words = [
        "score",
        run,
        str(images),
        "--by",
        "a",
        "--out",
        str(tmp_path / "s.csv"),
        "--cache",
        str(tmp_path / "cache"),
    ]
    assert run_command(trainer, words) == 0
    rows = [line.split(",") for line in (tmp_path / "s.csv").read_text().splitlines()[1:]]
    by_name = {Path(row[0]).name: float(row[1]) for row in rows}
    for path, score in zip(find_images(images), scores, strict=True):
        assert by_name[path.name] == pytest.approx(score, rel=1e-5)
    unit = Unit("files", tuple(path.name for path in find_images(images)))
    many = score_unit(open_storage(str(images)), unit, detector, heatmaps=False).table["score"].to_pylist()
    assert many == pytest.approx(scores.tolist(), rel=1e-5)
    # So does what is carried away.
    folder = tmp_path / "carried"
    folder.mkdir()
    calibrated = Detector.load(run, Criterion(by="a", false_alarms=0.1), cache=str(tmp_path / "cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.export.formats.write_model", lambda *_: (folder / "model.onnx").write_bytes(b"-"))
        Export(run, str(folder))._write(folder, calibrated, info.url)
    facts = json.loads((folder / "detector.json").read_text())
    assert facts["intensity"] == line.to_json()
    carried = object.__new__(standalone.Detector)
    carried.facts = facts
    assert np.array_equal(carried._eight_bit(raw[None]), line.eight_bit(raw)[None])
    assert np.array_equal(carried._eight_bit(raw[None].astype(np.float32)), line.eight_bit(raw)[None])
    assert carried._eight_bit(seen) is seen
    with pytest.raises(ValueError, match="NaN or infinite"):
        carried._eight_bit(np.full((1, 8, 8), np.nan))


def test_eight_bits_beside_more_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(2):
        tifffile.imwrite(tmp_path / f"{i}.tif", np.arange(256, dtype=np.uint16).reshape(16, 16) * 16)
        Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / f"{i}.png")
    plan = Images(tmp_path, resolution=16).plan()
    assert "2 of 4 images that were looked at have 8 bits and stay as they are" in capsys.readouterr().err
    images = {patch.provenance["file"]: patch.image.ravel() for patch in plan.patches()}
    assert np.array_equal(images["0.png"], np.arange(256))
    line = plan.intensity
    assert line and np.array_equal(images["0.tif"], line.eight_bit(np.arange(256, dtype=np.uint16) * 16))
