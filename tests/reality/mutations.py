"""Damaged copies of the corpus, drawn from a seed, and what reading them does to a process.

python tests/reality/mutations.py 10000    # the long run: counts outcomes, the largest process, the slowest file
"""

from __future__ import annotations

import collections
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from corpus import KINDS

from vvlm_ray.data.decoding import pool
from vvlm_ray.data.frames import UnreadableVideo, read_frames


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes changed, taken out, put in, repeated or cut off."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if len(changed) < 16:
            break
        at = int(rng.integers(len(changed) if rng.random() < 0.5 else min(len(changed), 600)))
        length = int(2 ** rng.uniform(0, 10))
        kind = int(rng.integers(6))
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            changed[at : at + length] = rng.bytes(length)
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        elif kind == 4:
            changed[at : at + 4] = rng.choice([0, 1, 0x7F, 0x80, 0xFF], 4).astype(np.uint8).tobytes()
        else:
            del changed[max(16, at) :]
    return bytes(changed)


def main(count: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    folder = Path(tempfile.mkdtemp())
    originals = []
    for kind in KINDS:
        kind.write(folder / kind.name)
        if (folder / kind.name).is_file():
            originals.append((kind.name, (folder / kind.name).read_bytes()))
    outcomes: collections.Counter[str] = collections.Counter()
    slowest, began = (0.0, ""), time.time()
    for number in range(count):
        name, data = originals[number % len(originals)]
        path = folder / f"mutated_{name}"
        path.write_bytes(mutate(data, rng))
        start = time.time()
        try:
            frames = read_frames(path, 8, size=32)
            assert frames.shape == (8, 32, 32, 3)
            outcomes["read"] += 1
        except UnreadableVideo as error:
            deadly = "ends its decoder" in error.reason or "takes more" in error.reason or "memory" in error.reason
            outcomes[error.reason if deadly else "refused"] += 1
            if deadly:
                print(number, name, error.reason, flush=True)
        slowest = max(slowest, (time.time() - start, f"{number} {name}"))
        if number % 500 == 499:
            print(number + 1, dict(outcomes), f"{time.time() - began:.0f} s", flush=True)
    pool._pool.end_all()
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"{dict(outcomes)}\nlargest decoding process {largest:.0f} MB; slowest file {slowest[0]:.1f} s ({slowest[1]})"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
