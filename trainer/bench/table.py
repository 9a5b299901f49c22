"""A measurement as tables, and beside an earlier one."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from trainer.training.timing import PARTS


def show(result: dict[str, Any], console: Console) -> None:
    """result: as the JSON file has it."""
    facts = result["machine"]
    console.print(
        f"{facts['device']}, {facts['workers']} worker(s) of {facts['threads']} thread(s), torch {facts['torch']},"
        f" {facts['precision']}; matrix products reach {facts['peak_gflops']:,.0f} GFLOP/s in a worker"
    )
    speed = Table(title="Speed")
    for heading in ("phase", "batch", "images/s", "sec/kimg", "GFLOP/image", "GFLOP/s", "of peak", "MiB", "spread"):
        speed.add_column(heading, justify="left" if heading == "phase" else "right")
    for row in result["phases"]:
        speed.add_row(
            row["phase"],
            str(row["batch"]),
            f"{row['images_per_sec']:.1f}",
            f"{row['sec_per_kimg']:.3g}",
            f"{row['gflop_per_image']:.3g}",
            f"{row['gflops']:,.0f}",
            f"{row['of_peak']:.0%}",
            f"{row['memory_mib']:,.0f}",
            f"{row['spread']:.0%}",
        )
    console.print(speed)
    shares = Table(title="Share of a step's time in %")
    shares.add_column("phase")
    names = [name for name in PARTS if any(name in row["shares"] for row in result["phases"])]
    for name in [*names, "GPU busy"]:
        shares.add_column(name, justify="right")
    for row in result["phases"]:
        busy = "" if row["busy"] is None else f"{100 * row['busy']:.1f}"
        shares.add_row(row["phase"], *(f"{100 * row['shares'].get(name, 0):.1f}" for name in names), busy)
    console.print(shares)


def compare(result: dict[str, Any], earlier: dict[str, Any], console: Console) -> None:
    """Ratios of this measurement to an earlier one, for the phases that both have."""
    for place in ("machine", "config"):
        now, then = result[place], earlier[place]
        for name in sorted(now.keys() | then.keys()):
            if name != "peak_gflops" and now.get(name) != then.get(name):
                console.print(f"differs: {name}: {then.get(name)} then, {now.get(name)} now")
    table = Table(title="Now against then")
    for heading in ("phase", "images/s then", "now", "ratio", "MiB ratio", "GFLOP/image ratio"):
        table.add_column(heading, justify="left" if heading == "phase" else "right")
    before = {row["phase"]: row for row in earlier["phases"]}
    for row in result["phases"]:
        if row["phase"] in before:
            old = before[row["phase"]]
            table.add_row(
                row["phase"],
                f"{old['images_per_sec']:.1f}",
                f"{row['images_per_sec']:.1f}",
                *(f"{row[key] / old[key]:.2f}" for key in ("images_per_sec", "memory_mib", "gflop_per_image")),
            )
    console.print(table)
