"""The configuration: the paper's figures, its way through JSON and the command line, and what is out of range."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import tyro

from data_tools.errors import UserError
from trainer.__main__ import main
from trainer.commands.configured import HEADINGS, value_of
from trainer.config import TrainConfig, differing_options
from trainer.methods import METHODS
from trainer.methods.base import Method
from trainer.presets import PRESETS, cifar_car, kth, preset

NAN, INF = float("nan"), float("inf")
FIELDS = [f.name for f in dataclasses.fields(TrainConfig)]
BASE = TrainConfig(preset="demo", resolution=32, width=32, minibatch=dict.fromkeys((4, 8, 16, 32), 32))


def other_options(method: Method) -> tuple[list[str], Any]:
    """Words that set the first option of a method, and the method with it."""
    numbers = [each.name for each in dataclasses.fields(method) if not isinstance(getattr(method, each.name), str)]
    option = numbers[0]
    value = getattr(method, option) + 1
    return [method.option(option), str(value)], dataclasses.replace(method, **{option: value})


OTHER_VALUES: dict[str, tuple[list[str], Any]] = {  # words on the command line, and the value they stand for
    "data": (["--data", "s3://bucket/prefix"], "s3://bucket/prefix"),
    "cache_limit": (["--cache-limit", "5GB"], "5GB"),
    "window": (["--window", "8"], 8),
    "out": (["--out", "runs/a b"], "runs/a b"),
    "preset": (["--preset", "kth"], "kth"),
    "workers": (["--workers", "1:2"], "1:2"),
    "start_from": (["--from", "s3://bucket/run"], "s3://bucket/run"),
    "planted": (["--planted", "dust"], "dust"),
    "exclude": (["--exclude", "audit/exclude.txt"], "audit/exclude.txt"),
    "method": (["--method", "fanogan"], "fanogan"),
    **{name: other_options(method) for name, method in METHODS.items() if name in FIELDS},
    "gamma": (["--gamma", "0.02"], 0.02),
    "seed": (["--seed", "7"], 7),
    "resolution": (["--resolution", "16"], 16),
    "width": (["--width", "64"], 64),
    "fade_images": (["--fade-images", "0"], 0),
    "stable_images": (["--stable-images", "11"], 11),
    "final_images": (["--final-images", "12"], 12),
    "minibatch": (["--minibatch.4", "8", "--minibatch.16", "24"], {4: 8, 8: 32, 16: 24, 32: 32}),
    "microbatch": (["--microbatch", "8"], 8),
    "learning_rate": (["--learning-rate", "2e-4"], 2e-4),
    "ema_decay": (["--ema-decay", "0.5"], 0.5),
    "penalty": (["--penalty", "5"], 5.0),
    "drift": (["--drift", "0"], 0.0),
    "distance": (["--distance", "latent"], "latent"),
    "coupling": (["--coupling", "encoder-only"], "encoder-only"),
    "distance_weight": (["--distance-weight", "0.5"], 0.5),
    "contrast": (["--contrast", "learned"], "learned"),
    "generator_rate": (["--generator-rate", "0.5"], 0.5),
    "final_decay": (["--final-decay", "0.5"], 0.5),
    "precision": (["--precision", "bf16"], "bf16"),
    "compile": (["--compile"], True),
    "log_images": (["--log-images", "13"], 13),
    "pictures": (["--pictures", "3"], 3),
    "checkpoint_images": (["--checkpoint-images", "14"], 14),
    "keep": (["--keep", "4"], 4),
    "best_by": (["--best-by", "L_n"], "L_n"),
    "patience": (["--patience", "9.5"], 9.5),
    "cache": (["--cache", "some/where"], "some/where"),
}
WHERE_AND_HOW = {
    *("cache_limit", "data", "out", "workers", "cache", "log_images", "pictures", "checkpoint_images"),
    *("keep", "best_by", "patience", "exclude"),
}


def parsed(words: list[str], default: TrainConfig) -> TrainConfig:
    return tyro.cli(TrainConfig, args=words, default=default)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_carries_its_name(name: str) -> None:
    config = preset(name)
    assert config.validated() is config
    assert config.preset == name
    assert (config.data, config.out, config.gamma) == ("", "", 0.0)


@pytest.mark.parametrize(("config", "resolution", "images"), [(kth(), 64, 5_280_000), (cifar_car(), 32, 4_000_000)])
def test_the_papers_presets_are_the_papers(config: TrainConfig, resolution: int, images: int) -> None:
    assert (config.resolution, config.width) == (resolution, 512)
    phases = config.schedule()
    assert phases[-1].end == images
    paper = {4: 128, 8: 128, 16: 128, 32: 64, 64: 32, 128: 16, 256: 8, 512: 4}
    assert config.minibatch == paper and all(phase.batch == paper[phase.resolution] for phase in phases)
    assert (config.fade_images, config.stable_images) == (600_000, 600_000)
    assert (config.learning_rate, config.ema_decay) == (0.001, 0.999)
    assert (config.penalty, config.drift, config.seed) == (10, 0.001, 1000)
    assert (config.distance, config.coupling, config.distance_weight) == ("image", "joint", 1)
    assert (config.contrast, config.generator_rate, config.final_decay) == ("full", 1, 0)


@pytest.mark.parametrize("name", FIELDS)
def test_every_option_can_be_set_on_the_command_line_and_leaves_the_others(name: str) -> None:
    words, value = OTHER_VALUES[name]
    config = parsed(words, BASE)
    assert getattr(BASE, name) != value, "the test should change something"
    assert config == dataclasses.replace(BASE, **{name: value})


@pytest.mark.parametrize("name", PRESETS)
def test_options_override_the_preset_wherever_they_stand(name: str) -> None:
    for words in (["--seed", "7", "--preset", name], [f"--preset={name}", "--seed=7"]):
        assert value_of("--preset", words) == name
        assert parsed(words, preset(name)) == dataclasses.replace(preset(name), seed=7)


@pytest.mark.parametrize("name", PRESETS)
def test_json_text_and_back(name: str) -> None:
    for config in (preset(name), dataclasses.replace(preset(name), gamma=0.02, data="s3://b/ä", distance="latent")):
        assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_json_of_a_configuration_is_not_the_configuration_itself() -> None:
    BASE.to_json()["minibatch"][4] = 1
    assert BASE.minibatch[4] == 32


def test_presets_do_not_share_their_minibatches() -> None:
    kth().minibatch[4] = 1
    assert kth().minibatch[4] == 128 and TrainConfig().minibatch[4] == 128


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        *(({"resolution": value}, "--resolution") for value in (48, 0, 2, -4, 1)),
        *(({"gamma": value}, "--gamma") for value in (-0.1, 1.0, 1.5, NAN, INF, -INF)),
        *(({"width": value}, "--width") for value in (10, 0, -4, 2)),
        ({"width": 4, "resolution": 256, "minibatch": dict.fromkeys((4, 8, 16, 32, 64, 128, 256), 8)}, "--width"),
        *(({"seed": value}, "--seed") for value in (-1, 2**63, 2**64)),
        *(({"workers": value}, "--workers") for value in ("-1", "", "two", "2:1", "0:2", "1:2:3", "1.5", "1:")),
        *(({"fade_images": value}, "--fade-images") for value in (-1,)),
        *(({"stable_images": value}, "--stable-images") for value in (0, -1)),
        *(({"final_images": value}, "--final-images") for value in (0, -1)),
        *(({"log_images": value}, "--log-images") for value in (0, -1)),
        *(({"pictures": value}, "--pictures") for value in (0, -1)),
        *(({"checkpoint_images": value}, "--checkpoint-images") for value in (0, -1)),
        *(({"keep": value}, "--keep") for value in (0, -1)),
        *(({"patience": value}, "--patience") for value in (0.0, -1.0, NAN, INF)),
        ({"best_by": "a"}, "--best-by"),
        *(({"learning_rate": value}, "--learning-rate") for value in (0.0, -0.001, NAN, INF)),
        *(({"ema_decay": value}, "--ema-decay") for value in (1.0, -0.1, 1.5, NAN)),
        *(({"penalty": value}, "--penalty") for value in (-1.0, NAN, INF)),
        *(({"drift": value}, "--drift") for value in (-0.001, NAN, INF)),
        *(({"distance_weight": value}, "--distance-weight") for value in (-1.0, NAN, INF)),
        ({"minibatch": {4: 32, 8: 32, 32: 32}}, "--minibatch"),
        ({"minibatch": {}}, "--minibatch"),
        ({"resolution": 64}, "--minibatch"),
        *(({"minibatch": {4: 32, 8: value, 16: 32, 32: 32}}, "--minibatch.8") for value in (0, -4)),
        *(({"minibatch": {4: 32, 8: value, 16: 32, 32: 32}}, "--minibatch.8") for value in (6, 30)),
        ({"workers": "3"}, "--minibatch.4"),
        ({"workers": "16"}, "--minibatch.4"),
        ({"distance": "pixels"}, "--distance"),
        ({"coupling": "none"}, "--coupling"),
        ({"precision": "fp8"}, "--precision"),
        *(({"microbatch": value}, "--microbatch") for value in (6, -4)),
        ({"microbatch": 8, "method": "fanogan"}, "--microbatch"),
    ],
)
def test_what_is_out_of_range_is_named_in_one_line(changes: dict[str, Any], option: str) -> None:
    with pytest.raises(UserError) as caught:
        dataclasses.replace(BASE, **changes).validated()
    message = str(caught.value)
    assert message.startswith(f"{option} ") and " - " in message and "\n" not in message


CHOICES = [
    (name, option)
    for name, method in METHODS.items()
    for option, kind in get_type_hints(type(method)).items()
    if get_origin(kind) is Literal
]


@pytest.mark.parametrize(("name", "option"), CHOICES)
def test_an_unknown_choice_of_a_method_is_named_with_those_there_are(name: str, option: str) -> None:
    method = dataclasses.replace(METHODS[name], **{option: "x"})  # type: ignore[arg-type]
    known = ", ".join(get_args(get_type_hints(type(method))[option]))
    with pytest.raises(UserError, match=f"^{method.option(option)} x is unknown - give one of {known}$"):
        dataclasses.replace(BASE, method=name, **{name: method}).validated()


def test_methods_with_choices() -> None:
    assert {name for name, _ in CHOICES} >= {"aae", "ae", "egbad", "geom", "svdd"}


@pytest.mark.parametrize(
    "changes",
    [
        {"resolution": 4},
        {"gamma": 0.999},
        {"width": 4},
        {"seed": 0},
        {"seed": 2**63 - 1},
        {"fade_images": 0},
        {"penalty": 0.0, "drift": 0.0, "distance_weight": 0.0, "ema_decay": 0.0},
        {"workers": "8"},
        {"workers": "1:3"},  # of a range, the counts that divide the batches are used
        {"resolution": 8, "minibatch": {4: 4, 8: 4}},
    ],
)
def test_what_is_just_in_range_is_taken(changes: dict[str, Any]) -> None:
    assert dataclasses.replace(BASE, **changes).validated() == dataclasses.replace(BASE, **changes)


@pytest.mark.parametrize("name", FIELDS)
def test_only_options_that_change_what_is_computed_make_runs_differ(name: str) -> None:
    words, value = OTHER_VALUES[name]
    expected = [] if name in WHERE_AND_HOW else [words[0].split(".")[0]]
    assert differing_options(BASE, dataclasses.replace(BASE, **{name: value})) == expected
    assert differing_options(BASE, BASE) == []


def test_all_differing_options_are_named() -> None:
    other = dataclasses.replace(BASE, gamma=0.01, seed=1, ema_decay=0.5, out="elsewhere")
    assert sorted(differing_options(BASE, other)) == ["--ema-decay", "--gamma", "--seed"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["trian"], r"trian: .*did you mean train\? .*bench, evaluate, score, audit, review and export"),
        (["--preset", "demo"], r"--preset: .*train"),
        (["train", "--preset", "kht"], r"--preset kht .*kth, cifar-car, cells-small, cifar-small, study, demo"),
        (["train", "--preset=kht"], r"--preset kht "),
        (["train", "--data", "somewhere", "--out", "run"], r"--preset is missing - "),
        (["train"], r"--preset is missing - "),
        (["train", "--preset"], r"--preset is missing - "),
        (["train", "--preset", "demo", "--out", "run"], r"--data is missing - "),
        (["train", "--preset", "demo", "--data", "somewhere"], r"--out is missing - "),
        (["train", "--preset", "demo", "--data", "somewhere", "--out", "run", "--gamma", "nan"], r"--gamma nan "),
        (["train", "--preset", "demo", "--data", "somewhere", "--out", "run"], r"somewhere"),
    ],
)
def test_a_wrong_command_line_is_answered_in_one_line_and_nothing_is_written(
    words: list[str], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=named) as caught:
        main(words)
    assert "\n" not in str(caught.value) and " - " in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_every_option_stands_under_one_heading() -> None:
    assert sorted(name for heading in HEADINGS for name in heading.fields) == sorted(FIELDS)


def test_a_missing_preset_is_answered_by_all_of_them() -> None:
    with pytest.raises(UserError) as caught:
        main(["train"])
    assert all(name in str(caught.value) for name in PRESETS)


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_help_lists_the_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(words)
    out = capsys.readouterr().out
    assert all(f"\n  {command}" in out for command in ("train", "evaluate", "score", "bench"))
