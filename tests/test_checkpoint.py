"""Checkpoints: exact, whole or absent, free of code, and plain about what is wrong with them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from data_tools.errors import UserError
from trainer.checkpoint import Networks, has_checkpoint, latest_checkpoint, load_weights, read_info, save_checkpoint
from trainer.config import TrainConfig
from trainer.detector import AnomalyDetector
from trainer.presets import demo

CONFIG = dataclasses.replace(demo(), resolution=8, width=8, gamma=0.02, minibatch={4: 8, 8: 16})
NAMES = ("generator", "critic", "encoder", "ema")


def build(seed: int = 1) -> Networks:
    return Networks.build(CONFIG.resolution, 1, CONFIG.width, seed)


def save(run: Path, seed: int = 1, images_seen: int = 4000) -> Path:
    return save_checkpoint(run, build(seed), CONFIG, images_seen, 8, 0.5, 1, "0123abcd")


def load(folder: Path) -> Networks:
    networks = build(99)
    load_weights(read_info(folder), networks.by_name())
    return networks


def bits(networks: Networks) -> dict[str, bytes]:
    return {
        f"{name}.{key}": value.contiguous().view(torch.uint8).numpy().tobytes()
        for name, network in networks.by_name().items()
        for key, value in network.state_dict().items()
    }


def edit(folder: Path, **changes: Any) -> None:
    """Change checkpoint.json, with checksums that fit the files as they are."""
    file = folder / "checkpoint.json"
    facts = json.loads(file.read_text())
    facts["sha256"] = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")
    }
    file.write_text(json.dumps(facts | changes))


def refuses(folder: Path, file: Path, *words: str) -> None:
    """Loading fails in one line that names the file and says what to do."""
    with pytest.raises(UserError) as caught:
        load(folder)
    message = str(caught.value)
    assert message.startswith(f"{file}: ") and " - " in message and "\n" not in message
    assert all(word in message for word in words), message


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    networks = build()
    with torch.no_grad():
        networks.generator.conv.bias[:3] = torch.tensor([float("nan"), -0.0, 1e-42])
        networks.ema.conv.weight.mul_(3)
    expected = bits(networks)
    laid_out = networks.to(torch.device("cpu"))  # channels last, as in training
    folder = save_checkpoint(tmp_path, laid_out, CONFIG, 4000, 8, 0.5, 1, "0123abcd")
    assert bits(load(folder)) == expected
    info = read_info(folder)
    assert (info.path, info.images_seen, info.resolution, info.alpha) == (folder, 4000, 8, 0.5)
    assert (info.channels, info.dataset_digest, info.config) == (1, "0123abcd", CONFIG)
    without_fade = save_checkpoint(tmp_path, networks, CONFIG, 5000, 8, None, 1, "0123abcd")
    assert read_info(without_fade).alpha is None


def test_a_checkpoint_is_readable_json_beside_tensors_and_nothing_else(tmp_path: Path) -> None:
    folder = save(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["checkpoint.json", *(f"{name}.safetensors" for name in NAMES)]
    )
    facts = json.loads((folder / "checkpoint.json").read_text())
    assert facts["images_seen"] == 4000 and facts["config"]["gamma"] == 0.02
    assert facts["versions"]["torch"] == torch.__version__


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("name", [*(f"{name}.safetensors" for name in NAMES), "checkpoint.json"])
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_in_the_place_of_a_file_is_refused_and_not_run(tmp_path: Path, name: str, kind: str) -> None:
    folder, target = save(tmp_path), tmp_path / "run by the pickle"
    if kind == "torch":
        torch.save({"conv.weight": Bomb(target)}, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(Bomb(target)))
    if name != "checkpoint.json":
        edit(folder)
    refuses(folder, folder / name)
    assert not target.exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_an_altered_byte_is_found(tmp_path: Path, name: str, place: float) -> None:
    folder = save(tmp_path)
    file = folder / f"{name}.safetensors"
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    file.write_bytes(content)
    refuses(folder, file, "checksum")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path)
    (folder / f"{name}.safetensors").unlink()
    refuses(folder, folder / f"{name}.safetensors", "missing")


def test_a_folder_without_checkpoint_json_is_no_checkpoint(tmp_path: Path) -> None:
    folder = save(tmp_path)
    (folder / "checkpoint.json").unlink()
    for place in (folder, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"holds no checkpoint - .*--out") as caught:
            AnomalyDetector.load(place, "cpu")
        assert str(caught.value).startswith(f"{place}: ")


def test_a_truncated_description_is_named_wherever_it_ends(tmp_path: Path) -> None:
    folder = save(tmp_path)
    file = folder / "checkpoint.json"
    text = file.read_text()
    for length in range(0, len(text.rstrip()), 23):
        file.write_text(text[:length])
        refuses(folder, file, "damaged")


@pytest.mark.parametrize("change", [{"config": {}}, {"config": None}, {"config": {"minibatch": []}}, {"sha256": None}])
def test_a_description_of_another_shape_is_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = save(tmp_path)
    edit(folder, **change)
    refuses(folder, folder / "checkpoint.json", "damaged")


def test_a_newer_format_is_named_as_such(tmp_path: Path) -> None:
    folder = save(tmp_path)
    edit(folder, format_version=2, something_new=True)
    refuses(folder, folder / "checkpoint.json", "version 2", "update")


@pytest.mark.parametrize(
    "config", [dataclasses.replace(CONFIG, width=16), dataclasses.replace(CONFIG, resolution=16)], ids=["width", "size"]
)
def test_weights_that_do_not_fit_the_configuration_are_named(tmp_path: Path, config: TrainConfig) -> None:
    folder = save(tmp_path)
    edit(folder, config=config.to_json())
    with pytest.raises(UserError, match=r"ema\.safetensors: does not fit its configuration") as caught:
        AnomalyDetector.load(tmp_path, "cpu")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path)
    (folder / "encoder.safetensors").write_bytes((folder / "generator.safetensors").read_bytes())
    edit(folder)
    refuses(folder, folder / "encoder.safetensors", "does not fit")


@pytest.mark.parametrize("size", [0, 4096, 10_000])
def test_a_failure_while_writing_leaves_nothing_and_spares_what_was_there(tmp_path: Path, size: int) -> None:
    assert max(path.stat().st_size for path in save(tmp_path / "sizes").iterdir()) > 10_000
    with pytest.raises(OSError, match="File too large"), files_no_longer_than(size):
        save(tmp_path / "new")
    assert not any(path.is_file() for path in (tmp_path / "new").rglob("*")) and not has_checkpoint(tmp_path / "new")

    run = tmp_path / "old"
    folder = save(run, images_seen=4000)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for images_seen in (4000, 8000):
        with pytest.raises(OSError), files_no_longer_than(size):
            save(run, seed=2, images_seen=images_seen)
        assert [path.name for path in (run / "checkpoints").iterdir()] == [folder.name]
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_a_killed_writer_left_is_neither_seen_nor_in_the_way(tmp_path: Path) -> None:
    folder = save(tmp_path, images_seen=4000)
    left = tmp_path / "checkpoints" / ".images-000008000.partial"
    left.mkdir()
    (left / "checkpoint.json").write_text("{}")
    assert latest_checkpoint(tmp_path) == folder
    newer = save(tmp_path, images_seen=8000)
    assert latest_checkpoint(tmp_path) == newer != folder and not left.exists()
    assert bits(load(save(tmp_path, seed=2, images_seen=8000))) == bits(build(2)), "saved again, it is replaced"


def test_the_newest_checkpoint_is_the_one_with_most_images(tmp_path: Path) -> None:
    assert not has_checkpoint(tmp_path)
    for images_seen in (900, 1_200_000, 5_280_000, 64_000):
        save(tmp_path, images_seen=images_seen)
    assert has_checkpoint(tmp_path)
    newest = latest_checkpoint(tmp_path)
    assert read_info(newest).images_seen == 5_280_000
    assert latest_checkpoint(str(newest)) == newest


def test_fresh_networks_are_a_function_of_the_seed_alone() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = bits(build(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert bits(build(3)) == first
    assert bits(build(4)) != first


def test_the_average_starts_as_a_copy_of_the_generator_and_does_not_learn() -> None:
    networks = build()
    average, generator = networks.ema.state_dict(), networks.generator.state_dict()
    assert all(torch.equal(average[name], value) for name, value in generator.items())
    assert all(average[name].data_ptr() != value.data_ptr() for name, value in generator.items())
    assert not any(p.requires_grad for p in networks.ema.parameters())
