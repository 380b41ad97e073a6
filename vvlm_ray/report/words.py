"""Names and numbers as tables, figures and sentences show them."""

from collections.abc import Iterable, Mapping

from vvlm_ray.units import si

LABELS = {
    "lm_params": "LM size",
    "num_frames": "frames",
    "tokens_per_frame": "tokens per frame",
    "vision_params": "vision model size",
    "vision_tokens": "vision tokens per frame",
    "num_examples": "finetuning examples",
    "inference_flops": "inference FLOPs",
}
SYMBOLS = {"lm_params": "N", "num_frames": "T", "tokens_per_frame": "V", "num_examples": "n"}


def label(name: str) -> str:
    """What a factor is called: "LM size", or the column's own name."""
    return LABELS.get(name, name.replace("_", " "))


def symbol(name: str) -> str:
    """The letter of the paper, or the factor's name."""
    return SYMBOLS.get(name, label(name))


def flops(value: float) -> str:
    """2.4e6 -> '2.4 MFLOPs'."""
    return si(value, "FLOPs")


def count(value: float) -> str:
    """1200 -> '1,200', 250000 -> '250k', 7.5e9 -> '7.5B': short, and exact below ten thousand."""
    if abs(value) < 9999.5:
        return f"{value:,.0f}" if abs(value) >= 100 or abs(value - round(value)) < 1e-6 else f"{value:.3g}"
    value = float(f"{value:.3g}")
    for size, prefix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{prefix}"
    raise AssertionError(value)


def level(factor: str, value: float, names: Mapping[float, str] | None = None) -> str:
    """One value of a factor; an LM size goes by its backbone's name where that is known: 'large (98.4k)'."""
    text = count(value)
    name = (names or {}).get(float(value)) if factor == "lm_params" else None
    return f"{name} ({text})" if name else text


def configuration(factors: Mapping[str, float], names: Mapping[float, str] | None = None) -> str:
    """'the large LM (98.4k parameters), 4 frames, 16 tokens per frame'."""
    return listed(_part(factor, value, names) for factor, value in factors.items())


def _part(factor: str, value: float, names: Mapping[float, str] | None) -> str:
    if factor == "lm_params":
        name = (names or {}).get(float(value))
        return f"{name} ({count(value)} parameters)" if name else f"an LM of {count(value)} parameters"
    if factor in {"num_frames", "tokens_per_frame"}:
        what = label(factor)
        return f"{count(value)} {what if value != 1 else what.replace('frames', 'frame').replace('tokens', 'token')}"
    return f"{label(factor)} {count(value)}"


def listed(parts: Iterable[str]) -> str:
    """'a, b and c'."""
    parts = list(parts)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def label_reason(reason: str) -> str:
    """'num_frames above the swept range' as 'frames above the swept range'."""
    name, _, rest = reason.partition(" ")
    return f"{label(name)} {rest}"


def signed(value: float) -> str:
    """'+0.17', '-0.22', and '0.00' without a sign."""
    text = f"{value:+.2f}"
    return text[1:] if float(text) == 0 else text


def measure(value: float) -> str:
    """A score of a fit: two decimals, or powers of ten where the prediction went wild."""
    return f"{value:.2f}" if abs(value) < 1e4 else f"{value:.0e}"
