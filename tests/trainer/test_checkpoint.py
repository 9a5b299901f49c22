"""Checkpoints: exact, whole or absent, free of code, and plain about what is wrong with them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from data_tools.errors import UserError
from data_tools.storage import open_storage, read_bytes, write_bytes
from tests.support.runs import bits as last_bits
from tests.support.runs import config_of, cut_back, said, unhurried, upload, words_of
from trainer.__main__ import main as trainer
from trainer.config import TrainConfig
from trainer.networks.progressive import Networks
from trainer.presets import demo
from trainer.run.checkpoint import (
    FORMAT_VERSION,
    DamagedError,
    Snapshot,
    checkpoint_names,
    checksum,
    newest_checkpoint,
    read_info,
    remove_checkpoint,
    write_checkpoint,
)
from trainer.run.resume import find_start
from trainer.run.weights import check_checkpoint, load_weights, read_tensors
from trainer.scoring.inference import Inference

CONFIG = dataclasses.replace(demo(), resolution=8, width=8, gamma=0.02, minibatch={4: 8, 8: 16})
NAMES = ("generator", "critic", "encoder", "ema")
MOMENTS = ("critic_adam", "generator_adam")
FILES = [*(f"{name}.safetensors" for name in (*NAMES, *MOMENTS)), "checkpoint.json"]


def build(seed: int = 1) -> Networks:
    return Networks.build(CONFIG.resolution, 1, CONFIG.width, seed)


def snapshot_of(networks: Networks, images_seen: int = 4000, alpha: float | None = 0.5) -> Snapshot:
    moments = {name: {f"{name}.weight.exp_avg": torch.arange(6.0).view(2, 3)} for name in MOMENTS}
    return Snapshot(images_seen, 8, alpha, 1, "0123abcd", CONFIG, networks.weights() | moments)


def save(run: Path, seed: int = 1, images_seen: int = 4000) -> Path:
    snapshot = snapshot_of(build(seed), images_seen)
    write_checkpoint(str(run), snapshot)
    return run / "checkpoints" / snapshot.name


def load(folder: Path) -> Networks:
    networks, info = build(99), read_info(str(folder))
    check_checkpoint(info)
    load_weights(info, networks.by_name())
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
    facts |= changes
    file.write_text(json.dumps(facts | {"checksum": checksum(facts)}))


def refuses(folder: Path, file: Path, *words: str) -> None:
    """Loading fails in one line that names the file and says what to do, and for which an earlier one serves."""
    with pytest.raises(DamagedError) as caught:
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
    snapshot = snapshot_of(laid_out)
    with torch.no_grad():
        networks.generator.conv.bias.zero_()  # training goes on while a snapshot is written
    write_checkpoint(str(tmp_path), snapshot)
    folder = tmp_path / "checkpoints" / "images-000004000"
    assert bits(load(folder)) == expected
    info = read_info(str(folder))
    assert (info.url, info.name, info.images_seen) == (str(folder), "images-000004000", 4000)
    assert (info.resolution, info.alpha, info.channels) == (8, 0.5, 1)
    assert (info.dataset_digest, info.config) == ("0123abcd", CONFIG)
    moments = read_tensors(info, "critic_adam")
    assert torch.equal(moments["critic_adam.weight.exp_avg"], torch.arange(6.0).view(2, 3))
    write_checkpoint(str(tmp_path), snapshot_of(networks, 5000, None))
    assert read_info(f"{tmp_path}/checkpoints/images-000005000").alpha is None


def test_a_checkpoint_is_readable_json_beside_tensors_and_nothing_else(tmp_path: Path) -> None:
    folder = save(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    facts = json.loads((folder / "checkpoint.json").read_text())
    assert facts["images_seen"] == 4000 and facts["config"]["gamma"] == 0.02
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["format_version"] == 2 < FORMAT_VERSION  # its dataset has no intensity, so older programs read it


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("fits", [False, True], ids=["checksum as it was", "checksum made to fit"])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_in_the_place_of_a_file_is_refused_and_not_run(
    tmp_path: Path, name: str, kind: str, fits: bool
) -> None:
    folder, target = save(tmp_path), tmp_path / "run by the pickle"
    if kind == "torch":
        torch.save({"conv.weight": Bomb(target)}, folder / name)
    else:
        (folder / name).write_bytes(pickle.dumps(Bomb(target)))
    if fits and name != "checkpoint.json":
        edit(folder)
    refuses(folder, folder / name)
    assert not target.exists()


@pytest.mark.parametrize("name", FILES[:-1])
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_an_altered_byte_is_found(tmp_path: Path, name: str, place: float) -> None:
    folder = save(tmp_path)
    alter(folder / name, place)
    refuses(folder, folder / name, "checksum")


def alter(file: Path, place: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    file.write_bytes(content)


def test_an_altered_byte_of_the_description_is_found_wherever_it_is(tmp_path: Path) -> None:
    folder = save(tmp_path)
    file = folder / "checkpoint.json"
    text, unseen = file.read_bytes(), []
    for place in range(0, len(text), 3):
        file.write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
        try:
            check_checkpoint(read_info(str(folder)))
        except UserError as error:  # a newer format version is one as well
            assert " - " in str(error) and "\n" not in str(error) and str(folder) in str(error)
        else:
            unseen.append(text[max(place - 20, 0) : place + 1].decode())
    assert unseen == []


@pytest.mark.parametrize("name", FILES[:-1])
@pytest.mark.parametrize("fits", [False, True], ids=["checksum as it was", "checksum made to fit"])
def test_a_truncated_file_is_named_wherever_it_ends(tmp_path: Path, name: str, fits: bool) -> None:
    folder = save(tmp_path)
    file = folder / name
    content = file.read_bytes()
    for length in (0, 7, 8, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:length])
        if fits:
            edit(folder)
        refuses(folder, file, "no safetensors" if fits else "checksum")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path)
    (folder / name).unlink()
    refuses(folder, folder / name, "missing")


def test_a_network_that_the_description_does_not_list_is_missed(tmp_path: Path) -> None:
    folder = save(tmp_path)
    facts = json.loads((folder / "checkpoint.json").read_text())
    del facts["sha256"]["encoder.safetensors"]
    (folder / "checkpoint.json").write_text(json.dumps(facts | {"checksum": checksum(facts)}))
    refuses(folder, folder / "checkpoint.json", "encoder.safetensors")


def test_a_folder_without_checkpoint_json_is_no_checkpoint(tmp_path: Path) -> None:
    folder = save(tmp_path)
    (folder / "checkpoint.json").unlink()
    for place in (folder, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"holds no checkpoint - .*--out") as caught:
            Inference.load(place, "cpu")
        assert str(caught.value).startswith(f"{place}: ")
    assert checkpoint_names(tmp_path) == [] and checkpoint_names(tmp_path, whole=False) == [folder.name]


def test_a_truncated_description_is_named_wherever_it_ends(tmp_path: Path) -> None:
    folder = save(tmp_path)
    file = folder / "checkpoint.json"
    text = file.read_text()
    for length in range(0, len(text.rstrip()), 23):
        file.write_text(text[:length])
        refuses(folder, file, "damaged")


@pytest.mark.parametrize(
    "change",
    [
        *({"config": value} for value in ({}, None, {"minibatch": []}, [])),
        *({"sha256": value} for value in (None, 7)),
        *({"versions": None}, {"images_seen": "many"}, {"images_seen": None}, {"format_version": "two"}),
    ],
)
def test_a_description_of_another_shape_is_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = save(tmp_path)
    edit(folder, **change)
    refuses(folder, folder / "checkpoint.json", "damaged")


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"3", b"\xff\xfe", b"\0" * 100])
def test_a_description_that_is_something_else_is_damaged(tmp_path: Path, content: bytes) -> None:
    folder = save(tmp_path)
    (folder / "checkpoint.json").write_bytes(content)
    refuses(folder, folder / "checkpoint.json", "damaged")


def test_a_newer_format_is_named_as_such_and_is_no_damage(tmp_path: Path) -> None:
    """Passing it over would train again what a newer version has done."""
    folder = save(tmp_path)
    save(tmp_path, images_seen=2000)
    edit(folder, format_version=FORMAT_VERSION + 1, something_new=True)
    for action in (lambda: load(folder), lambda: find_start(dataclasses.replace(CONFIG, out=str(tmp_path)))):
        with pytest.raises(UserError, match=rf"version {FORMAT_VERSION + 1} is newer.* - update stratagan") as caught:
            action()
        assert not isinstance(caught.value, DamagedError)
        assert str(caught.value).startswith(f"{folder / 'checkpoint.json'}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config", [dataclasses.replace(CONFIG, width=16), dataclasses.replace(CONFIG, resolution=16)], ids=["width", "size"]
)
def test_weights_that_do_not_fit_the_configuration_are_named(tmp_path: Path, config: TrainConfig) -> None:
    folder = save(tmp_path)
    edit(folder, config=config.to_json())
    with pytest.raises(DamagedError, match=r"ema\.safetensors: does not fit its configuration") as caught:
        Inference.load(tmp_path, "cpu")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path)
    (folder / "encoder.safetensors").write_bytes((folder / "generator.safetensors").read_bytes())
    edit(folder)
    refuses(folder, folder / "encoder.safetensors", "does not fit")


@pytest.mark.parametrize("size", [0, 4096, 10_000])
def test_a_failure_while_writing_leaves_no_checkpoint_and_spares_the_others(tmp_path: Path, size: int) -> None:
    assert max(path.stat().st_size for path in save(tmp_path / "sizes").iterdir()) > 10_000
    with pytest.raises(OSError, match="File too large"), files_no_longer_than(size):
        save(tmp_path / "new")
    assert checkpoint_names(tmp_path / "new") == []
    assert not any("partial" in path.name for path in (tmp_path / "new").rglob("*"))

    run = tmp_path / "old"
    folder = save(run, images_seen=4000)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(OSError), files_no_longer_than(size):
        save(run, seed=2, images_seen=8000)
    assert newest_checkpoint(run) == str(folder) and checkpoint_names(run) == [folder.name]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(OSError), files_no_longer_than(size):
        save(run, seed=2, images_seen=4000)
    assert checkpoint_names(run) == [], "half of one and half of another is none"


def test_what_a_killed_writer_left_is_neither_seen_nor_in_the_way(tmp_path: Path) -> None:
    folder = save(tmp_path, images_seen=4000)
    left = tmp_path / "checkpoints" / "images-000008000"
    left.mkdir()
    (left / "generator.safetensors").write_bytes(b"half")
    (left / ".critic.safetensors.partial").write_bytes(b"half")
    assert newest_checkpoint(tmp_path) == str(folder)
    newer = save(tmp_path, images_seen=8000)
    assert newest_checkpoint(tmp_path) == str(newer) != str(folder)
    assert bits(load(save(tmp_path, seed=2, images_seen=8000))) == bits(build(2)), "saved again, it is replaced"


def test_a_checkpoint_is_removed_with_all_that_is_left_of_it(tmp_path: Path) -> None:
    save(tmp_path, images_seen=4000)
    folder = save(tmp_path, images_seen=8000)
    (folder / ".critic.safetensors.partial").write_bytes(b"half")
    remove_checkpoint(str(tmp_path), folder.name)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["images-000004000"]
    remove_checkpoint(str(tmp_path), folder.name)  # of what is gone, nothing happens


def test_the_newest_checkpoint_is_the_one_with_most_images(tmp_path: Path) -> None:
    assert checkpoint_names(tmp_path) == []
    for images_seen in (900, 1_200_000, 5_280_000, 64_000, 12_000_000_000):
        save(tmp_path, images_seen=images_seen)
    newest = newest_checkpoint(tmp_path)
    assert read_info(newest).images_seen == 12_000_000_000
    assert newest_checkpoint(newest) == newest
    assert checkpoint_names(tmp_path)[:2] == ["images-000000900", "images-000064000"]


def test_a_checkpoint_in_s3_is_the_same_and_its_description_comes_last(url: str, tmp_path: Path) -> None:
    snapshot = snapshot_of(build())
    write_checkpoint(url, snapshot)
    place = f"{url}/checkpoints/{snapshot.name}"
    folder = save(tmp_path)
    storage = open_storage(place)
    assert {name: read_bytes(storage, name) for name in storage.names()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    times = dict(storage.tree())
    assert times["checkpoint.json"] == max(times.values())
    assert newest_checkpoint(f"{url}/") == newest_checkpoint(place) == place
    remove_checkpoint(url, snapshot.name)
    assert open_storage(url).tree() == []


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


# Damage, where a training run meets it


def remove(file: Path) -> None:
    file.unlink()


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2])


def alter_one(file: Path) -> None:
    alter(file, 0)


def explode(file: Path) -> None:
    file.write_bytes(pickle.dumps(Bomb(file.parent / "run by the pickle")))


@pytest.mark.parametrize("damage", [truncate, alter_one, remove, explode])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_word(
    full: Path, dataset: Path, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    run = cut_back(full, 96, tmp_path / "run")
    folder = run / "checkpoints" / "images-000000096"
    damage(folder / name)
    config = config_of(words_of(dataset, run, dataset.parent / "cache"))
    start = find_start(config)
    assert start.images_seen == 64 and start.info and start.info.name == "images-000000064"
    assert not (folder / "run by the pickle").exists()
    if name == "checkpoint.json" and damage is remove:
        assert start.notes == ()  # it never was one
        return
    (note,) = start.notes
    assert note.startswith(f"warning: skipped a damaged checkpoint: {folder / name}: ") and "\n" not in note


def test_a_checkpoint_that_lost_its_moments_is_passed_over(full: Path, dataset: Path, tmp_path: Path) -> None:
    """At a phase's end there are none to lose."""
    run = cut_back(full, 96, tmp_path / "run")
    folder = run / "checkpoints" / "images-000000096"
    for name in MOMENTS:
        (folder / f"{name}.safetensors").unlink()
    edit(folder)
    start = find_start(config_of(words_of(dataset, run, dataset.parent / "cache")))
    assert start.images_seen == 64 and not start.has_moments and len(start.notes) == 1


def test_where_all_checkpoints_are_damaged_training_starts_anew(full: Path, dataset: Path, tmp_path: Path) -> None:
    run = cut_back(full, 64, tmp_path / "run")
    for name in checkpoint_names(run):
        truncate(run / "checkpoints" / name / "ema.safetensors")
    start = find_start(config_of(words_of(dataset, run, dataset.parent / "cache")))
    assert (start.images_seen, start.info, len(start.notes)) == (0, None, 2)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "damage"), [("generator_adam.safetensors", alter_one), ("ema.safetensors", truncate)])
def test_a_training_that_passed_over_damage_ends_bit_identical(
    full: Path, dataset: Path, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    run = cut_back(full, 192, tmp_path / "run")
    folder = run / "checkpoints" / "images-000000192"
    damage(folder / name)
    with unhurried():
        trainer(words_of(dataset, run, dataset.parent / "cache"))
    log = (run / "log.txt").read_text()
    assert f"warning: skipped a damaged checkpoint: {folder / name}: " in log and "from 144 images" in log
    assert last_bits(run) == last_bits(full) and said(run) == said(full)
    check_checkpoint(read_info(str(folder)))  # written again


def test_a_damaged_last_checkpoint_of_a_finished_run_is_computed_again(
    full: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(full, tmp_path / "run"))
    truncate(run / "checkpoints" / "images-000000224" / "ema.safetensors")
    with unhurried():
        trainer(words_of(dataset, run, dataset.parent / "cache"))
    assert "skipped a damaged checkpoint" in capsys.readouterr().out
    assert last_bits(run) == last_bits(full)


@pytest.mark.slow
def test_damage_in_s3_is_passed_over_and_the_run_ends_bit_identical(
    full: Path, dataset: Path, tmp_path: Path, url: str
) -> None:
    cut, run = cut_back(full, 192, tmp_path / "run"), f"{url}/run"
    upload(cut, run)
    newest, before = (open_storage(f"{run}/checkpoints/images-{count:09d}") for count in (192, 144))
    config = config_of(words_of(dataset, run, dataset.parent / "cache"))
    target = tmp_path / "run by the pickle"
    write_bytes(newest, "ema.safetensors", pickle.dumps(Bomb(target)))
    start = find_start(config)
    assert start.images_seen == 144 and not target.exists()
    assert start.notes[0].startswith(f"warning: skipped a damaged checkpoint: {newest.url}/ema.safetensors: ")
    before.remove("critic_adam.safetensors")
    assert find_start(config).images_seen == 128
    with unhurried():
        trainer(words_of(dataset, run, dataset.parent / "cache"))
    assert last_bits(run) == last_bits(full) and said(run) == said(full)
