"""Published scaling data: what is identified, and how well the largest data size is predicted.

    python benchmarks/real_data_fit.py ../shared/data

finetune-rectified (Lin et al. 2024): the largest n held out; one surface over (LM size, n) for all models of known
size, one per family, and one curve over n per model. llava-token-compression (Li et al. 2024): which parameters the
data identify.
"""

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from vvlm_ray.scaling.fitting import fit
from vvlm_ray.scaling.runs import Runs

# Parameters of the models, from their names or model cards (embeddings included)
SIZES = {
    "MBZUAI/LaMini-GPT-124M": 124e6, "MBZUAI/LaMini-GPT-774M": 774e6, "cerebras/Cerebras-GPT-256M": 256e6,
    "cerebras/Cerebras-GPT-1.3B": 1.3e9, "facebook/bart-base": 139e6, "facebook/bart-large": 406e6,
    "facebook/opt-1.3b": 1.3e9, "facebook/opt-350m": 350e6, "facebook/opt-6.7b": 6.7e9, "gpt2": 124e6,
    "t5-base": 223e6, "t5-small": 60e6, "google/mt5-base": 580e6, "google/mt5-large": 1.2e9,
}  # fmt: skip
FAMILIES = {
    "opt": "facebook/opt", "gpt": ("MBZUAI", "gpt2"), "cerebras": "cerebras", "bart": "facebook/bart",
    "t5": "t5", "mt5": "google/mt5",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    options = parser.parse_args()
    llava(options.data / "llava-token-compression" / "llava_token_compression.csv")
    for path in sorted((options.data / "finetune-rectified").glob("*.csv")):
        finetuning(path)


def llava(path: Path) -> None:
    with open(path) as file:
        rows = list(csv.DictReader(file))
    factors = {name: np.array([float(row[name]) for row in rows]) for name in ("N_billion", "visual_tokens")}
    for form in ("mult", "add"):
        found = fit(Runs(factors, np.array([float(row["avg_error"]) for row in rows])), form)
        print(json.dumps({"llava-token-compression": form, "params": found.params, "status": found.status,
                          "warnings": found.warnings}), flush=True)  # fmt: skip


def finetuning(path: Path) -> None:
    with open(path) as file:
        header, *rows = csv.reader(file)
    sizes = np.array([float(text) for text in header[2:]])  # without n = 0
    losses = {row[0]: np.array([float(value) for value in row[2:]]) for row in rows}
    alone = {name: abs(predict_last([name], sizes, losses, by_size=False)[0]) for name in losses}
    families = {
        family: [name for name in losses if name.startswith(start)] for family, start in FAMILIES.items()
    }  # fmt: skip
    together = {}
    for names in families.values():
        if len(names) > 1:
            together |= dict(zip(names, abs(predict_last(names, sizes, losses, by_size=True)), strict=True))
    everyone = abs(predict_last(list(losses), sizes, losses, by_size=True))
    shared = list(together)
    print(json.dumps({
        "finetune-rectified": path.stem, "held_out_n": sizes[-1],
        "mean_error_percent_one_curve_per_model": 100 * float(np.mean(list(alone.values()))),
        "mean_error_percent_one_surface_for_all": 100 * float(everyone.mean()),
        "models_in_families": len(shared),
        "mean_error_percent_one_surface_per_family": 100 * float(np.mean([together[name] for name in shared])),
        "the_same_models_one_curve_each": 100 * float(np.mean([alone[name] for name in shared])),
    }), flush=True)  # fmt: skip


def predict_last(names, sizes, losses, *, by_size: bool) -> np.ndarray:
    """Relative errors of the predicted loss at the largest n: (models,)."""
    lm = np.repeat([SIZES[name] for name in names], len(sizes))
    n = np.tile(sizes, len(names))
    loss = np.concatenate([losses[name] for name in names])
    train = n < sizes[-1]
    if by_size:
        form = "add-interact" if len(np.unique(lm)) > 2 else "add"
        found = fit(Runs({"lm_params": lm}, loss, n).select(train), form)
        predicted = found.predict({"lm_params": lm[~train]}, n[~train])
    else:  # eps + alpha n^-a
        found = fit(Runs({"num_examples": n}, loss).select(train), "add")
        predicted = found.predict({"num_examples": n[~train]})
    return predicted / loss[~train] - 1


if __name__ == "__main__":
    main()
