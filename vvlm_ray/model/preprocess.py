"""From decoded frames to the vision tower's input, as SiglipImageProcessor does it, in plain torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from vvlm_ray.errors import UserError


@dataclass(frozen=True)
class ImagePreprocessor:
    """Frames are squashed to size x size (the aspect ratio is not kept), scaled to 0..1 and normalised."""

    size: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @classmethod
    def from_pretrained(cls, vision_path: str | Path) -> ImagePreprocessor:
        """Read `preprocessor_config.json` beside a vision tower; UserError if it is missing or not square."""
        path = Path(vision_path) / "preprocessor_config.json"
        if not path.is_file():
            raise UserError(f"{path}: not found; copy it from the vision tower's checkpoint")
        default = [0.5, 0.5, 0.5]
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            height, width = int(config["size"]["height"]), int(config["size"]["width"])
            mean, std = (tuple(map(float, config.get(key) or default)) for key in ("image_mean", "image_std"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{path}: cannot be read ({type(error).__name__}: {error}); copy it from the vision tower's checkpoint"
            ) from None
        if height != width:
            raise UserError(f"{path}: size is {height} x {width}; only square inputs are supported")
        return cls(size=height, mean=mean, std=std)

    def save_pretrained(self, vision_path: str | Path) -> None:
        """Write `preprocessor_config.json` in SiglipImageProcessor's format."""
        config = {
            "image_processor_type": "SiglipImageProcessor",
            "size": {"height": self.size, "width": self.size},
            "resample": 3,  # bicubic
            "do_resize": True,
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        (Path(vision_path) / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n")

    def __call__(self, frames: np.ndarray) -> torch.Tensor:
        """uint8 frames (T, H, W, 3) -> float32 pixel values (T, 3, size, size)."""
        pixels = torch.from_numpy(resize(frames, self.size, self.size)).permute(0, 3, 1, 2)
        mean = torch.tensor(self.mean).view(3, 1, 1)
        std = torch.tensor(self.std).view(3, 1, 1)
        return (pixels.float() / 255 - mean) / std


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 frames (T, H, W, 3) -> (T, height, width, 3): bicubic with antialiasing, the aspect ratio is not kept."""
    if frames.shape[1:3] == (height, width):
        return np.ascontiguousarray(frames)
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    # On uint8, so that values are rounded and clipped after each direction, as PIL does.
    pixels = functional.interpolate(pixels, (height, width), mode="bicubic", antialias=True)
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
