"""All that a detector computes with networks, as one module that torch.export and ONNX can take."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from trainer.scoring.detector import Detector
from trainer.scoring.ensemble import Ensemble, own_name
from trainer.scoring.heat import blurred, difference_map
from trainer.scoring.terms.base import Compared, Response
from trainer.training.batches import at_resolution, faded

HEAT = "heat"


class ScoringGraph(nn.Module):
    """Images to the terms of their score, and calibrated heat maps where there are any, each image by itself."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        inference, calibration = detector.inference, detector.calibration
        assert calibration
        self.networks = nn.ModuleDict({name: copy.deepcopy(each).cpu() for name, each in inference.networks.items()})
        self.alpha = None if inference.alpha is None else inference.alpha.cpu()
        named, device = dict(self.networks.items()), torch.device("cpu")
        self.method, self.terms, self.contrast = inference.method, detector.joined, inference.contrast
        self.trained = replace(inference.trained, networks=named, alpha=self.alpha, device=device)
        self.kept = nn.ParameterDict(
            {name: nn.Parameter(torch.from_numpy(rows), requires_grad=False) for name, rows in calibration.kept.items()}
        )
        heat = calibration.heat
        self.has_heat = heat is not None
        if heat:
            self.middle, self.spread = (nn.Buffer(torch.from_numpy(each)) for each in (heat.middle, heat.spread))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what `forward` returns."""
        return (*(term.name for term in self.terms), *([HEAT] if self.has_heat else []))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: float32 N x r x r x C in [0, 255]. Returns a term of length N each, then heat maps N x r x r."""
        queries = faded(self.contrast.seen(images.permute(0, 3, 1, 2)), self.alpha)
        response = Response(self.method, self.trained, queries)
        result = []
        for term in self.terms:
            value = term.of(response)
            result.append(term.distance(value, self.kept[term.kept_as], None) if isinstance(term, Compared) else value)
        if self.has_heat:
            result.append((blurred(difference_map(queries, response.matches)) - self.middle) / self.spread)
        return tuple(result)


class EnsembleGraph(nn.Module):
    """Images to all terms of several runs, and the mean of their heat maps where all have some of one size."""

    def __init__(self, detector: Ensemble) -> None:
        super().__init__()
        members = list(detector.members.values())
        graphs = [ScoringGraph(member) for member in members]
        self.graphs, self.terms = nn.ModuleList(graphs), [graph.terms for graph in graphs]
        self.factors = [detector.resolution // member.resolution for member in members]
        self.has_heat = all(graph.has_heat for graph in graphs) and set(self.factors) == {1}

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what `forward` returns."""
        terms = (own_name(number, term.name) for number, own in enumerate(self.terms) for term in own)
        return (*terms, *([HEAT] if self.has_heat else []))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """images: float32 N x r x r x C in [0, 255], r the greatest side of the runs."""
        result, maps = list[Tensor](), list[Tensor]()
        for graph, terms, factor in zip(self.graphs, self.terms, self.factors):
            small = at_resolution(images.permute(0, 3, 1, 2), images.shape[1] // factor).permute(0, 2, 3, 1)
            outputs = graph(small)
            result += outputs[: len(terms)]
            maps += outputs[len(terms) :]
        if self.has_heat:
            result.append(torch.stack(maps).mean(0))
        return tuple(result)


def graph_of(detector: Detector | Ensemble) -> ScoringGraph | EnsembleGraph:
    return EnsembleGraph(detector) if isinstance(detector, Ensemble) else ScoringGraph(detector)
