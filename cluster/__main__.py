"""python -m cluster up|down|status|submit|score|serve|store"""

import functools
import sys
from collections.abc import Sequence

import tyro

from data_tools.errors import UserError, run_command

USAGE = """usage: python -m cluster COMMAND ...

  up                            a Ray cluster on this machine, with dashboard, S3 store and TensorBoard
  status                        where it is, and what it does
  down                          end it
  submit -- COMMAND ...         send a command of ours as a job, follow it, exit with its status
  score --run --images --out    score any number of images on a cluster
  serve --run                   a run's detector over HTTP
  store FOLDER                  a real S3 store on this machine, until Ctrl-C
  store FOLDER -- COMMAND ...   the same, while a command runs that finds it in its environment

python -m cluster COMMAND --help lists the options."""


def main(argv: list[str], command: Sequence[str] = ()) -> None:
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    from cluster.commands import Down, Status, Submit, Up
    from cluster.service_commands import Score, Serve
    from cluster.store_command import Store

    name, *words = argv
    commands = {
        "up": Up,
        "down": Down,
        "status": Status,
        "submit": Submit,
        "score": Score,
        "serve": Serve,
        "store": Store,
    }
    if name not in commands:
        raise UserError(f"{name}: no such command - choose {', '.join(commands)}")
    tyro.cli(commands[name], args=words, prog=f"python -m cluster {name}").run(command)


if __name__ == "__main__":
    # Cut here, since `run_command` takes --debug from anywhere and the command may have its own.
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    sys.exit(run_command(functools.partial(main, command=words[cut + 1 :]), words[:cut]))
