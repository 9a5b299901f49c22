"""A detector carried away: the folder scores as we do, in a process that has none of our packages, and refuses junk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import Dataset, open_dataset
from tests.support.checks import refuses
from tests.support.tables import read_csv
from trainer.__main__ import main as trainer
from trainer.export import formats, graph
from trainer.export.standalone import Detector as Carried
from trainer.scoring.calibration import HEAT
from trainer.scoring.detector import Detector
from trainer.scoring.heat import blurred_kind

FORMATS = ("onnx", "torch")
TERMS = ("L_n", "L_c", "L_o", "D", "L_k", "L_m", "L_i")
FORBIDDEN = ("ray", "trainer", "data_tools", "sklearn", "matplotlib", "boto3", "PIL", "scipy")


@pytest.fixture(scope="module")
def folders(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The run's detector in each format."""
    place = tmp_path_factory.mktemp("carried")
    for form in FORMATS:
        cache = str(scored.parent / "cache")
        trainer(["export", str(scored), "--out", str(place / form), "--format", form, "--cache", cache])
    return {form: place / form for form in FORMATS}


@pytest.fixture(scope="module")
def judge(scored: Path) -> Detector:
    return Detector.load(str(scored), cache=str(scored.parent / "cache"))


@pytest.fixture(scope="module")
def data(dataset: Path) -> Dataset:
    return open_dataset(str(dataset), open_cache(dataset.parent / "cache"))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("count", [0, 1, 3, 24, 130])
def test_it_scores_as_we_do(folders: dict[str, Path], judge: Detector, data: Dataset, form: str, count: int) -> None:
    tests = np.concatenate([data.images("test-normal"), data.images("test-anomaly")])
    images = np.resize(tests, (count, *tests.shape[1:]))  # 32 x 32 for a detector of 8 x 8
    carried, ours = Carried(folders[form]).score(images), judge.score(images)
    assert len(carried["score"]) == count and carried["heat"].shape == (count, 8, 8)
    for name in TERMS:
        np.testing.assert_allclose(carried[name], ours.terms[name], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(carried["score"], ours.score, rtol=0.05, atol=0.05)  # a rank may turn over
    limit = judge.threshold("false-alarms", 0.01).value
    assert (carried["anomalous"] == (carried["score"] > limit)).all()
    if count:
        assert judge.calibration and judge.calibration.heat
        maps = judge.calibration.heat.applied(judge.inference.maps(images, blurred_kind(HEAT)))
        np.testing.assert_allclose(carried["heat"], maps, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_terms_are_the_same_score(folders: dict[str, Path], judge: Detector, data: Dataset, form: str) -> None:
    ours = judge.score(data.images("test-anomaly"))
    np.testing.assert_allclose(Carried(folders[form]).joined(ours.terms), ours.score, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_it_runs_where_our_packages_cannot_be_found(folders: dict[str, Path], data: Dataset, form: str) -> None:
    images = folders[form].parent / "images.npy"
    np.save(images, data.images("test-normal"))
    out = folders[form].parent / f"{form}.csv"
    # Without the folder of this repository and with every other package of ours and its needs made unfindable.
    blocked = f"import sys; sys.modules.update(dict.fromkeys({FORBIDDEN!r}))"
    script = f"{blocked}; sys.argv = ['score.py', {str(images)!r}, '--out', {str(out)!r}]"
    script += f"; import runpy; runpy.run_path({str(folders[form] / 'score.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], cwd=out.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = read_csv(out)
    assert len(rows) == 12 and set(rows[0]) == {"image", "score", "p_value", "anomalous", *TERMS}
    assert "false alarms" in done.stdout


def test_the_folder_holds_no_image_and_no_path_of_data(folders: dict[str, Path], dataset: Path) -> None:
    assert {path.name for path in folders["onnx"].iterdir()} == {
        *("model.onnx", "detector.json", "calibration.npz", "score.py")
    }
    for path in folders["onnx"].iterdir():
        assert str(dataset).encode() not in path.read_bytes(), path.name
        if path.suffix == ".onnx":  # a torch.export program keeps the lines of its sources for messages
            assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("images", "word"),
    [
        (np.zeros((2, 8, 8, 1), np.float32), "float32"),
        (np.full((2, 8, 8, 1), np.nan), "float64"),
        (np.zeros((2, 8, 8, 1), np.int64), "int64"),
        (np.zeros((2, 8, 8, 1), np.uint16), "uint16"),
        (np.zeros((2, 8, 8, 3), np.uint8), "3 channels"),
        (np.zeros((2, 8, 12, 1), np.uint8), "8x12"),
        (np.zeros((2, 12, 12, 1), np.uint8), "12x12"),
        (np.zeros((2, 4, 4, 1), np.uint8), "4x4"),
        (np.zeros((8, 8), np.uint8), "(8, 8)"),
        ([[1, 2], [3, 4]], "list"),
    ],
)
def test_images_it_cannot_score_are_refused(folders: dict[str, Path], form: str, images: np.ndarray, word: str) -> None:
    with pytest.raises(ValueError, match=r"give uint8, N x 8 x 8 x 1") as caught:
        Carried(folders[form]).score(images)
    assert word in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("form", FORMATS)
def test_constant_and_grey_images_are_scored(folders: dict[str, Path], judge: Detector, form: str) -> None:
    images = np.stack([np.full((8, 8), value, np.uint8) for value in (0, 127, 255)])
    found = Carried(folders[form]).score(images)
    assert np.isfinite(found["score"]).all()
    np.testing.assert_allclose(found["L_n"], judge.score(images[..., None]).terms["L_n"], rtol=1e-4)


@pytest.mark.slow
def test_a_folder_whose_scores_differ_is_not_written(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Off(graph.ScoringGraph):
        def forward(self, images):  # type: ignore[no-untyped-def]
            normalised, *others = super().forward(images)
            return normalised * 1.001, *others

    monkeypatch.setattr(formats, "graph_of", Off)
    words = ["export", str(scored), "--out", str(tmp_path / "carried"), "--format", "torch"]
    refuses(lambda: trainer([*words, "--cache", str(scored.parent / "cache")]), "not written", "0.001", "0.0001")
    assert not list(tmp_path.iterdir())


def test_other_scores_and_thresholds(scored: Path, data: Dataset, judge: Detector, tmp_path: Path) -> None:
    words = [
        "export",
        str(scored),
        "--out",
        str(tmp_path / "a"),
        "--format",
        "torch",
        "--cache",
        str(scored.parent / "cache"),
    ]
    trainer([*words, "--by", "a", "--lam", "0.9", "--contamination", "0.1"])
    images = data.images("test-anomaly")
    expected = judge.inference.values(images).anomaly(0.9)
    np.testing.assert_allclose(Carried(tmp_path / "a").score(images)["score"], expected, rtol=1e-5)
    assert json.loads((tmp_path / "a" / "detector.json").read_text())["by"] == "a"
    refuses(lambda: trainer(words), str(tmp_path / "a"), "not empty")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "packages"), [("onnx", ["numpy", "onnxruntime"]), ("torch", ["numpy", "torch==2.13.0"])]
)
def test_it_scores_in_an_environment_with_its_runtime_and_numpy_alone(
    folders: dict[str, Path], judge: Detector, data: Dataset, tmp_path: Path, form: str, packages: list[str]
) -> None:
    python = tmp_path / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    np.save(tmp_path / "images.npy", data.images("test-anomaly"))
    words = [str(python), str(folders[form] / "score.py"), "images.npy"]
    subprocess.run(words, cwd=tmp_path, env={"PATH": ""}, check=True)
    rows = read_csv(tmp_path / "scores.csv")
    ours = judge.score(data.images("test-anomaly"))
    for name in TERMS:
        np.testing.assert_allclose([float(row[name]) for row in rows], ours.terms[name], rtol=1e-4, atol=1e-6)
