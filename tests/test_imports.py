"""Modules that import each other in a circle work or fail by who is imported first: there are none."""

from __future__ import annotations

import grimp
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cluster.package import PROGRAMS


def circles(graph: grimp.ImportGraph) -> list[list[str]]:
    """The largest sets of modules that all reach one another by imports, those within functions too."""
    modules = sorted(graph.modules)
    number = {module: i for i, module in enumerate(modules)}
    pairs = [(i, number[found]) for i, each in enumerate(modules) for found in _imported(graph, each)]
    importers, imported = np.array(pairs or np.zeros((0, 2)), int).T
    edges = coo_array((np.ones(len(pairs)), (importers, imported)), shape=(len(modules), len(modules)))
    _, labels = connected_components(edges, connection="strong")
    groups = [
        [modules[i] for i in np.flatnonzero(labels == label)] for label in np.flatnonzero(np.bincount(labels) > 1)
    ]
    return sorted(groups)


def _imported(graph: grimp.ImportGraph, module: str) -> set[str]:
    return graph.find_modules_directly_imported_by(module)


def test_circles_are_found() -> None:
    graph = grimp.ImportGraph()
    for importer, imported in ("ab", "bc", "ca", "cd", "de", "ed", "ef"):
        graph.add_import(importer=importer, imported=imported)
    assert circles(graph) == [["a", "b", "c"], ["d", "e"]]
    assert circles(grimp.ImportGraph()) == []


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = grimp.build_graph(*PROGRAMS, exclude_type_checking_imports=True, cache_dir=None)
    found = []
    for group in circles(graph):
        imports = [f"{each} imports {other}" for each in group for other in sorted(_imported(graph, each) & {*group})]
        found.append("\n  ".join([f"{len(group)} modules in a circle:", *imports]))
    assert not found, "\n".join(found)
