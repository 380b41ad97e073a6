"""Preprocessing, compared with transformers' own SiglipImageProcessor."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SiglipImageProcessor

from vvlm_ray.errors import UserError
from vvlm_ray.model.preprocess import ImagePreprocessor


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [24, 64])
def test_squash_resize_equals_siglip(tmp_path, frames, size):
    theirs = SiglipImageProcessor(size={"height": size, "width": size})
    theirs.save_pretrained(tmp_path)
    ours = ImagePreprocessor.from_pretrained(tmp_path)
    expected = [theirs(Image.fromarray(frame), return_tensors="pt")["pixel_values"][0] for frame in frames]
    # Both round to whole grey levels; filters in fixed and floating point may differ by one level of 255.
    torch.testing.assert_close(ours(frames), torch.stack(expected), atol=1.01 / 127.5, rtol=0)


def test_frames_of_the_right_size_are_only_normalised():
    frames = np.array([0, 51, 255], dtype=np.uint8).reshape(3, 1, 1, 1).repeat(3, axis=3)
    out = ImagePreprocessor(size=1, mean=(0.2, 0.2, 0.2), std=(0.5, 0.5, 0.5))(frames)
    assert out.shape == (3, 3, 1, 1)
    assert out[:, 0, 0, 0].tolist() == pytest.approx([-0.4, 0.0, 1.6])


def test_round_trip_and_errors(tmp_path):
    ours = ImagePreprocessor(size=32, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    with pytest.raises(UserError, match="not found"):
        ImagePreprocessor.from_pretrained(tmp_path)
    ours.save_pretrained(tmp_path)
    assert ImagePreprocessor.from_pretrained(tmp_path) == ours
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 2, "width": 3}}')
    with pytest.raises(UserError, match="only square"):
        ImagePreprocessor.from_pretrained(tmp_path)
