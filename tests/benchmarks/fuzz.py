"""Fuzzing of what comes from outside: whatever it holds, nothing but a UserError comes of it.

    python -m tests.benchmarks.fuzz [--seconds 600] [--only tar ...]

Each target is run for that long, by hypothesis, which gives the smallest input that fails. Files that are nearly right
go deepest: what a writer wrote, with a few values or bytes exchanged.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import dataclasses
import gzip
import hashlib
import io
import json
import lzma
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tifffile
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from data_tools.dataset.cache import open_cache
from data_tools.dataset.exclusion import find_excluded, read_keys
from data_tools.dataset.manifest import read_manifest
from data_tools.dataset.patch import Patch
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.shards import check_shard, read_shard
from data_tools.dataset.tar import names, packed, unpacked
from data_tools.dataset.writer import write_dataset
from data_tools.errors import UserError
from data_tools.sources.baxter import read_tracks
from data_tools.sources.ctc import Ctc
from data_tools.storage import open_storage
from tests.support.checks import plan_of

Target = tuple[st.SearchStrategy[Any], Callable[[Any], object]]
AT_A_TIME = 500
UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
NUMBERS = st.sampled_from([0, -1, 1, 2, 4, 7, 8, 10**9, 2**31, 2**63, 2**80, -(2**80), 0.5, 1e308, True])
ODD = NUMBERS | st.none() | st.text(max_size=20) | st.sampled_from(["../x", "/etc/passwd", "a\nb", "\0", "x" * 300])
JSON = st.recursive(
    ODD, lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=8), part, max_size=4)
)


def edited(*wholes: bytes) -> st.SearchStrategy[bytes]:
    """One of these with a few runs of bytes exchanged, put in or taken out, or anything at all."""
    some = st.binary(max_size=24) | st.sampled_from(
        [b"\xff" * 12, b"\x80" + bytes(11), b"-0000000001\0", b"0" * 11, b"\0"]
    )
    edit = st.tuples(st.floats(0, 1), some, st.integers(0, 600) | st.none())
    return st.builds(_edited, st.sampled_from(wholes), st.lists(edit, max_size=4)) | st.binary(max_size=2000)


def _edited(whole: bytes, edits: list[tuple[float, bytes, int | None]]) -> bytes:
    for where, new, gone in edits:
        at = int(where * len(whole))
        whole = whole[:at] + new + whole[at + (len(new) if gone is None else gone) :]
    return whole


def exchanged(whole: Any) -> st.SearchStrategy[Any]:
    """A document with a few values anywhere in it exchanged, added or gone, or any document."""
    edits = st.lists(st.tuples(st.integers(0, 10**6), JSON, st.sampled_from(["set", "drop", "add"])), max_size=3)
    return edits.map(lambda found: _exchanged(copy.deepcopy(whole), found)) | JSON


def _exchanged(whole: Any, edits: list[tuple[int, Any, str]]) -> Any:
    for number, value, how in edits:
        places = list(_places(whole))
        if not places:
            return whole
        holder, key = places[number % len(places)]
        if how == "set":
            holder[key] = value
        elif how == "drop":
            del holder[key]
        elif isinstance(holder, dict):
            holder[str(value)[:20]] = value
        else:
            holder.append(value)
    return whole


def _places(value: Any) -> Any:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def only_user_errors(*actions: Callable[[], object]) -> None:
    """Every action ends well or with one line."""
    for action in actions:
        try:
            action()
        except UserError as error:
            assert "\n" not in str(error) and " - " in str(error), str(error)


# Targets: a strategy of inputs, and what reads them


def tar(place: Path) -> Target:
    path = _dataset(place / "d") / "train-normal-000000.tar"
    manifest = place / "d/manifest.json"
    facts = json.loads(manifest.read_text(encoding="utf-8"))
    others = [_tar(tarfile.GNU_FORMAT), _tar(tarfile.PAX_FORMAT), packed("n" * 150, b"x") + bytes(1024)]

    def read(content: bytes) -> None:
        path.write_bytes(content)
        for function in (unpacked, names):
            with contextlib.suppress(tarfile.TarError):
                list(function(path))
        sha256 = hashlib.sha256(content).hexdigest()
        shards = [facts["shards"][0] | {"size": len(content), "sha256": sha256}, *facts["shards"][1:]]
        manifest.write_text(json.dumps(facts | {"shards": shards}), encoding="utf-8")

        def shard(function: Any) -> Any:
            storage = open_storage(str(place / "d"))
            return function(storage, read_manifest(storage).shards[0], (8, 1))

        def decoded() -> None:
            dataset = open_dataset(str(place / "d"), open_cache(place / "cache"))
            assert len(dataset.images("train-normal")) == len(dataset.provenance("train-normal")) == 6

        only_user_errors(lambda: shard(check_shard), lambda: list(shard(read_shard)), decoded)
        shutil.rmtree(place / "cache", ignore_errors=True)

    return edited(path.read_bytes(), *others), read


def manifest(place: Path) -> Target:
    path = _dataset(place / "d") / "manifest.json"
    whole = json.loads(path.read_text(encoding="utf-8"))

    def read(content: bytes) -> None:
        path.write_bytes(content)
        dataset = None

        def opened() -> None:
            nonlocal dataset
            dataset = open_dataset(str(place / "d"), open_cache(place / "cache", "1MB"))
            for pool in ("train-normal", "train-anomaly"):
                assert len(dataset.images(pool)) == dataset.count(pool)
            find_excluded(dataset, ["train-normal-1"])

        only_user_errors(opened)

    return exchanged(whole).map(_encoded) | edited(path.read_bytes()), read


def checkpoint(place: Path) -> Target:
    from tests.trainer.test_checkpoint import CONFIG, save
    from trainer.run.checkpoint import checksum, chosen_checkpoint
    from trainer.run.checkpoint import read_info as info_of
    from trainer.run.folder import read_config, read_excluded
    from trainer.run.weights import check_checkpoint
    from trainer.scoring.inference import Inference

    run = place / "run"
    folder = save(run)
    facts = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
    config = CONFIG.to_json() | {"dataset_digest": "0"}
    document = st.one_of(
        exchanged(facts), exchanged(config), exchanged({"checkpoint": folder.name}), exchanged({"x": [1]})
    )
    document = document.map(lambda value: _encoded(value)) | edited((folder / "checkpoint.json").read_bytes())

    def read(content: bytes) -> None:
        for name in ("config.json", "excluded.json", "best.json"):
            (run / name).write_bytes(content)
        with contextlib.suppress(ValueError, AttributeError, RecursionError, TypeError):
            value = json.loads(content)
            content = json.dumps(value | {"checksum": checksum(value)}).encode()
        (folder / "checkpoint.json").write_bytes(content)
        only_user_errors(
            lambda: check_checkpoint(info_of(str(folder))),
            lambda: Inference.load(str(folder), "cpu"),
            lambda: read_config(run),
            lambda: read_excluded(str(run)),
            lambda: Inference.load(chosen_checkpoint(str(run), best=True), "cpu"),
        )

    return document, read


def weights(place: Path) -> Target:
    """Files of tensors, with checksums that fit."""
    from tests.trainer.test_checkpoint import edit, save
    from trainer.run.checkpoint import read_info
    from trainer.run.weights import check_checkpoint
    from trainer.scoring import calibration
    from trainer.scoring.inference import Inference

    folder = save(place / "run")
    path = folder / "ema.safetensors"
    whole = path.read_bytes()
    inference: Any = SimpleNamespace(joined=(), reconstructs=True, resolution=8)

    def read(content: bytes) -> None:
        path.write_bytes(content)
        edit(folder)
        only_user_errors(
            lambda: check_checkpoint(read_info(str(folder))),
            lambda: Inference.load(str(folder), "cpu"),
        )
        with contextlib.suppress(FileNotFoundError):  # of other weights
            only_user_errors(lambda: calibration._read(content, "RUN/c.safetensors", "", inference))

    head = whole[: int.from_bytes(whole[:8], "little") + 8]
    return edited(whole, head, whole[:4000]), read


def tracks(place: Path) -> Target:
    numbers = st.integers(-2, 9) | st.sampled_from([10**9, 10**40, 2**63])
    rows = st.lists(st.lists(numbers, min_size=1, max_size=5), max_size=8)
    text = rows.map(lambda found: "\n".join(" ".join(map(str, row)) for row in found).encode()) | edited(
        b"1 0 3 0\n2 4 5 1\n"
    )

    def read(files: tuple[bytes, bytes, bytes]) -> None:
        for name, content in zip(("res_track.txt", "deaths.txt", "dummy_tracks.txt"), files):
            (place / name).write_bytes(content)
        only_user_errors(lambda: read_tracks(place))

    return st.tuples(text, text, text), read


def ctc(place: Path) -> Target:
    for folder, name in (("01", "t"), ("01_RES", "mask")):
        (place / "c" / folder).mkdir(parents=True)
        for i in range(3):
            image = np.zeros((16, 16), np.uint16)
            image[2:6, 2:6], image[9:13, 9:13] = 1, 2
            tifffile.imwrite(place / "c" / folder / f"{name}{i:03d}.tif", image)
    numbers = st.lists(st.integers(0, 4), min_size=4, max_size=4)
    rows = st.lists(numbers, max_size=5).map(lambda found: "\n".join(" ".join(map(str, row)) for row in found).encode())

    def read(content: bytes) -> None:
        (place / "c/01_RES/res_track.txt").write_bytes(content)
        options = dict(resolution=8, rotations=0, test_size=1, masks="RES", split="track")
        only_user_errors(lambda: list(Ctc(place / "c", **options).plan().patches()))  # type: ignore[arg-type]

    return rows | edited(b"1 0 2 0\n2 0 2 0\n"), read


def exclusion(place: Path) -> Target:
    dataset = open_dataset(str(_dataset(place / "d")), open_cache(place / "cache"))
    lines = st.lists(
        st.text(max_size=20) | st.sampled_from(['"a', '"a" b', "# x", "a#b", "train-normal-1", '"\\ud800"'])
    )
    text = lines.map(lambda found: "\n".join(found).encode("utf-8", "surrogatepass"))

    def read(content: bytes) -> None:
        (place / "list.txt").write_bytes(content)
        only_user_errors(lambda: find_excluded(dataset, read_keys(str(place / "list.txt"))))

    return text | edited(b"# junk\ntrain-normal-1  # 3.2\n"), read


def forms(place: Path) -> Target:
    """Bodies of the service: an answer below 500."""
    from fastapi import HTTPException
    from PIL import Image
    from starlette.requests import Request

    from cluster.serve import DetectorService, Settings

    service: Any = object.__new__(DetectorService.func_or_class)  # type: ignore[attr-defined]
    service.settings = Settings(run="x", max_bytes=10**5, max_pixels=10**5)
    service.detector = SimpleNamespace(resolution=8, channels=1, intensity=None)
    service.reading = service.held = 0
    file = io.BytesIO()
    Image.new("L", (16, 16), 9).save(file, "PNG")
    head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    whole = head + file.getvalue() + b"\r\n" + head + file.getvalue() + b"\r\n--b--\r\n"
    kinds = st.sampled_from(["multipart/form-data; boundary=b", "multipart/form-data", "image/png", "text/plain", ""])

    def read(sent: tuple[str, bytes]) -> None:
        kind, body = sent

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        headers = [(b"content-type", kind.encode("latin-1", "replace"))]
        scope = {"type": "http", "method": "POST", "path": "/score", "query_string": b"", "headers": headers}

        async def answer() -> None:
            for name, content in await service._read(Request(scope, receive)):
                service._decode(name, content)

        try:
            asyncio.run(answer())
        except HTTPException as error:
            assert 400 <= error.status_code < 500, error.status_code

    return st.tuples(kinds | st.text(max_size=40), edited(whole, head, file.getvalue())), read


def archives(place: Path) -> Target:
    """Other people's tars and tables of images, as `cluster score` reads them: every image or a row with an error."""
    import pyarrow
    import pyarrow.parquet

    from cluster.images import Unit, items

    table = pyarrow.table({"key": ["a", "b"], "image": [{"bytes": b"1"}, {"bytes": b"2"}]})
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    tars = [_tar(tarfile.GNU_FORMAT), _tar(tarfile.PAX_FORMAT)]
    packed_tars = [gzip.compress(tars[0]), lzma.compress(tars[0])]

    def read(sent: tuple[str, bytes]) -> None:
        kind, content = sent
        (place / "x").write_bytes(content)
        found = list(items(open_storage(str(place)), Unit(kind, ("x",))))
        assert found and all("\n" not in item.error for item in found)
        keys = [item.key for item in found if item.kind == "image"]
        assert len(set(keys)) == len(keys)

    tar = st.tuples(st.just("tar"), edited(*tars, *packed_tars))
    return tar | st.tuples(st.just("parquet"), edited(file.getvalue())), read


def images(place: Path) -> Target:
    """Image files of every kind: a picture, or one line."""
    from data_tools.sources import formats
    from data_tools.sources.images import decode_image
    from tests.support.odd_images import whole_files

    formats.MAX_PIXELS = 2**16  # or some would take seconds

    def read(content: bytes) -> None:
        only_user_errors(lambda: decode_image(io.BytesIO(content), "a.png", 8, 1))

    return edited(*whole_files()), read


TARGETS: dict[str, Callable[[Path], Target]] = {
    each.__name__: each
    for each in (tar, manifest, checkpoint, weights, tracks, ctc, exclusion, forms, archives, images)
}


def _dataset(place: Path) -> Path:
    rng = np.random.default_rng(0)
    patches = [
        Patch(rng.integers(0, 256, (8, 8, 1), dtype=np.uint8), pool, f"{pool}-{i}", {"frame": i})
        for pool in ("train-normal", "train-anomaly")
        for i in range(6)
    ]
    write_dataset(plan_of(patches), str(place), 8, 1, {}, 6)
    return place


def _tar(form: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as made:
        for name in ("a.png", "ü" * 120 + ".json", "c.png"):
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 700, {"GNU.sparse.size": "700", "comment": "x"}
            made.addfile(member, io.BytesIO(bytes(700)))
    return file.getvalue()


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


@dataclasses.dataclass
class Count:
    """Of inputs tried."""

    inputs: int = 0


def fuzz(name: str, seconds: float) -> int:
    """Try inputs on a target for so long; returns how many. Raises what a reader should not have raised."""
    begun, count = time.monotonic(), Count()
    with tempfile.TemporaryDirectory(prefix="stratagan-fuzz-") as folder:
        inputs, read = TARGETS[name](Path(folder))
        options = settings(
            max_examples=AT_A_TIME,
            deadline=None,
            database=None,
            suppress_health_check=UNHURRIED,
            print_blob=False,
        )
        number = time.time_ns()
        while time.monotonic() - begun < seconds:

            @seed(number)
            @options
            @given(inputs)
            def tried(value: Any) -> None:
                if time.monotonic() - begun < seconds:
                    count.inputs += 1
                    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                        read(value)

            tried()
            number += 1
    return count.inputs


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="for each target")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    options = parser.parse_args(argv)
    for name in options.only:
        found = fuzz(name, options.seconds)
        print(f"{name}: {found:,} inputs in {options.seconds:g} s, nothing but UserError", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
