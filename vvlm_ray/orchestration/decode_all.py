"""Every video of a study decoded, as Ray tasks of a few hundred each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vvlm_ray.data.examples import Example
from vvlm_ray.orchestration.fits import _map_on_ray
from vvlm_ray.orchestration.preflight_data import decode

VIDEOS_PER_TASK = 200


def decoder(address: str | None) -> Callable[[Sequence[Example]], list[str | None]]:
    """A function that says what is wrong with each example's video, worked out on a cluster or on this machine."""

    def decode_all(examples: Sequence[Example]) -> list[str | None]:
        starts = range(0, len(examples), VIDEOS_PER_TASK)
        calls = [(list(examples[start : start + VIDEOS_PER_TASK]),) for start in starts]
        return [reason for part in _map_on_ray(decode, calls, "decoding videos", address, True) for reason in part]

    return decode_all
