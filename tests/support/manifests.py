"""The manifests of k8s/ as kustomize builds them, and the pods in them, for tests."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = sorted(
    path.parent.relative_to(ROOT / "k8s/overlays").as_posix()
    for path in ROOT.glob("k8s/overlays/**/kustomization.yaml")
)
CRDS = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared/data/kuberay_crds"))
"""KubeRay's custom resource definitions, ray.io_*.yaml or .yaml.xz: ray-operator/config/crd/bases of its repository."""


CLAIMS, CLAIMED = "volumeClaimTemplates", {"persistentVolumeClaim": {"claimName": "one-of-its-own"}}


class Pod(NamedTuple):
    """A pod's template, where it was found, and how often there may be one at a time."""

    place: str
    metadata: dict[str, Any]
    spec: dict[str, Any]


@cache
def built(overlay: str) -> list[dict[str, Any]]:
    """An overlay's objects, by kustomize."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    words = ["kubectl", "kustomize", str(ROOT / "k8s/overlays" / overlay)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def ray_spec(item: dict[str, Any]) -> dict[str, Any] | None:
    """The RayCluster spec in an object of KubeRay's."""
    key = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}.get(item["kind"])
    return item["spec"][key] if key else item["spec"] if item["kind"] == "RayCluster" else None


def pods(item: dict[str, Any]) -> Iterator[Pod]:
    """All pod templates in an object."""
    templates = {"template": item.get("spec", {}).get("template")}
    if spec := ray_spec(item):
        templates["head"] = spec["headGroupSpec"]["template"]
        templates |= {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
        templates["submitter"] = item["spec"].get("submitterPodTemplate")
    claims = [{"name": claim["metadata"]["name"], **CLAIMED} for claim in item.get("spec", {}).get(CLAIMS, [])]
    for name, template in templates.items():
        if template:
            spec = template["spec"] | {"volumes": template["spec"].get("volumes", []) + claims}
            yield Pod(f"{item['kind']} {item['metadata']['name']}: {name}", template["metadata"], spec)


def custom_schema(kind: str) -> dict[str, Any]:
    """The schema of a kind of KubeRay's, of its version v1."""
    path = CRDS / f"ray.io_{kind.lower()}s.yaml"
    packed = path.with_suffix(".yaml.xz")
    if not path.exists() and not packed.exists():
        pytest.skip(f"KubeRay's {path.name} is not in {CRDS}: set KUBERAY_CRDS")
    text = path.read_bytes() if path.exists() else lzma.decompress(packed.read_bytes())
    definition = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (schema,) = (v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["name"] == "v1")
    return closed(schema)


def closed(schema: Any) -> Any:
    """A schema that names all properties allows no others: what an API server prunes is a typo."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    parts = {key: closed(part) for key, part in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    named = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if named and not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
        parts["additionalProperties"] = False
    return parts
