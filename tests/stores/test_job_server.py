"""What a job server says is passed on, and places that a cluster does not know are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.arguments import check_arguments
from cluster.jobs import submit
from cluster.ports import free_ports
from tests.support.answering import PAGE, Answer, says, serving


def dashboard(job: Answer) -> Callable[[str, str, int], Answer]:
    """A job server that takes our code and answers so to a job."""
    version = Answer(
        200, json.dumps({"version": "4", "ray_version": "2.60.0", "ray_commit": ""}), kind="application/json"
    )

    def answer(method: str, path: str, number: int) -> Answer:
        if path == "/api/version":
            return Answer(version.status, version.body, {}, version.kind)
        return Answer(200, "{}", {}, "application/json") if "/packages/" in path else job

    return answer


TAKEN = (
    "Traceback\n  File x\nValueError: Job with submission_id a already exists. Please use a different submission_id.\n"
)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(
            dashboard(Answer(500, TAKEN)), ("--name a: the name is taken", "another --name"), id="same_job_name"
        ),
        (
            dashboard(Answer(500, f"RuntimeError: Request failed with status code 400: {TAKEN}.\n")),
            ("the name is taken",),
        ),
        (
            dashboard(Answer(500, "Traceback\nRuntimeError: Request failed: x\nValueError: odd\n.\n")),
            ("status 500): odd",),
        ),
        (dashboard(Answer(400, "Traceback\nKeyError: 'odd'")), ("the cluster refuses (status 400): 'odd'",)),
        (dashboard(Answer(503, "")), ("no Ray cluster answers", "503")),
        (lambda *_: PAGE, ("no Ray cluster, but something else",)),
        (lambda *_: Answer(404, "nothing"), ("refuses", "Ray")),
    ],
)
def test_what_a_job_server_says_is_passed_on(
    answer: Callable[[str, str, int], Answer], words: tuple[str, ...], clean: pytest.MonkeyPatch
) -> None:
    with serving(answer) as made:
        message = says(lambda: submit(made.endpoint, ["true"], "a", False, ()), *words, within=15)
    assert ("no Ray cluster answers" in message) == ("no Ray cluster answers" in words)


def test_no_answer_is_called_that(clean: pytest.MonkeyPatch) -> None:
    nobody = f"http://me:planted@127.0.0.1:{free_ports(1)[0]}"
    says(lambda: submit(nobody, ["true"], "a", False, ()), "no Ray cluster answers", within=15)
    for address in ("auto", "foo", "http://", "http://[bad", "127.0.0.1:8265", "ray://127.0.0.1:10001"):
        says(lambda address=address: submit(address, ["true"], "a", False, ()), "is not an address of a dashboard")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("python -m trainer score s3://b/run pictures --out /shared/s.csv", "pictures"),
        ("python -m trainer score s3://b/run /shared/pictures --heatmaps maps", "--heatmaps maps"),
        ("python -m trainer score runs/a /shared/pictures", "runs/a"),
        (
            "python -m trainer train --data s3://b/d --out s3://b/r --preset demo --exclude list.txt",
            "--exclude list.txt",
        ),
        ("python -m trainer train --data s3://b/d --out s3://b/r --preset demo --cache=here", "--cache here"),
        ("python -m trainer train --data s3://b/d --out s3://b/r --preset demo --from runs/a", "--from runs/a"),
        ("python -m trainer bench --preset demo --data s3://b/d --json x.json", "--json x.json"),
        ("python -m data_tools images images --out s3://b/d --resolution 8", "images"),
        ("python -m data_tools verify data/mine", "data/mine"),
        ("python -m data_tools cache list --cache here", "--cache here"),
        ("python -m tuning resume sweeps/a", "sweeps/a"),
        ("python -m tuning report s3://b/a sweeps/a --out s3://b/c", "sweeps/a"),
        ("python -m cluster score --run runs/a --images s3://b/c --out s3://b/d", "--run runs/a"),
        ("python -m data_tools verify ~/data", "~/data"),
        ("python -m trainer evaluate s3://b/r --cache=~/x", "--cache ~/x"),
        ("python other.py --out ~/x", "--out ~/x"),
        ("python other.py --heatmaps x", "--heatmaps x"),
    ],
)
def test_places_that_the_cluster_does_not_know_are_refused(words: str, named: str, tmp_path: Path) -> None:
    says(lambda: check_arguments(words.split()), f"{named}: the cluster", "s3://bucket/prefix")


@pytest.mark.parametrize(
    "words",
    [
        "python -m trainer score s3://b/run /shared/pictures s3://b/x --out /shared/s.csv --heatmaps s3://b/maps",
        "python -m trainer train --data s3://b/d --out s3://b/r --preset demo --cache  --debug",
        "python -m data_tools images s3://b/images --out s3://b/d --resolution 8",
        "python -m tuning sweep --data s3://b/d --out s3://b/s --preset demo --name cells --gamma 0,0.1",
        "python -m trainer train --help",
        "bash -c true",
        "python train.py",
    ],
)
def test_other_words_go_through(words: str) -> None:
    check_arguments(words.split(" "))
