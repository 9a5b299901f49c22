"""python -m trainer train | evaluate | score | audit | export | bench"""

from __future__ import annotations

import sys

import tyro

from data_tools.errors import UserError, run_command

USAGE = """usage: python -m trainer COMMAND ...

  train     train a detector on a dataset      --data URL --out RUN --preset NAME [options]
  evaluate  score the test set, write a report RUN
  score     rank images, say which are junk    RUN IMAGES ... [--false-alarms 0.01] [--heatmaps DIR]
  audit     rank a run's own training images   RUN [--contamination 0.02]
  export    a detector to carry elsewhere      RUN --format torch|onnx --out FOLDER
  bench     measure a training's speed         --preset NAME [options] [--json FILE] [--against FILE]

python -m trainer COMMAND --help lists the options."""


def chosen_preset(words: list[str]) -> str | None:
    """The value of --preset on a command line; its other options then override that preset."""
    for i, word in enumerate(words):
        if word.startswith("--preset="):
            return word.removeprefix("--preset=")
        if word == "--preset" and i + 1 < len(words):
            return words[i + 1]
    return None


def main(argv: list[str]) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    command, *words = argv
    if command in ("train", "bench"):
        from trainer.config import TrainConfig
        from trainer.presets import preset

        name = chosen_preset(words)
        if name is None and not {"-h", "--help"} & set(words):
            raise UserError("--preset is missing - choose kth, cifar-car, cells-small, cifar-small, study or demo")
        default, program = preset(name or "kth"), f"python -m trainer {command}"
        if command == "train":
            from trainer.commands.train import train_command

            train_command(tyro.cli(TrainConfig, args=words, default=default, prog=program))
        else:
            from trainer.commands.bench import Bench

            tyro.cli(Bench, args=words, default=Bench(default), prog=program)()
    elif command in ("evaluate", "score", "audit", "export"):
        from trainer.commands.audit import Audit
        from trainer.commands.evaluate import Evaluate
        from trainer.commands.export import Export
        from trainer.commands.score import Score

        known = {"evaluate": Evaluate, "score": Score, "audit": Audit, "export": Export}
        tyro.cli(known[command], args=words, prog=f"python -m trainer {command}")()
    else:
        raise UserError(f"{command}: no such command - choose train, evaluate, score, audit, export or bench")


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
