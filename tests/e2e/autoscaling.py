"""A Ray cluster whose autoscaler brings nodes, as processes of this machine, when asked to.

Ray has a provider of such nodes for tests. ray.cluster_utils.AutoscalingCluster is not used: it
ends every Ray of the machine before it starts.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.commands.start import WITHOUT_TORCH
from tests.e2e.processes import started
from tests.servers.ports import free_port

RAY = Path(sys.executable).parent / "ray"


@contextmanager
def autoscaling_cluster(folder: Path, *, max_gpu_nodes: int) -> Iterator[dict[str, str]]:
    """Start a head without CPUs; nodes with a CPU and a GPU come when they are asked for.

    The GPUs are numbers that Ray hands out. Yields the environment in which a process joins; at the
    end nothing is left.
    """
    node_types = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "gpu": {
            "resources": {"CPU": 1, "GPU": 1},
            "node_config": {},
            "min_workers": 0,
            "max_workers": max_gpu_nodes,
        },
    }
    port = free_port()
    address = f"127.0.0.1:{port}"
    commands = ("initialization", "setup", "head_setup", "worker_setup")
    starts = ("head_start_ray", "worker_start_ray")
    config = {
        "cluster_name": "fake_multinode",
        "max_workers": max_gpu_nodes,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            # All nodes have this machine's address: without the first the autoscaler takes none of
            # them for alive, and nothing can be installed on them, or be out of date there.
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        # `ray up` would fill these in; the autoscaler wants every one.
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "upscaling_speed": 1.0,
        **{f"{name}_commands": [] for name in (*commands, *starts)},
        "available_node_types": node_types,
        "head_node_type": "ray.head.default",
        # Some seconds, as nothing waits here for a next job.
        "idle_timeout_minutes": 0.2,
    }
    (folder / "autoscaler.json").write_text(json.dumps(config))
    credentials = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    environment = {
        **credentials,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_ADDRESS": "",
        "PYTHONPATH": WITHOUT_TORCH,
    }
    command: list[str | Path] = [
        *(RAY, "start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=false"),
        *(f"--port={port}", "--num-cpus=0", f"--autoscaling-config={folder}/autoscaler.json"),
    ]
    with started(command, folder / "ray-log", environment=environment) as process:
        process.wait_until(lambda: "Ray runtime started" in process.output)
        yield {**credentials, "RAY_ADDRESS": address}
