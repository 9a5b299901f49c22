"""What commands make again: their former files are replaced, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data_tools.errors import UserError
from data_tools.storage import open_storage, write_bytes
from data_tools.storage.output_folder import OutputFolder
from tests.support.checks import refuses
from tests.support.lost import files

PAGES = OutputFolder("a page", re.compile(r"index\.html|fig/[^/]+\.png"), "--out ")


def fill(place: str, *names: str) -> None:
    with PAGES.replaced(place) as folder:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(name, encoding="utf-8")


def test_what_is_made_anew_replaces_its_former_files_and_no_others(out: str) -> None:
    fill(out, "index.html", "fig/a.png", "fig/b.png")
    fill(out, "index.html", "fig/b.png", "fig/c.png")
    assert set(files(out)) == {"index.html", "fig/b.png", "fig/c.png"}
    with pytest.raises(ZeroDivisionError), PAGES.replaced(out) as folder:
        (folder / "index.html").write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    assert files(out)["index.html"] == b"index.html"
    write_bytes(open_storage(out), "thesis.tex", b"years of work")
    refuses(lambda: fill(out, "index.html"), f"--out {out}", "thesis.tex", "not part of a page")
    assert set(files(out)) == {"index.html", "fig/b.png", "fig/c.png", "thesis.tex"}


def test_what_came_while_it_was_made_stays(out: str) -> None:
    with pytest.raises(UserError, match=r"thesis\.tex"), PAGES.replaced(out) as folder:
        (folder / "index.html").write_text("new", encoding="utf-8")
        write_bytes(open_storage(out), "thesis.tex", b"years of work")
    assert files(out) == {"thesis.tex": b"years of work"}


def test_beside_a_folder_that_is_made_anew_nothing_is_left(tmp_path: Path) -> None:
    link, place = tmp_path / "link", tmp_path / "place"
    place.mkdir()
    link.symlink_to(place)
    (place / ".DS_Store").write_bytes(b"")
    fill(str(link), "index.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "place"] and link.is_symlink()
    assert [path.name for path in place.iterdir()] == ["index.html"]
