"""The review's page in a real browser: keys, groups, killed servers, two people, half a million images."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from data_tools.dataset.exclusion import read_keys
from tests.support.browser import needs_browser
from tests.support.driven_browser import Browser, Page, driven_browser
from tests.trainer.test_review import ODD, TOKEN, made_up
from trainer.__main__ import main as trainer
from trainer.review.server import ReviewServer, served
from trainer.review.session import Review
from trainer.run.decisions import Decisions

pytestmark = [needs_browser, pytest.mark.slow]
CAPTIONS = (
    "[...document.querySelectorAll('.cell')].filter(c => c.dataset.i && c.querySelector('.tile').style.backgroundImage)"
)
SAVED = "document.getElementById('saved').textContent == 'all saved'"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with driven_browser() as made:
        yield made


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ReviewServer]:
    place = str(tmp_path / "review")
    review = Review("a run", place, made_up(400, 32), Decisions(f"{place}/decisions", "me"), [])
    review.begin()
    made = served(review, TOKEN)
    yield made
    made.shutdown()
    made.server_close()
    review.end()


def ready(page: Page) -> Page:
    """Its first images are there, pictures too."""
    page.until(f"{CAPTIONS}.length > 20 && document.querySelector('.cell.here')")
    return page


def decided(server: ReviewServer, choice: str) -> list[int]:
    return sorted(server.review.table.number[key] for key in server.review.decisions.keys(choice))


def test_keys_decide_one_by_one_and_in_groups_and_take_back(
    browser: Browser, server: ReviewServer, tmp_path: Path
) -> None:
    page = ready(browser.page(server.address))
    page.press("j", "f", "u", "j")
    page.until(SAVED + " && document.getElementById('counts').textContent.startsWith('2 junk, 1 fine, 1 unsure')")
    assert [decided(server, choice) for choice in ("junk", "fine", "unsure")] == [[0, 3], [1], [2]]
    page.press("z", "z")
    page.until(SAVED + " && document.getElementById('counts').textContent.startsWith('1 junk, 1 fine, 0 unsure')")
    page.press("Home", " ", "ArrowRight", "ArrowRight", " ")
    page.until("document.getElementById('chosen').textContent == '2 selected'")
    page.press("u")
    page.until("document.getElementById('counts').textContent.startsWith('0 junk, 1 fine, 2 unsure')")
    page.press("End")
    page.until("document.querySelector('.cell.here')?.dataset.i == 399")
    page.press("j")
    page.until("document.querySelectorAll('[data-decision=junk]').length == 1")
    page.press("Home", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "l")  # and what looks like it
    page.until("document.getElementById('chosen').textContent == '13 selected'")
    page.press("j")
    page.until(SAVED + " && document.getElementById('counts').textContent.startsWith('14 junk')")
    page.value("document.getElementById('column').value = 'sequence', document.getElementById('column').onchange()")
    page.until("document.getElementById('value').options.length == 3")
    page.press("a")
    page.until("document.getElementById('chosen').textContent == '134 selected'")
    page.press("f")
    page.until(SAVED + " && document.querySelectorAll('[data-decision=fine]').length > 20")
    assert len(decided(server, "fine")) >= 134
    shown = np.asarray(Image.open(page.screenshot(tmp_path / "page.png")).convert("RGB"))
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 100, "something is shown"
    dark = np.asarray(Image.open(page.screenshot(tmp_path / "dark.png", dark=True)).convert("RGB"))
    assert shown[-2, -2].min() > 220 and dark[-2, -2].max() < 60


def test_odd_keys_are_text_and_nothing_else(browser: Browser, server: ReviewServer) -> None:
    page = ready(browser.page(server.address))
    shown = page.value("[...document.querySelectorAll('.cell')].slice(0, 8).map(c => c.title)")
    assert shown == [key if key.isprintable() or "\n" in key else "\\x80 no UTF-8" for key in ODD]
    assert page.value("document.querySelectorAll('script').length") == 1
    page.press(*"jjjjjjjj")
    page.until(SAVED + " && document.getElementById('counts').textContent.startsWith('8 junk')")
    server.review.end()
    assert read_keys(f"{server.review.place}/exclude.txt") == set(ODD)


def test_two_pages_at_once(browser: Browser, server: ReviewServer) -> None:
    one, two = ready(browser.page(server.address)), ready(browser.page(server.address))
    one.press("j", "j")
    two.until("document.querySelectorAll('[data-decision=junk]').length == 2")
    two.press("f")  # the first image, of which the other one thinks otherwise: the later one counts
    one.until("document.querySelectorAll('[data-decision=fine]').length == 1")
    assert decided(server, "junk") == [1] and decided(server, "fine") == [0]


def test_half_a_million_images(browser: Browser, tmp_path: Path) -> None:
    n = 500_000
    review = Review("large", str(tmp_path), made_up(n, 16), Decisions(str(tmp_path / "decisions"), "me"), [])
    review.begin()
    server = served(review, TOKEN)
    began = time.monotonic()
    page = ready(browser.page(server.address))
    assert time.monotonic() - began < 20
    for share in (0.2, 0.9, 0.5):
        page.value(f"document.getElementById('grid').scrollTop = {share} * document.getElementById('all').clientHeight")
        first, last = int((share - 0.01) * n), int((share + 0.01) * n)
        began = time.monotonic()
        page.until(f"{CAPTIONS}.length > 20 && {CAPTIONS}.every(c => {first} < c.dataset.i && c.dataset.i < {last})")
        assert time.monotonic() - began < 5
    page.press("End", "j")
    page.until(SAVED + " && document.getElementById('counts').textContent.startsWith('1 junk')")
    assert decided(server, "junk") == [n - 1]
    assert page.value("document.querySelectorAll('.cell').length") < 400, "only what is in sight exists"
    server.shutdown()
    server.server_close()
    review.end()


def test_on_a_phone_by_buttons_alone(browser: Browser, server: ReviewServer, tmp_path: Path) -> None:
    page = browser.page(server.address, 390, 800)
    page.until(f"{CAPTIONS}.length > 8 && document.querySelector('.cell.here')")
    assert page.value("document.documentElement.scrollWidth") == 390
    page.value("document.querySelectorAll('.cell')[2].click()")
    page.until("document.querySelector('.cell.here')?.dataset.i == 2")
    page.value("document.querySelector('button.junk').click()")
    page.until(SAVED + " && document.getElementById('counts').textContent.startsWith('1 junk')")
    assert decided(server, "junk") == [2]
    page.value("document.getElementById('details').click()")
    page.until("document.getElementById('detail').innerText.includes('Terms')")
    page.screenshot(tmp_path / "phone.png")


def start(run: Path, cache: Path, port: int) -> tuple[subprocess.Popen, str]:
    words = [sys.executable, "-m", "trainer", "review", str(run), "--cache", str(cache)]
    process = subprocess.Popen([*words, "--port", str(port), "--no-browser"], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, process.stdout.readline().split()[-1]


def test_thirty_decisions_and_a_killed_server_lose_nothing(browser: Browser, scored: Path, tmp_path: Path) -> None:
    cache, run = scored.parent / "cache", Path(shutil.copytree(scored, tmp_path / "run"))
    out = run / "review"
    process, address = start(run, cache, 0)
    port = int(address.split(":")[2].split("/")[0])
    page = ready(browser.page(address))
    page.press(*"jfujfujfuj")
    page.until(SAVED + " && document.getElementById('counts').textContent.startsWith('4 junk, 3 fine, 3 unsure')")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    page.press(*"jjjjjffffffuuuuujjjj")
    page.until("document.getElementById('saved').textContent == '20 not saved yet: the server does not answer'")
    process, address = start(run, cache, port)
    page.until("document.getElementById('saved').textContent.includes('open the address that the program printed')")
    page = ready(browser.page(address))  # the browser itself kept what was not saved
    page.until(SAVED + " && document.getElementById('counts').textContent.startsWith('13 junk, 9 fine, 8 unsure')")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    lines = [json.loads(line) for file in out.glob("decisions/*.jsonl") for line in file.read_text().splitlines()]
    assert len({key for line in lines for key in line["keys"]}) == 30
    assert len(read_keys(str(out / "exclude.txt"))) == 13


def test_what_is_ticked_on_the_audits_page_can_be_trained_without(
    browser: Browser, scored: Path, tmp_path: Path
) -> None:
    trainer(["audit", str(scored), "--out", str(tmp_path / "audit"), "--cache", str(scored.parent / "cache")])
    page = browser.page((tmp_path / "audit/index.html").as_uri())
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.value("[...document.querySelectorAll('input')].slice(0, 3).forEach(box => box.click())")
    page.until("document.getElementById('ticked').textContent == 'Download the 3 ticked as a list for --exclude'")
    page.value("document.getElementById('ticked').click()")
    end = time.monotonic() + 20
    while not (tmp_path / "exclude.txt").exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    worst = pandas.read_csv(tmp_path / "audit/audit.csv")["key"][:3]
    assert read_keys(str(tmp_path / "exclude.txt")) == set(worst)
