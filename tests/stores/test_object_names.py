"""Folders of objects: names that cannot be files, a full disk, and what goes up comes down."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from data_tools.errors import UserError
from data_tools.storage.transfer import downloaded, uploaded
from tests.support.answering import Answer, Steady, says, serving, small_store


def objects(names: dict[str, bytes]) -> Callable[[str, str, int], Answer]:
    """A store with these objects."""
    entries = "".join(
        f"<Contents><Key>{quote(name)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<Size>{len(content)}</Size></Contents>"
        for name, content in names.items()
    )
    facts = "<IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>"
    page = f"<ListBucketResult>{facts}{entries}</ListBucketResult>"

    def answer(method: str, path: str, number: int) -> Answer:
        if "list-type=2" in path:
            return Answer(200, page)
        content = names[unquote(path.partition("?")[0]).removeprefix("/bucket/")].decode()
        return Answer(200, content, {"ETag": '"1"'})

    return answer


@pytest.mark.parametrize(
    ("names", "words"),
    [
        pytest.param(
            ("p/a", "p/a/b.png"), ("s3://bucket/p/a: is an object, and a folder of", "rename"), id="file_and_folder"
        ),
        (("p/a/b/c/d.png", "p/a/b"), ("s3://bucket/p/a/b: is an object, and a folder of",)),
        (("p/a/",), ("s3://bucket/p/a/: cannot be a file", "empty", "rename")),
        (("p/a//b.png",), ("s3://bucket/p/a//b.png: cannot be a file", "empty")),
        (("p/../../b.png",), ("s3://bucket/p/../../b.png: cannot be a file", "leads elsewhere")),
        (("p/" + "x" * 256,), ("s3://bucket/p/xxx", "255")),
        (("p/" + "ä" * 128,), ("s3://bucket/p/äää", "255")),
        (("p/a\x1bb.png",), (r"s3://bucket/p/'a\x1bb.png': cannot be a file",)),
        (("p/a\nb.png",), (r"s3://bucket/p/'a\nb.png': cannot be a file",)),
    ],
)
def test_objects_that_cannot_be_files_are_named(names: tuple[str, ...], words: tuple[str, ...], steady: Steady) -> None:
    steady.gives(objects(dict.fromkeys(names, b"x")))
    message = says(lambda: downloaded(Path("s3:/bucket/p")).__enter__(), *words)
    assert tempfile.gettempdir() not in message


def test_marks_of_empty_folders_are_passed_over_and_odd_names_come_through(steady: Steady) -> None:
    steady.gives(objects({"p/a/": b"", "p/a/ä b+%.txt": b"1", "p/-c;&.txt": b"2"}))
    with downloaded(Path("s3:/bucket/p")) as folder:
        found = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.txt")}
    assert found == {"a/ä b+%.txt": "1", "-c;&.txt": "2"}


def test_a_full_disk_names_the_temporary_folder(keyed: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving(objects({"p/a": b"1"})) as made:
        keyed.setenv("AWS_ENDPOINT_URL", made.endpoint)
        with keyed.context() as patched:
            patched.setattr(os, "pwrite", full)
            patched.setattr("data_tools.storage.transfer.FULL", 2**62)
            patched.setattr("data_tools.storage.transfer.cores", lambda: 1)
            says(lambda: downloaded(Path("s3:/bucket/p")).__enter__(), tempfile.gettempdir(), "No space", "TMPDIR")
        with (
            pytest.raises(UserError, match=r"s3://bucket/p/a: .* - give a file"),
            downloaded(Path("s3:/bucket/p")) as f,
        ):
            raise OSError(errno.EISDIR, "Is a directory", str(f / "a"))
        with pytest.raises(OSError, match="/other"), downloaded(Path("s3:/bucket/p")):
            raise OSError(errno.ENOSPC, "No space left on device", "/other")  # what the block writes is not ours


def test_uploaded_names_are_text(keyed: pytest.MonkeyPatch) -> None:
    with serving(small_store) as made:
        keyed.setenv("AWS_ENDPOINT_URL", made.endpoint)
        with uploaded(Path("s3:/bucket/p")) as folder:
            folder.mkdir()
            (folder / os.fsdecode(b"gr\xf6\xdfe.txt")).write_text("x")
    assert [unquote(path) for _, path, _ in made.asked] == [r"/bucket/p/gr\xf6\xdfe.txt"]
