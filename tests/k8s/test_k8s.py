"""The manifests: schemas of Kubernetes and KubeRay, what those let through, and our own policies."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from tests.support.manifests import OVERLAYS, ROOT, Pod, built, custom_schema, pods, ray_spec
from trainer.presets import PRESETS

KUBERNETES = "1.33"
LONGEST = {"RayJob": 47, "RayService": 47, "RayCluster": 53}
MODES = {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"}
METADATA = {"apiVersion": {}, "kind": {}, "metadata": {}}
everywhere = pytest.mark.parametrize("overlay", OVERLAYS)


def all_pods(overlay: str) -> list[Pod]:
    return [pod for item in built(overlay) for pod in pods(item)]


def containers(pod: Pod) -> list[dict[str, Any]]:
    return pod.spec.get("initContainers", []) + pod.spec["containers"]


def test_every_overlay_is_there() -> None:
    jobs = ("", "/serve", "/sweep", "/train")
    assert {*(f"cpu-small{job}" for job in jobs), *(f"gpu{job}" for job in jobs), "with-store"} == set(OVERLAYS)
    assert all(built(overlay) for overlay in OVERLAYS)


@everywhere
def test_kubernetes_knows_every_field(overlay: str) -> None:
    for item in built(overlay):
        if not item["apiVersion"].startswith("ray.io/"):
            kubernetes_validate.validate(item, KUBERNETES, strict=True)
        for pod in pods(item):
            whole = {"apiVersion": "v1", "kind": "Pod", "metadata": pod.metadata, "spec": pod.spec}
            kubernetes_validate.validate(whole, KUBERNETES, strict=True)


@everywhere
def test_kuberay_knows_every_field(overlay: str) -> None:
    for item in built(overlay):
        if item["apiVersion"] == "ray.io/v1":
            schema = custom_schema(item["kind"])
            schema["properties"]["metadata"] = {}
            jsonschema.Draft202012Validator(schema).validate(item)


def test_the_schema_test_finds_a_typo() -> None:
    (job,) = built("gpu/train")
    schema = custom_schema("RayJob")
    schema["properties"]["metadata"] = {}
    wrong = [
        {"backofLimit": 1},
        {"backoffLimit": "5"},
        {"rayClusterSpec": {**job["spec"]["rayClusterSpec"], "rayVersoin": ""}},
    ]
    for part in wrong:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(schema).validate({**job, "spec": {**job["spec"], **part}})


@everywhere
def test_what_kuberays_operator_refuses_and_no_schema_does(overlay: str) -> None:
    for item in built(overlay):
        spec, cluster = item.get("spec", {}), ray_spec(item)
        if cluster is None:
            continue
        assert len(item["metadata"]["name"]) <= LONGEST[item["kind"]]
        assert len({group["groupName"] for group in cluster["workerGroupSpecs"]}) == len(cluster["workerGroupSpecs"])
        for group in cluster["workerGroupSpecs"]:
            assert 0 <= group["minReplicas"] <= group.get("replicas", group["minReplicas"]) <= group["maxReplicas"]
        if cluster["autoscalerOptions"]["version"] == "v2":
            groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
            assert all(group["template"]["spec"].get("restartPolicy", "Never") == "Never" for group in groups)
        if item["kind"] == "RayJob":
            assert spec["submissionMode"] in MODES and spec["entrypoint"] and "clusterSelector" not in spec
            assert spec["shutdownAfterJobFinishes"] or not spec.get("ttlSecondsAfterFinished")


@everywhere
def test_quantities_are_whole_and_requests_within_limits(overlay: str) -> None:
    for pod in all_pods(overlay):
        for container in containers(pod):
            resources = container["resources"]
            assert resources["requests"].keys() == resources["limits"].keys() >= {"cpu", "memory"}, pod.place
            for name, request in resources["requests"].items():
                assert amount(request) <= amount(resources["limits"][name]), (pod.place, name)
        in_memory = [
            v["emptyDir"]["sizeLimit"] for v in pod.spec.get("volumes", []) if v.get("emptyDir", {}).get("medium")
        ]
        assert sum(map(amount, in_memory)) < amount(pod.spec["containers"][0]["resources"]["limits"]["memory"]) / 2


def amount(quantity: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(m|Ki|Mi|Gi|Ti|)", str(quantity)).groups()  # type: ignore[union-attr]
    return float(number) * {"m": 1e-3, "": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}[unit]


@everywhere
def test_nobody_is_root_and_nothing_can_be_written_but_volumes(overlay: str) -> None:
    for pod in all_pods(overlay):
        person = pod.spec["securityContext"]
        assert person["runAsNonRoot"] and person["runAsUser"] > 0, pod.place
        assert person["seccompProfile"] == {"type": "RuntimeDefault"}, pod.place
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys(), pod.place
        assert not any("hostPath" in volume for volume in pod.spec.get("volumes", [])), pod.place
        assert pod.spec["serviceAccountName"] != "default", pod.place
        assert pod.spec["automountServiceAccountToken"] is False, pod.place
        for container in containers(pod):
            locked(container["securityContext"])
    for item in built(overlay):
        if cluster := ray_spec(item):
            locked(cluster["autoscalerOptions"]["securityContext"])
            assert cluster["autoscalerOptions"]["resources"]["limits"].keys() == {"cpu", "memory"}


def locked(context: dict[str, Any]) -> None:
    assert context["readOnlyRootFilesystem"] is True and context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}


@everywhere
def test_images_are_ours_by_version_and_digest(overlay: str) -> None:
    images = {container["image"] for pod in all_pods(overlay) for container in containers(pod)}
    assert len(images) == 1
    name, tag, digest = re.fullmatch(r"(.+):([^:@]+)@sha256:([0-9a-f]{64})", images.pop()).groups()  # type: ignore[union-attr]
    assert name.endswith("/stratagan") and tag == f"{project()['version']}-ray{ray_version()}"
    assert digest == "0" * 64, "nobody's, until somebody has built one"


def test_the_image_stands_on_an_exact_version() -> None:
    (base,) = re.findall(r"^FROM (\S+)$", (ROOT / "k8s/Dockerfile").read_text(), re.MULTILINE)
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", base)


@everywhere
def test_the_autoscaler_alone_has_a_token_of_kubernetes(overlay: str) -> None:
    """Jobs' drivers run in the head's other container."""
    for item in built(overlay):
        if item["kind"] == "ServiceAccount":
            assert item["automountServiceAccountToken"] is False
        if cluster := ray_spec(item):
            mounts = {m["name"]: m for m in cluster["autoscalerOptions"]["volumeMounts"]}
            place = "/var/run/secrets/kubernetes.io/serviceaccount"
            assert mounts["kubernetes"] == {"name": "kubernetes", "mountPath": place, "readOnly": True}
    for pod in all_pods(overlay):
        projected = {volume["name"] for volume in pod.spec.get("volumes", []) if "projected" in volume}
        assert projected == ({"kubernetes"} if pod.spec["serviceAccountName"] == "stratagan-head" else set())
        mounted = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
        assert not mounted & projected, pod.place


@everywhere
def test_keys_that_write_are_where_something_is_written(overlay: str) -> None:
    for pod in all_pods(overlay):
        found = {
            source["secretRef"]["name"]
            for container in containers(pod)
            for source in container.get("envFrom", [])
            if "secretRef" in source
        }
        place = pod.place.split()[1].rstrip(":")
        wanted = {"tensorboard": {"stratagan-s3-read"}}.get(place, {"stratagan-s3"})
        assert found == (set() if pod.place.endswith("submitter") else wanted), pod.place


NETWORKS = ("gpu", "cpu-small", "with-store")


def policies(overlay: str, way: str) -> list[dict[str, Any]]:
    found = [item["spec"] for item in built(overlay) if item["kind"] == "NetworkPolicy"]
    return [spec for spec in found if way in spec["policyTypes"]]


@pytest.mark.parametrize("overlay", NETWORKS)
@pytest.mark.parametrize(("way", "whom"), [("Ingress", "from"), ("Egress", "to")])
def test_nothing_comes_or_goes_but_by_a_rule_that_names_whom_and_where(overlay: str, way: str, whom: str) -> None:
    assert any(spec["podSelector"] == {} for spec in policies(overlay, way)), "the rule for all pods"
    for spec in policies(overlay, way):
        for rule in spec[way.lower()]:
            assert rule.get(whom), "a rule without a peer lets everybody through"
            for peer in rule[whom]:
                if peer == {"podSelector": {}}:
                    continue  # our own
                assert rule.get("ports"), peer
                if "ipBlock" in peer:
                    assert int(peer["ipBlock"]["cidr"].rpartition("/")[2]) >= 16
                else:
                    names = peer["namespaceSelector"]["matchLabels"]
                    assert names.keys() == {"kubernetes.io/metadata.name"}, "others may wear the same labels"
                    assert peer["podSelector"]["matchLabels"]


@pytest.mark.parametrize("overlay", NETWORKS)
def test_who_reaches_what_outside(overlay: str) -> None:
    """By the labels that the pods have; KubeRay adds the node's type."""
    reached = {}
    for job in ("", "/train", "/sweep", "/serve"):
        for pod in all_pods(overlay + job) if overlay + job in OVERLAYS else []:
            kind = {"head": "head", "submitter": ""}.get(pod.place.split(": ")[1], "worker")
            labels = pod.metadata["labels"] | ({"ray.io/node-type": kind} if "Ray" in pod.place else {})
            blocks = {
                peer["ipBlock"]["cidr"]
                for spec in policies(overlay, "Egress")
                if spec["podSelector"].get("matchLabels", {}).items() <= labels.items()
                for rule in spec["egress"]
                for peer in rule["to"]
                if "ipBlock" in peer
            }
            who = pod.place.split()[1].rstrip(":") if kind == "worker" and "Ray" not in pod.place else kind
            assert reached.setdefault(who, blocks) == blocks, pod.place
    storage, kubernetes = "192.0.2.0/24", "198.51.100.0/24"
    wanted = {"head": {storage, kubernetes}, "worker": {storage}, "tensorboard": {storage}}
    wanted |= {"store": set()} if overlay == "with-store" else {"": set()}
    assert reached == wanted


@everywhere
def test_servers_of_ours_are_probed(overlay: str) -> None:
    for item in built(overlay):
        if item["kind"] in ("Deployment", "StatefulSet"):
            for container in item["spec"]["template"]["spec"]["containers"]:
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()


@everywhere
def test_all_secrets_accounts_and_settings_that_are_named_are_there(overlay: str) -> None:
    """A job's overlay stands on its platform, which is applied before; the Secret is made by hand from the example."""
    platform = built(overlay.partition("/")[0])
    examples = list(yaml.safe_load_all((ROOT / "k8s/secret.example.yaml").read_text()))
    there = {(item["kind"], item["metadata"]["name"]) for item in [*platform, *examples]}
    for pod in all_pods(overlay):
        for container in containers(pod):
            for source in container.get("envFrom", []):
                kind, name = next(
                    ("ConfigMap" if "Map" in key else "Secret", value["name"]) for key, value in source.items()
                )
                assert (kind, name) in there, (pod.place, name)
            assert not any(
                "value" in env and re.search("KEY|TOKEN|SECRET|PASSWORD", env["name"])
                for env in container.get("env", [])
            )
        assert ("ServiceAccount", pod.spec["serviceAccountName"]) in there, pod.place
        mounted = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
        of_autoscaler = {"kubernetes"} if pod.place.endswith(": head") else set()
        assert mounted | of_autoscaler == {volume["name"] for volume in pod.spec.get("volumes", [])}, pod.place
    assert not any(item["kind"] == "Secret" for item in built(overlay))
    assert {item["metadata"].get("namespace", "stratagan") for item in [*built(overlay), *examples]} == {"stratagan"}


@everywhere
def test_policies_and_services_find_their_pods(overlay: str) -> None:
    labels = [pod.metadata["labels"] for pod in all_pods(overlay)]
    assert all(found["app.kubernetes.io/part-of"] == "stratagan" for found in labels)
    for item in built(overlay):
        if item["kind"] == "Service":
            assert any(item["spec"]["selector"].items() <= found.items() for found in labels)
        if item["kind"] == "PodDisruptionBudget":  # KubeRay labels the head
            selector = item["spec"]["selector"]["matchLabels"]
            assert selector.pop("ray.io/node-type") == "head" and selector.items() <= labels[0].items()


def test_a_job_has_the_cluster_of_its_overlay() -> None:
    for overlay in ("gpu", "cpu-small"):
        (shared,) = (item for item in built(overlay) if item["kind"] == "RayCluster")
        for job in ("train", "sweep", *(["serve"] if overlay == "cpu-small" else [])):
            (item,) = built(f"{overlay}/{job}")
            assert ray_spec(item) == shared["spec"]
    gpus = [pod.spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for pod in all_pods("gpu/train")]
    assert gpus == [None, "8", None]
    gpus = [pod.spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for pod in all_pods("gpu/serve")]
    assert gpus == [None, "1"]


@pytest.mark.parametrize("job", ["train", "sweep"])
def test_the_commands_of_the_jobs_are_ours(job: str) -> None:
    (item,) = built(f"gpu/{job}")
    words = item["spec"]["entrypoint"].split()
    assert words[:2] == ["python", "-m"]
    known = subprocess.run([sys.executable, *words[1:4], "--help"], capture_output=True, text=True, check=True).stdout
    assert all(word in known for word in words if word.startswith("--"))
    assert words[words.index("--preset") + 1] in PRESETS


@pytest.mark.parametrize("overlay", ["gpu", "cpu-small"])
def test_the_service_is_what_ray_serve_takes(overlay: str) -> None:
    (item,) = built(f"{overlay}/serve")
    config = ServeDeploySchema.model_validate(yaml.safe_load(item["spec"]["serveConfigV2"]))
    (application,) = config.applications
    module, _, name = application.import_path.partition(":")
    made = getattr(importlib.import_module(module), name)(application.args)
    assert {deployment.name for deployment in application.deployments} == {made._bound_deployment.name}


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def ray_version() -> str:
    """The oldest Ray that the project takes, which is the one that the manifests pin."""
    (found,) = (m for line in project()["dependencies"] if (m := re.fullmatch(r"ray\[[\w,]+\]>=([\d.]+),<3", line)))
    return found[1]


@everywhere
def test_one_version_of_ray_everywhere(overlay: str) -> None:
    found = [cluster["rayVersion"] for item in built(overlay) if (cluster := ray_spec(item))]
    assert set(found) == {ray_version()}
    assert f"ARG RAY_VERSION={ray_version()}\n" in (ROOT / "k8s/Dockerfile").read_text()
