"""How fast clips reach a trial: decoded from their videos, and from the frame store, on one loader process.

    python benchmarks/loader.py

A clip is 15 s, 30 fps, 854x480, H.264 with a key frame every 2 s, as videos of the web are. CPU-seconds of the reading
process and of its decoding process together, so the numbers hold on a busy machine. The GPU's side is arithmetic:
3 c(x) FLOPs an example (Wang et al. 2025, Eq. 1) at 40 % of an H100's 989 TFLOP/s.
"""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

from vvlm_ray.data.decoding import pool
from vvlm_ray.data.examples import Example
from vvlm_ray.data.frame_store import Encoding, FrameStore, decode_video, write_shard

SIZE, NUM_CLIPS = 384, 6
H100_FLOPS, UTILISATION = 989e12, 0.4
VISION_PARAMS, VISION_TOKENS = 0.43e9, 768
CONFIGURATIONS = {"1B, 4 x 16": (1e9, 4, 16), "1B, 16 x 144": (1e9, 16, 144), "8B, 32 x 196": (8e9, 32, 196)}


def write_clip(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = Image.fromarray(rng.integers(0, 255, (60, 107, 3), dtype=np.uint8)).resize((854, 480), Image.BICUBIC)
    picture, noise = np.asarray(scene).astype(int), rng.integers(-6, 6, (4, 480, 854, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "26", "preset": "fast", "g": "60"})
        stream.width, stream.height, stream.pix_fmt = 854, 480, "yuv420p"
        for number in range(450):
            moved = np.roll(picture, (2 * number, 3 * number), (0, 1)) + noise[number % 4]
            frame = np.clip(moved, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def cpu_seconds() -> float:
    """Of this process and of its decoding processes that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def timed(read, examples, times: int = 1) -> float:
    pool._pool.end_all()
    start = cpu_seconds()
    for _ in range(times):
        for example in examples:
            read(example)
    pool._pool.end_all()  # only then does the system tell what they used; a start of 0.2 s is in it
    return (cpu_seconds() - start) / (times * len(examples))


def main() -> None:
    import vvlm_ray.model.preprocess  # noqa: F401  (torch's import is no part of it)

    folder = Path(tempfile.mkdtemp())
    examples = [Example(str(k), folder / f"{k}.mp4", (), "") for k in range(NUM_CLIPS)]
    for number, example in enumerate(examples):
        write_clip(example.video, number)
    print(
        "| T | decoded, ms | stored, ms | clips/s on 2 cores: decoded | stored | kB a clip |\n|---|---|---|---|---|---|"
    )
    costs = {}
    for num_frames in (4, 8, 16, 32):
        encoding = Encoding(SIZE, 95)
        shard = folder / f"T{num_frames}" / "0.arrow"
        written = write_shard(shard, examples, num_frames, encoding)
        live = timed(lambda e, T=num_frames: decode_video(e, T, SIZE), examples, 2)
        store = FrameStore(shard.parent, encoding)
        stored = timed(lambda e, T=num_frames, s=store: s.read(e, T), examples, 4)
        assert store.num_decoded == 0
        costs[num_frames] = live, stored
        size = written.num_bytes / NUM_CLIPS / 1e3
        print(
            f"| {num_frames} | {live * 1e3:.0f} | {stored * 1e3:.0f} | {2 / live:.1f} | {2 / stored:.1f} | {size:.0f} |"
        )
    print("\n| configuration | training, ms an example | loader processes: decoded | stored |\n|---|---|---|---|")
    for name, (lm_params, T, V) in CONFIGURATIONS.items():
        flops = 3 * 2 * T * (VISION_PARAMS * VISION_TOKENS + lm_params * V)
        seconds = flops / (H100_FLOPS * UTILISATION)
        live, stored = costs[T]
        print(f"| {name} | {seconds * 1e3:.0f} | {live / seconds:.1f} | {stored / seconds:.1f} |")


if __name__ == "__main__":
    main()
