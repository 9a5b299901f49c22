"""The detector over HTTP, a real Ray Serve: answers, refusals, and nothing left when it ends."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
from PIL import Image

from cluster.ports import free_ports
from data_tools.dataset.reader import open_dataset
from data_tools.sources.images import decode_image
from trainer.scoring.detector import Detector
from trainer.scoring.heat import strength
from trainer.scoring.loading import load_detector
from tuning.sweep import averaged

ROOT = Path(__file__).parents[2]
PNG, CSP = {"Content-Type": "image/png"}, "Content-Security-Policy"
FALSE_ALARMS = 0.2
BODY_SECONDS = 8


@dataclass(frozen=True)
class Service:
    """A service that runs, and the judge that it should answer like."""

    url: str
    judge: Detector

    def post(self, body: Any, headers: dict[str, str] | None = None, **options: Any) -> requests.Response:
        return requests.post(f"{self.url}/score", data=body, headers=headers or PNG, timeout=60, **options)


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, kind)
    return file.getvalue()


@contextlib.contextmanager
def serving(runs: str, log: Path, *options: str) -> Iterator[str]:
    """The URL of a service that runs; it ends by itself, and well."""
    (port,) = free_ports(1)
    words = ["serve", "--run", runs, "--port", str(port), *options]
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "cluster", *words], cwd=ROOT, stdout=file, stderr=file)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 180
    try:
        while "serving" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    assert status == 0, log.read_text()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/health", timeout=5)


@pytest.fixture(scope="module")
def service(run: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    judge = Detector.load(str(run), cache=str(dataset.parent / "cache"))
    options = ["--false-alarms", str(FALSE_ALARMS), "--body-seconds", str(BODY_SECONDS)]
    with serving(str(run), tmp_path_factory.mktemp("serve") / "log", *options) as url:
        yield Service(url, judge)


@pytest.fixture(scope="module")
def patches(dataset: Path, service: Service) -> np.ndarray:
    images = open_dataset(str(dataset)).images("test-normal")
    return averaged(images, images.shape[1] // service.judge.inference.resolution)


@pytest.mark.slow
def test_answers_are_the_judges(service: Service, patches: np.ndarray) -> None:
    expected, limit = service.judge.score(patches), service.judge.threshold("false-alarms", FALSE_ALARMS)
    assert expected.p_value is not None
    for i in range(4):
        answer = service.post(encoded(patches[i]))
        assert answer.status_code == 200, answer.text
        (found,) = answer.json()["images"]
        assert found["score"] == pytest.approx(expected.score[i], rel=1e-9)
        assert found["p_value"] == pytest.approx(expected.p_value[i], rel=1e-9)
        assert found["terms"] == pytest.approx({name: column[i] for name, column in expected.terms.items()}, rel=1e-5)
        assert found["threshold"] == limit.value and found["anomalous"] == (found["score"] > limit.value)
        assert found["heatmap"] is None
    (with_map,) = service.post(encoded(patches[0]), params={"heatmap": "true"}).json()["images"]
    heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(with_map["heatmap"]))))
    np.testing.assert_allclose(heat / 255, strength(service.judge.heat(patches[:1]))[0], atol=0.51 / 255)


@pytest.mark.slow
def test_several_images_in_a_form_keep_their_order_and_names(service: Service, patches: np.ndarray) -> None:
    files = [("image", (f"{i}.png", encoded(patch), "image/png")) for i, patch in enumerate(patches)]
    answer = requests.post(f"{service.url}/score", files=files, timeout=60).json()["images"]
    assert [found["name"] for found in answer] == [name for _, (name, _, _) in files]
    expected = service.judge.score(patches).score
    np.testing.assert_allclose([found["score"] for found in answer], expected, rtol=1e-9)


@pytest.mark.slow
def test_an_answer_does_not_depend_on_what_else_is_asked(service: Service, patches: np.ndarray) -> None:
    body = encoded(patches[0])
    alone = service.post(body).json()
    rng = np.random.default_rng(0)
    others = [encoded(rng.integers(0, 256, patches.shape[1:], dtype=np.uint8)) for _ in range(64)]
    with ThreadPoolExecutor(16) as pool:
        crowd = list(pool.map(lambda i: service.post(body if i % 4 == 0 else others[i % 64]).json(), range(128)))
    assert all(answer == alone for answer in crowd[::4])


@pytest.mark.slow
def test_health_documentation_and_metrics(service: Service, patches: np.ndarray) -> None:
    facts = requests.get(f"{service.url}/health", timeout=30).json()
    assert facts["resolution"] == service.judge.inference.resolution and facts["channels"] == 1
    assert facts["by"] == "fused" and f"{facts['threshold']:.4g}" in facts["meaning"]
    assert requests.get(f"{service.url}/-/healthz", timeout=30).status_code == 200
    described = requests.get(f"{service.url}/openapi.json", timeout=30).json()["paths"]["/score"]["post"]
    assert described["requestBody"]["content"].keys() == {"image/*", "multipart/form-data"}
    page = requests.get(f"{service.url}/docs", timeout=30)
    assert page.status_code == 200 and "POST /score" in page.text and "p_value" in page.text and "heatmap" in page.text
    assert not re.search(r"<script|src=|https?:|//", page.text) and "default-src 'none'" in page.headers[CSP]
    assert requests.get(f"{service.url}/redoc", timeout=30).status_code == 404


def other_kinds(patch: np.ndarray) -> dict[str, tuple[Image.Image, str]]:
    """An image in kinds that a grey detector of its size was not trained on, and the format of each."""
    grey, side = Image.fromarray(patch[..., 0]), len(patch)
    deep = Image.fromarray(patch[..., 0].astype(np.uint16) * 257)
    return {
        "served_palette": (grey.convert("P"), "PNG"),
        "rgb": (grey.convert("RGB"), "JPEG"),
        "rgba": (Image.merge("RGBA", [grey, grey, grey, grey]), "PNG"),
        "grey with alpha": (Image.merge("LA", [grey, grey]), "PNG"),
        "cmyk": (grey.convert("CMYK"), "TIFF"),
        "16 bit": (deep, "PNG"),
        "one bit": (grey.convert("1"), "PNG"),
        "small": (grey.crop((0, 0, side // 2, side // 2 - 1)), "PNG"),
        "one pixel": (grey.crop((0, 0, 1, 1)), "PNG"),
    }


@pytest.mark.slow
def test_it_takes_what_the_other_commands_take(service: Service, patches: np.ndarray) -> None:
    for kind, (image, form) in other_kinds(patches[0]).items():
        file = io.BytesIO()
        image.save(file, form)
        answer = service.post(file.getvalue())
        assert answer.status_code == 200, (kind, answer.text)
        decoded = decode_image(io.BytesIO(file.getvalue()), kind, service.judge.resolution, 1)
        expected = service.judge.score(decoded[None]).terms
        near = {name: pytest.approx(column[0], rel=1e-5, abs=2.5e-7) for name, column in expected.items()}
        assert answer.json()["images"][0]["terms"] == near


def answered(connection: socket.socket) -> str:
    answer = b""
    while not answer.endswith(b"}") and (part := connection.recv(4096)):
        answer += part
    return answer.decode()


@pytest.mark.slow
def test_half_sent_requests_keep_nobody_waiting(service: Service, patches: np.ndarray) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    head = f"POST /score HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\n"
    begun = time.monotonic()
    halves = [socket.create_connection((host, int(port)), timeout=60) for _ in range(200)]
    try:
        for i, half in enumerate(halves):
            half.sendall(head.encode() + bytes(i % 2))  # a byte of the body, or none
        for _ in range(3):
            assert requests.get(f"{service.url}/health", timeout=4).status_code == 200
            assert service.post(encoded(patches[0])).status_code == 200
        assert time.monotonic() - begun < BODY_SECONDS  # they were all still there
        answers = [answered(half) for half in halves]
        assert time.monotonic() - begun < BODY_SECONDS + 20
    finally:
        for half in halves:
            half.close()
    assert {answer.splitlines()[0] for answer in answers} == {"HTTP/1.1 408 Request Timeout"}
    assert all(f"within {BODY_SECONDS} s" in answer for answer in answers)


def bomb(side: int) -> bytes:
    """A PNG of side x side black pixels in some kilobytes."""
    head = b"\x89PNG\r\n\x1a\n"
    rows = zlib.compress(bytes(1000), 9)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    size = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    return head + chunk(b"IHDR", size) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def malformed(patch: np.ndarray) -> list[tuple[bytes, dict[str, str]]]:
    """Two hundred requests that are wrong in one way each."""
    good, rng = encoded(patch), np.random.default_rng(0)
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    wrong: list[tuple[bytes, dict[str, str]]] = [
        (b"", PNG),
        (b"not an image", PNG),
        (good, {"Content-Type": "text/plain"}),
        (good, {"Content-Type": ""}),
        (json.dumps({"image": "x"}).encode(), {"Content-Type": "application/json"}),
        (bomb(20_000), PNG),
        (bomb(100_000), PNG),
        (b"GIF89a" + bytes(30), PNG),
        (bytes(17 * 2**20), PNG),
        (good, form),
        (b"--x--\r\n", form),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nword\r\n--x--\r\n', form),
        (b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\nno image\r\n--x--\r\n', form),
        (good, {"Content-Type": "multipart/form-data"}),
        (b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.png"\r\n\r\n\r\n--x--\r\n' * 65, form),
    ]
    wrong += [(good[: int(cut)], PNG) for cut in np.linspace(1, len(good) - 30, 90)]
    wrong += [(rng.bytes(int(size)), PNG) for size in rng.integers(1, 5000, 200 - len(wrong))]
    return wrong


@pytest.mark.slow
def test_two_hundred_malformed_requests_are_refused_with_a_reason(service: Service, patches: np.ndarray) -> None:
    wrong = malformed(patches[0])
    assert len(wrong) == 200
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda request: service.post(*request), wrong))
    for (body, headers), answer in zip(wrong, answers):
        assert 400 <= answer.status_code < 500, (body[:60], headers, answer.status_code, answer.text)
        assert answer.json()["detail"], answer.text
    assert service.post(encoded(patches[0])).status_code == 200


@pytest.mark.slow
def test_under_load(service: Service, patches: np.ndarray, capsys: pytest.CaptureFixture[str]) -> None:
    bodies = [encoded(patch) for patch in patches]
    lines = []
    for askers, count in ((1, 300), (8, 1600), (32, 3200)):
        times: list[float] = []

        def ask(i: int, session: requests.Session, times: list[float] = times) -> None:
            begun = time.monotonic()
            assert session.post(f"{service.url}/score", data=bodies[i % len(bodies)], headers=PNG, timeout=60).ok
            times.append(time.monotonic() - begun)

        def many(part: range) -> None:
            with requests.Session() as session:
                for i in part:
                    ask(i, session)

        begun = time.monotonic()
        with ThreadPoolExecutor(askers) as pool:
            list(pool.map(many, [range(k, count, askers) for k in range(askers)]))
        rate = count / (time.monotonic() - begun)
        median, last = np.quantile(times, [0.5, 0.99]) * 1e3
        lines.append(
            f"{askers:3} at a time: {rate:6.0f} requests/s, median {median:6.1f} ms, 99th percentile {last:6.1f} ms"
        )
    with capsys.disabled():
        print("\n" + "\n".join(lines))


def replica() -> psutil.Process:
    """The process that scores, of the one service that runs here."""
    ours = psutil.Process().children(recursive=True)
    (found,) = (each for each in ours if each.name().startswith("ray::ServeReplica"))
    return found


@pytest.mark.slow
def test_memory_is_flat_over_ten_thousand_requests(service: Service, patches: np.ndarray) -> None:
    bodies, scores = [encoded(patch) for patch in patches], replica()

    def many(count: int) -> None:
        with requests.Session() as session:
            for i in range(count):
                assert session.post(f"{service.url}/score", data=bodies[i % len(bodies)], headers=PNG, timeout=60).ok

    def rounds(count: int) -> int:
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(many, [count // 16] * 16))
        return scores.memory_info().rss

    rounds(2_000)  # until then buffers and pools grow
    before = rounds(2_000)
    assert rounds(8_000) < before + 10 * 2**20


@pytest.mark.slow
def test_a_replica_that_dies_is_replaced_at_the_same_port(service: Service, patches: np.ndarray) -> None:
    before = service.post(encoded(patches[0])).json()
    killed = replica()
    killed.kill()
    killed.wait(10)
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(requests.ConnectionError):
            if (answer := service.post(encoded(patches[0]))).status_code == 200:
                break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert answer.json() == before and replica().pid != killed.pid


@pytest.mark.slow
def test_a_port_that_is_taken_is_said_before_ray_starts(run: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = [sys.executable, "-m", "cluster", "serve", "--run", str(run), "--port", port]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"--port {port}: Address already in use - give another port" in done.stderr


@pytest.mark.slow
def test_wrong_options_are_said_before_ray_starts(tmp_path: Path) -> None:
    for words, said in ((["--run", str(tmp_path / "none")], "none"), (["--run", "x", "--lam", "2"], "--lam")):
        done = subprocess.run(
            [sys.executable, "-m", "cluster", "serve", *words], cwd=ROOT, capture_output=True, text=True, env=os.environ
        )
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["lambda", "lam"])
def test_settings_know_lambda_by_both_names(name: str) -> None:
    from cluster.serve import Settings

    settings = Settings(**{"run": "s3://bucket/run", name: 0.3})
    assert settings.criterion().lam == 0.3 and Settings(**settings.model_dump()) == settings


@pytest.mark.slow
def test_several_runs_are_served_as_one(run: Path, full: Path, dataset: Path, tmp_path: Path) -> None:
    runs = f"{run},{shutil.copytree(full, tmp_path / 'other')}"
    judge = load_detector(runs, cache=str(dataset.parent / "cache"))
    images = open_dataset(str(dataset)).images("test-normal")[:2]
    patches = averaged(images, images.shape[1] // judge.resolution)
    with serving(runs, tmp_path / "log") as url:
        for patch, expected in zip(patches, judge.score(patches).score):
            answer = requests.post(f"{url}/score", data=encoded(patch), headers=PNG, timeout=60)
            (found,) = answer.json()["images"]
            assert found["score"] == pytest.approx(expected, rel=1e-6)
            assert found["terms"].keys() == {run.name, "other"}
