"""python -m trainer: one detector, from a training run to verdicts."""

from __future__ import annotations

import functools
import sys

from data_tools.command_line import Command, Program, run, run_program


def _presets() -> str:
    from trainer.commands.configured import list_of_presets

    return list_of_presets()


FROM_PRESET = "trainer.commands.configured:from_preset"
PROGRAM = Program(
    "trainer",
    "Train an anomaly detector, and score images with it.",
    {
        "Train": (
            Command(
                "train",
                "--data URL --out RUN --preset NAME",
                "train a detector on a dataset",
                "trainer.commands.train:Train",
                FROM_PRESET,
            ),
            Command(
                "bench",
                "--preset NAME",
                "measure a run's speed, and where its time goes",
                "trainer.commands.bench:Bench",
                FROM_PRESET,
            ),
        ),
        "Judge": (
            Command("evaluate", "RUN", "score the test set, write a report", "trainer.commands.evaluate:Evaluate"),
            Command(
                "score", "RUN IMAGES ...", "rank images, and say which are anomalous", "trainer.commands.score:Score"
            ),
            Command("audit", "RUN", "rank a run's own training images", "trainer.commands.audit:Audit"),
            Command("review", "RUN", "decide in a browser which of them are junk", "trainer.commands.review:Review"),
            Command(
                "export",
                "RUN --format torch|onnx --out FOLDER",
                "a detector that works without this package",
                "trainer.commands.export:Export",
            ),
        ),
    },
    _presets,
    {"--lam": "--lambda"},
)
main = functools.partial(run, PROGRAM)

if __name__ == "__main__":
    sys.exit(run_program(PROGRAM, sys.argv[1:]))
