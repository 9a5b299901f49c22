"""python -m data_tools: from images to datasets, and a look at them."""

from __future__ import annotations

import functools
import sys

from data_tools.command_line import Command, Program, run, run_program
from data_tools.sources import SOURCES

PROGRAM = Program(
    "data_tools",
    "Make datasets of images, and look at them.",
    {
        "Shard images into a dataset": SOURCES,
        "Make videos to try it on": (
            Command(
                "simulate",
                "OUT",
                "simulated cells and debris, in the Baxter layout",
                "data_tools.commands.simulate:Simulate",
            ),
        ),
        "Look at a dataset": (
            Command("inspect", "URL", "counts, sizes, contact sheets", "data_tools.commands.inspect:Inspect"),
            Command("verify", "URL", "every byte against the manifest", "data_tools.commands.verify:Verify"),
        ),
        "The cache of decoded images on this node": (
            Command("cache list", "", "what lies there", "data_tools.commands.cache:List"),
            Command("cache clear", "", "make room", "data_tools.commands.cache:Clear"),
        ),
    },
    "A URL is a folder or s3://bucket/prefix; endpoint, region and keys come from the usual AWS variables and files\n"
    "(AWS_NO_SIGN_REQUEST=1 reads a public bucket without keys).",
)
main = functools.partial(run, PROGRAM)

if __name__ == "__main__":
    sys.exit(run_program(PROGRAM, sys.argv[1:]))
