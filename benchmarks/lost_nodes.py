"""One trial on a cluster whose node under it is removed three times; it must finish without an attempt that counts.

    python benchmarks/lost_nodes.py

Starts a cluster of `ray.cluster_utils` on this machine (a head without CPUs and a node of one), runs a study of one
trial that writes a checkpoint a second, and removes the node, without notice, whenever two further checkpoints are
there.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

QUICKSTART = Path(__file__).parents[1] / "sweeps" / "quickstart.yaml"
TIMES = 3


def write_sweep(folder: Path) -> Path:
    raw = yaml.safe_load(QUICKSTART.read_text())
    small = raw["backbones"]["small"]
    raw["synthetic"] = {"num_train": 200, "num_test": 32, "seed": 0, "base_training": 0.02}
    raw["backbones"] = {"small": small}
    raw["sweeps"] = [{"kind": "points", "points": [[small["lm_params"], 2, 4, 190]]}]
    raw["finetune"]["epochs"] = 40
    raw["resources"] |= {"checkpoint_every_seconds": 1.0, "max_retries": 0}
    raw.pop("grid"), raw.pop("answer")
    raw["name"] = "nodes"
    path = folder / "nodes.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def main() -> None:
    from ray.cluster_utils import Cluster

    work = Path(tempfile.mkdtemp(prefix="lost-nodes-"))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    command = ["run", str(write_sweep(work)), "--storage", str(work / "studies"), "--slots", "1"]
    run = subprocess.Popen(
        [sys.executable, "-m", "vvlm_ray", *command],
        env=os.environ | {"RAY_ADDRESS": cluster.address, "WANDB_MODE": "offline"},
    )
    study, removed, reached = work / "studies" / "nodes", 0, 0
    while run.poll() is None:
        time.sleep(0.5)
        manifests = study.glob("trials/*/checkpoints/*/manifest.json")
        newest = max((int(manifest.parent.name) for manifest in manifests), default=0)
        if removed < TIMES and newest >= reached + 2:
            print(f"{time.strftime('%T')} the node is removed, at checkpoint {newest}", flush=True)
            cluster.remove_node(node, allow_graceful=False)
            node, removed, reached = cluster.add_node(num_cpus=1), removed + 1, newest
    cluster.shutdown()
    events = [json.loads(line) for line in (study / "ledger.jsonl").read_text().splitlines()]
    for event in events:
        print({key: event.get(key) for key in ("event", "attempt", "outcome", "cause", "counts", "resumes_from")})
    has_finished = any(study.glob("trials/*/record.json")) and not any(event.get("counts") for event in events)
    print(f"removed {removed} times; {'finished, and no attempt counted' if has_finished else 'NOT as it should be'}")
    sys.exit(run.returncode or not has_finished)


if __name__ == "__main__":
    main()
