"""The graph as a file: ONNX, or a torch.export program."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch

from data_tools.errors import UserError
from trainer.export import Format
from trainer.export.graph import graph_of
from trainer.scoring.detector import Detector
from trainer.scoring.ensemble import Ensemble


def model_name(form: Format) -> str:
    return "model.onnx" if form == "onnx" else "model.pt2"


def write_model(detector: Detector | Ensemble, form: Format, folder: Path) -> None:
    """Write the graph; any number of images at a time."""
    side, channels = detector.resolution, detector.channels
    graph, example = graph_of(detector).eval(), torch.zeros(2, side, side, channels)
    shapes = {"images": {0: torch.export.Dim("images", min=1)}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(graph, (example,), dynamic_shapes=shapes)
        if form == "torch":
            torch.export.save(program, folder / model_name(form))
            return
        try:
            import onnxscript  # noqa: F401
        except ImportError:
            raise UserError("--format onnx needs packages that are missing - pip install 'stratagan[onnx]'") from None
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # that there is no torchvision
        torch.onnx.export(
            program,
            (),
            folder / model_name(form),
            input_names=["images"],
            output_names=list(graph.outputs),
            external_data=False,
            optimize=False,  # its optimiser takes the 1e-8 under our square roots for 0; the runtime has one of its own
            verbose=False,
        )
    _forget_sources(folder / model_name(form))


def _forget_sources(path: Path) -> None:
    """Take out of an ONNX file what its exporter notes of each operation: whose lines on which machine made it."""
    import onnx

    model = onnx.load(path)
    for holder in (model.graph, *model.functions):
        for node in holder.node:
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
    onnx.save(model, path)
