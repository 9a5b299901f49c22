"""What a cluster has room for, where it grows with its work."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from ray import _raylet
from ray.core.generated import autoscaler_pb2

from trainer.on_ray.session import available, has_gpus, ray_session

INSIDE: Any = _raylet
MESSAGES: Any = autoscaler_pb2  # made by protobuf as it is imported


@pytest.mark.slow
def test_machines_that_are_not_there_yet_count() -> None:
    """An autoscaler tells Ray what there may be, as this test does in its place."""
    with ray_session(2):
        assert available("GPU") == 0 and not has_gpus(1)
        here = available("CPU")
        group = MESSAGES.NodeGroupConfig(name="gpu", resources={"CPU": 4, "GPU": 2}, min_count=0, max_count=3)
        config = MESSAGES.ClusterConfig(node_group_configs=[group])
        INSIDE.GcsClient(ray.get_runtime_context().gcs_address).report_cluster_config(config.SerializeToString())
        assert ray.cluster_resources().get("GPU", 0) == 0
        assert available("GPU") == 6 and available("CPU") == max(12, here)
        assert has_gpus(6) and not has_gpus(7)
