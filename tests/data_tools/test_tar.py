"""The plain part of the tar format, with tarfile as the oracle for both directions."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.dataset.tar import ending, names, packed, unpacked

Files = list[tuple[str, bytes]]
NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=130)
FILES = st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=6)


def tar_by_tarfile(files: Files, format: int) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format) as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o444
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def tar_by_us(files: Files) -> bytes:
    members = b"".join(packed(name, content) for name, content in files)
    return members + ending(len(members))


@given(FILES)
def test_the_same_bytes_as_tarfile_writes(files: Files) -> None:
    assert tar_by_us(files) == tar_by_tarfile(files, tarfile.PAX_FORMAT)


@given(FILES, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_whatever_tarfile_writes_is_read(tmp_path_factory: pytest.TempPathFactory, files: Files, format: int) -> None:
    path = tmp_path_factory.getbasetemp() / "read.tar"
    path.write_bytes(tar_by_tarfile(files, format))
    assert list(unpacked(path)) == files
    assert list(names(path)) == [name for name, _ in files]


def test_folders_and_links_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"pixels")
    (tmp_path / "b.png").symlink_to("a.png")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "c.png").write_bytes(b"more")
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for name in ("a.png", "b.png", "folder"):
            tar.add(tmp_path / name, name)
    assert list(unpacked(tmp_path / "all.tar")) == [("a.png", b"pixels"), ("folder/c.png", b"more")]
    assert list(names(tmp_path / "all.tar")) == ["a.png", "folder/c.png"]


@pytest.mark.parametrize("kept", [0, 100, 512, 800, 1500])
def test_a_broken_tar_is_an_error(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "broken.tar"
    path.write_bytes(tar_by_us([("a.png", b"x" * 1000)])[:kept])
    with pytest.raises(tarfile.TarError):
        list(unpacked(path))
    with pytest.raises(tarfile.TarError):
        list(names(path))
