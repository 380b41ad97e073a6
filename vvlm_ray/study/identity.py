"""A trial's id: a hash of what the trial means. Standard library only, so that any Python gives the same.

Two trials that mean the same are one trial: a resumed, extended, moved or re-scheduled study repeats nothing.
"""

import hashlib
import json
from typing import Any

NUM_HEX_DIGITS = 12  # 48 bits: two of a million trials share an id with probability 0.2 %


def identity(meaning: Any) -> str:
    """The first 12 hex digits of the SHA-256 of `meaning` as JSON with sorted keys, no spaces and ASCII only.

    `meaning` is nested dicts (string keys), lists, strings, numbers, booleans and None. A number that is whole is
    written as an integer, so that 32 and 32.0 are the same level; other floats are written as their shortest repr,
    which is the same in every Python 3.

    Raises:
        TypeError: a value that JSON does not have; ValueError: NaN or infinity. Neither can be told apart for sure.
    """
    text = json.dumps(_canonical(meaning), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:NUM_HEX_DIGITS]


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("keys of a meaning must be strings")
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
