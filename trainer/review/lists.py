"""What the decisions become: exclude.txt, to train without junk, and labels.csv, a row for each image decided."""

from __future__ import annotations

import io

from data_tools.dataset.exclusion import written_key
from data_tools.storage import open_storage, write_bytes
from data_tools.text import CsvWriter
from trainer.run.decisions import JUNK, OPEN, Decisions

EXCLUDE, LABELS = "exclude.txt", "labels.csv"


def write_lists(url: str, decisions: Decisions, left_out: list[str]) -> None:
    """Write both into the folder of a review.

    left_out: keys that the run did without already; a list that lacked them would bring them back.
    """
    storage = open_storage(url)
    with decisions.lock:
        latest = sorted((key, each) for key, each in decisions.latest.items() if each.choice != OPEN)
    junk = [(key, each) for key, each in latest if each.choice == JUNK]
    lines = [f"# {len(junk)} training images that people called junk; delete the lines of those to keep"]
    lines += [f"{written_key(key)}  # {' '.join(each.by.split())}, {each.at[:19]}" for key, each in junk]
    lines += [f"# {len(left_out)} that the run did without"] if left_out else []
    lines += [written_key(key) for key in left_out]
    write_bytes(storage, EXCLUDE, ("\n".join(lines) + "\n").encode())
    text = io.StringIO(newline="")
    writer = CsvWriter(text)
    writer.writerow(["key", "label", "by", "at"])
    writer.writerows([key, each.choice, each.by, each.at] for key, each in latest)
    write_bytes(storage, LABELS, text.getvalue().encode())
