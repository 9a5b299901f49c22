"""The report of one or more sweeps: one page that needs no other file, its tables as CSV, its figures as files."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import matplotlib

from data_tools.errors import UserError
from data_tools.storage import absolute
from data_tools.storage.output_folder import OutputFolder
from data_tools.storage.transfer import as_url
from trainer.report.pages import rendered
from tuning.report import curve_blocks, image_blocks
from tuning.report.blocks import BEATS, Block, Section, listed
from tuning.report.figure_style import STYLE
from tuning.report.image_blocks import LatentMaps, score_histograms
from tuning.report.method_blocks import answers, method_blocks
from tuning.report.result_tables import choice_table, table_1, table_2
from tuning.report.trial_rows import TrialRow, joined, read_rows, rows_of
from tuning.score_names import FUSED, meanings, title_of_method
from tuning.sweep_files import csv_text
from tuning.sweep_tables import Sweep, read_sweep

PAGE = "index.html"
REPORT = OutputFolder("a report", re.compile(r"index\.html|[^/]+\.csv|figures/[^/]+\.(svg|png)"), "--out ", PAGE)


def write_report(urls: list[str], out: str, without_pixels: list[str], cache: str, cache_limit: str) -> str:
    """Write OUT/index.html, OUT/*.csv and OUT/figures; return the page's URL. A former report there is replaced.

    urls: sweeps' folders, a section each, and trials.csv of earlier reports, whose trials join the table of methods; of
    the same trial in two places the one named last counts. without_pixels: sweeps whose images must not be shown.
    cache, cache_limit: of the datasets that the pictures show ("" for the usual cache).
    UserError: a URL is not a sweep or has no finished trial, a file is damaged, OUT holds something else.
    """
    out = out.rstrip("/")
    hidden = {absolute(url.rstrip("/")) for url in without_pixels}
    if unknown := hidden - {absolute(url.rstrip("/")) for url in urls}:
        raise UserError(f"--without-pixels {min(unknown)}: is none of the sweeps of this report - give one of them")
    REPORT.existing(out)
    sources: list[Sweep | list[TrialRow]] = [
        read_rows(url) if url.endswith(".csv") else read_sweep(url)
        for url in dict.fromkeys(u.rstrip("/") for u in urls)
    ]
    sweeps = [source for source in sources if isinstance(source, Sweep)]
    named = list(zip(_short_names(sweeps), sweeps))
    with matplotlib.rc_context(STYLE):
        rows = _rows(sources)
        shared = [*method_blocks(rows), *([_overview(named)] if named else [])]
        sections = [
            _section(name, sweep, absolute(sweep.url) not in hidden, cache, cache_limit) for name, sweep in named
        ]
    scores = {name for sweep in sweeps for trial in sweep.trials for name in trial.scores.columns} or {FUSED}
    with REPORT.replaced(out) as folder:
        _write(folder, answers(rows), shared, sections, meanings(scores))
    return f"{as_url(out) or out}/{PAGE}"


def _rows(sources: list[Sweep | list[TrialRow]]) -> list[TrialRow]:
    """Trials of all sources; sweeps of one name on one dataset are parts of one study."""
    sweeps = [each for each in sources if isinstance(each, Sweep)]
    names = iter(_dataset_names(sweeps))
    return joined([rows_of(each, next(names)) if isinstance(each, Sweep) else each for each in sources])


def _dataset_names(sweeps: list[Sweep]) -> list[str]:
    """What each sweep's dataset is called: numbered where others have the same name; with the classes planted."""
    known: dict[str, list[str]] = {}
    for sweep in sweeps:
        known.setdefault(sweep.plan.name, []).append(str(sweep.plan.dataset.get("digest", "")))
    result = []
    for sweep in sweeps:
        others = list(dict.fromkeys(known[sweep.plan.name]))
        number = f" ({others.index(str(sweep.plan.dataset.get('digest', ''))) + 1})" if len(others) > 1 else ""
        planted = sweep.plan.facts.get("planted")
        result.append(f"{sweep.plan.name}{number}{f', planted {planted}' if planted else ''}")
    return result


def _write(folder: Path, said: list[str], shared: list[Block], sections: list[Section], scores: dict[str, str]) -> None:
    (folder / "figures").mkdir(parents=True)
    for block in [*shared, *(block for section in sections for block in section.blocks)]:
        if block.data:
            (folder / f"{block.name}.csv").write_text(block.data, encoding="utf-8")
        if block.picture:
            (folder / "figures" / f"{block.name}.{block.picture.kind}").write_bytes(block.picture.content)
    title = f"Sweep {sections[0].title}" if len(sections) == 1 else "Sweeps"
    values = {"title": title, "answers": said, "shared": shared, "sections": sections, "scores": scores, "mark": BEATS}
    (folder / PAGE).write_text(rendered(Path(__file__).parent / "page.html", **values), encoding="utf-8")


def _section(name: str, sweep: Sweep, pixels: bool, cache: str, cache_limit: str) -> Section:
    """A sweep's part of the page; what the sweep cannot give is left out."""
    maps = LatentMaps(sweep)
    if pixels:
        pictures = image_blocks.pictures(sweep, name, cache, cache_limit)
    else:
        sentence = "Closest matches and extremes are left out: this report must not show this sweep's images."
        pictures = [Block(f"{name}-matches", "Closest matches and extremes", sentence)]
    blocks = [
        table_2(sweep, f"{name}-table-2") if sweep.labelled else None,
        table_1(sweep, f"{name}-table-1"),
        curve_blocks.auc_over_gamma(sweep, f"{name}-gamma"),
        curve_blocks.auc_over_lambda(sweep, f"{name}-lambda"),
        *curve_blocks.label_free(sweep, f"{name}-label-free"),
        choice_table(sweep, f"{name}-choice"),
        curve_blocks.terms(sweep, f"{name}-terms"),
        maps.figure_2(f"{name}-figure-2"),
        maps.figure_3(f"{name}-figure-3"),
        maps.figure_4(f"{name}-figure-4"),
        score_histograms(sweep, f"{name}-scores"),
        *pictures,
        curve_blocks.roc(sweep, f"{name}-roc"),
    ]
    return Section(name, _intro(sweep), [block for block in blocks if block])


def _intro(sweep: Sweep) -> str:
    done, planned = len(sweep.trials), len(sweep.plan.trials)
    state = f"All {planned} trials are finished." if done == planned else f"{done} of {planned} trials are finished."
    labels = (
        ""
        if sweep.labelled
        else " The images have no labels: there are no AUCs, and training images stand for test images."
    )
    return state + labels


def _overview(named: list[tuple[str, Sweep]]) -> Block:
    """What was swept, a column a sweep."""
    facts = [
        {
            "dataset": sweep.plan.data,
            "images": ", ".join(f"{pool} {count:,}" for pool, count in sweep.plan.dataset.get("counts", {}).items()),
            "preset": str(sweep.plan.facts.get("preset", "")),
            "resolution": listed(sorted({trial.resolution for trial in sweep.trials})),
            "width": listed(sorted({trial.config["width"] for trial in sweep.trials if "width" in trial.config})),
            "images seen": listed(f"{seen:,}" for seen in sorted({trial.images_seen for trial in sweep.trials})),
            "γ": listed(sweep.gammas),
            "seeds": listed(sweep.seeds),
            "methods": listed(dict.fromkeys(title_of_method(variant.method) for variant in sweep.variants)),
            "options": "; ".join(dict.fromkeys(v.options for v in sweep.variants if v.options)),
            "trials finished": f"{len(sweep.trials)} of {len(sweep.plan.trials)}",
        }
        for _, sweep in named
    ]
    rows = [[key, *(part[key] for part in facts)] for key in facts[0] if any(part[key] for part in facts)]
    head = ["", *(name for name, _ in named)]
    caption = "Methods, γ and seeds are those of the finished trials."
    return Block("overview", "What was swept", caption, head, rows, data=csv_text(head, rows))


def _short_names(sweeps: list[Sweep]) -> list[str]:
    """The plans' names fit for files; those that are not the only ones get a number."""
    names = [re.sub(r"[^\w-]+", "_", sweep.plan.name) or "sweep" for sweep in sweeps]
    count = Counter(names)
    return [name if count[name] == 1 else f"{name}_{place}" for place, name in enumerate(names, start=1)]
