"""`ray start` of a further node whose servers keep to loopback: Ray itself keeps only a head to that."""

from ray._private import ray_constants, services
from ray.scripts.scripts import main

if __name__ == "__main__":
    ray_constants.ENABLE_RAY_CLUSTER = True
    services.resolve_ip_for_localhost = lambda host: host
    main()
