"""The paper's 2.2 million rows as tables: seconds to make them, seconds and megabytes to open them, per rank.

python benchmarks/rows.py [--scale 1.0] [--folder DIR]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Wang et al. 2025, App. B
PAPER = {
    "LLaVA-Hound": 255_000,
    "LLaVA-Video-178K": 1_335_500,
    "ActivityNet-QA": 23_530,
    "NExT-QA": 34_114,
    "PerceptionTest": 2_403,
    "VideoInstruct100K": 100_010,
    "VCG-112K": 112_716,
    "VideoChatGPT": 25_803,
    "VideoChat": 40_807,
    "Kinetics-710": 39_949,
    "Something-Something-v2": 40_000,
    "CLEVRER": 82_620,
    "WebVid": 99_922,
}
TEXT = "The video shows a person who walks through a room, picks up a cup, and puts it on a table beside a window. "


def write_annotations(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.write("[")
        for number in range(count):
            turns = [
                {"from": "human", "value": f"<image>\nWhat happens in clip {number}?"},
                {"from": "gpt", "value": TEXT * (1 + number % 8)},
            ]
            row = {"id": str(number), "video": f"academic/{number:07}.mp4", "conversations": turns}
            file.write(("," if number else "") + json.dumps(row))
        file.write("]")


RANK = """
import resource, sys, time
from pathlib import Path
import numpy, pyarrow.compute
from vvlm_ray.data.mixtures import nested_subset
from vvlm_ray.data.table import Rows

def memory():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    return kilobytes["Anonymous"] / 1024  # the mapped table is the page cache's

before, start = memory(), time.perf_counter()
mixture = {path.stem: Rows(path, path.stem, Path("videos")) for path in Path(sys.argv[1]).glob("*.arrow")}
opened = time.perf_counter()
subset = nested_subset(mixture, int(float(sys.argv[2]) * sum(map(len, mixture.values()))), seed=0)
chosen = time.perf_counter()
after = memory()
places = numpy.random.default_rng(0).integers(0, len(subset), 10_000)
fetch = time.perf_counter()
for place in places:
    subset[int(place)]
print(f"{len(subset):,} examples: opened in {opened - start:.3f} s, subset chosen in {chosen - opened:.2f} s, "
      f"{after - before:.0f} MB of its own; an example in {(time.perf_counter() - fetch) / len(places) * 1e6:.0f} us; "
      f"after 10,000 of them {memory() - before:.0f} MB")
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        run(Path(scratch), options.scale)


def run(folder: Path, scale: float) -> None:
    from vvlm_ray.data.digests import Digests
    from vvlm_ray.data.examples import Layout
    from vvlm_ray.data.table import write_table

    files = {}
    for name, count in PAPER.items():
        files[name] = folder / f"{name}.json"
        write_annotations(files[name], max(1, int(count * scale)))
    size = sum(path.stat().st_size for path in files.values())
    start = time.process_time()
    for path in files.values():
        Digests().of(path)
    hashed = time.process_time()
    for name, path in files.items():
        write_table(folder / f"{name}.arrow", [path], name, Layout())
    made = time.process_time()
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    tables = sum(path.stat().st_size for path in folder.glob("*.arrow"))
    print(
        f"{size / 1e9:.2f} GB of JSON: hashed in {hashed - start:.1f} CPU-s, written as {tables / 1e9:.2f} GB of "
        f"tables in {made - hashed:.1f} CPU-s, peak {peak:.0f} MB"
    )
    for share in ("1", "0.25"):
        done = subprocess.run(
            [sys.executable, "-c", RANK, str(folder), share], check=True, capture_output=True, text=True
        )
        print(done.stdout.strip())


if __name__ == "__main__":
    main()
