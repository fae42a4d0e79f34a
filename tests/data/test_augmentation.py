"""One composed interpolation, augmentation and normalisation."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import HALF, fake_items

from course_lib import data
from course_lib.data import DATASETS, Augmentation, BatchTransform, items_from_pattern, warp_images


def smooth_batch(size: int = 64, count: int = 3) -> torch.Tensor:
    """Pictures that bilinear interpolation reproduces exactly: planes in x and y, one for each channel."""
    place = (2 * torch.arange(size) + 1) / size - 1
    x, y = place.expand(size, size), place[:, None].expand(size, size)
    planes = torch.stack((x, y, 0.5 * x - 0.25 * y))
    return planes.expand(count, 3, size, size) * 100 + 120


def ones(count: int) -> torch.Tensor:
    return torch.ones(count)


def test_identity_reproduces_and_flips_mirror_exactly():
    images = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    same = warp_images(images, torch.eye(3).repeat(3, 1, 1), 48)
    assert same.is_contiguous(memory_format=torch.channels_last)
    assert (same - images).abs().max() < 0.01
    across = warp_images(images, data.flip_matrix(-ones(3), ones(3)), 48)
    assert (across - images.flip(3)).abs().max() < 0.01
    down = warp_images(images, data.flip_matrix(ones(3), -ones(3)), 48)
    assert (down - images.flip(2)).abs().max() < 0.01
    quarter = warp_images(images, data.rotation_matrix(90 * ones(3)), 48)
    assert (quarter - torch.rot90(images, 1, (2, 3))).abs().max() < 0.02  # anticlockwise, as rot90 turns


@settings(max_examples=40, deadline=None)
@given(degrees=st.floats(-30, 30), zoom=st.floats(1, 2), warp=st.floats(-0.2, 0.2), width=st.floats(0.5, 0.7),
       offset=st.floats(-0.1, 0.1))
def test_composed_warp_equals_the_formula(degrees, zoom, warp, width, offset):
    """On planes the result can be worked out by hand: the colour at each pixel is the plane at its source place."""
    size = 32
    w, h = width * ones(1), 0.6 * ones(1)
    matrix = (data.crop_matrix(w, h, offset * ones(1), 0 * ones(1)) @ data.rotation_matrix(degrees * ones(1))
              @ data.zoom_matrix(zoom * ones(1)) @ data.warp_matrix(warp * ones(1), -warp * ones(1)))
    result = warp_images(smooth_batch(64, 1), matrix, size)[0]
    for row, column in ((4, 7), (16, 16), (27, 10), (12, 29)):
        x, y = (2 * column + 1) / size - 1, (2 * row + 1) / size - 1
        x, y = x / (1 + warp * x - warp * y), y / (1 + warp * x - warp * y)  # perspective first
        x, y = x / zoom, y / zoom
        sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
        x, y = cosine * x - sine * y, sine * x + cosine * y
        x, y = width * x + offset, 0.6 * y
        if max(abs(x), abs(y)) < 0.95:  # inside the picture
            expected = np.array([x, y, 0.5 * x - 0.25 * y]) * 100 + 120
            assert np.abs(result[:, row, column].numpy() - expected).max() < 0.05


def test_grid_equals_pytorchs_own():
    matrices = torch.eye(3).repeat(4, 1, 1)
    matrices[:, :2] += 0.2 * torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    expected = F.affine_grid(matrices[:, :2], (4, 3, 20, 20), align_corners=False)
    assert torch.allclose(data.warp_grid(matrices, 20), expected, atol=1e-5)


def test_result_does_not_depend_on_how_many_images_are_done_at_once():
    images = torch.randint(0, 256, (7, 3, 40, 40), dtype=torch.uint8)
    matrices = data.draw_matrices(torch.rand(7, data.NUM_DRAWS), Augmentation())
    together = warp_images(images, matrices, 32)
    alone = torch.cat([warp_images(images[i:i + 1], matrices[i:i + 1], 32) for i in range(7)])
    assert torch.equal(together, alone)


def test_lighting_is_the_same_wherever_it_is_worked_out():
    images, draws = torch.randint(0, 256, (7, 40, 40, 3), dtype=torch.uint8), torch.rand(7, data.NUM_DRAWS)
    mean, std, augmentation = torch.tensor((0.4, 0.5, 0.6)), torch.tensor((0.2, 0.25, 0.3)), Augmentation()
    gain, offset = data.draw_lighting(draws, augmentation)
    assert len(set(gain.tolist())) > 1 and len(set(offset.tolist())) > 1
    seen = warp_images(images.permute(0, 3, 1, 2), data.draw_matrices(draws, augmentation), 32).permute(0, 2, 3, 1)
    lit = gain[:, None, None, None] * seen / 255 + offset[:, None, None, None]
    x = BatchTransform(32, tuple(mean.tolist()), tuple(std.tolist()), augmentation)(images, draws=draws)
    assert torch.allclose(x.permute(0, 2, 3, 1), (lit - mean) / std, atol=1e-5)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_transform_normalises_like_the_formula_and_is_channels_last():
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    x = BatchTransform(32, mean, std)(images)
    expected = (images.permute(0, 3, 1, 2) / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert x.dtype == torch.float32 and x.shape == (4, 3, 32, 32)
    assert torch.allclose(x, expected, atol=1e-5)
    assert x.is_contiguous(memory_format=torch.channels_last) and not x.requires_grad
    smaller = BatchTransform(16, mean, std)(images)
    reference = F.interpolate(images.permute(0, 3, 1, 2).float(), (16, 16), mode="bilinear", antialias=True) / 255
    reference = (reference - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert (smaller - reference).abs().max() < 1.01 / 255 / 0.22  # at most one grey level of rounding
    assert smaller.is_contiguous(memory_format=torch.channels_last)


def test_augmentation_is_chance_from_the_generator_alone():
    images = torch.randint(0, 256, (5, 40, 40, 3), dtype=torch.uint8)
    transform = BatchTransform(32, HALF, HALF, Augmentation())
    draw = lambda seed: transform(images, torch.Generator().manual_seed(seed))
    torch.manual_seed(0)
    first = draw(3)
    torch.manual_seed(1)
    assert torch.equal(first, draw(3)) and not torch.equal(first, draw(4))


def test_augmentation_off_is_the_plain_picture():
    off = Augmentation(horizontal_flip=False, rotate=0, zoom=1, warp=0, min_scale=1, max_ratio=1, brightness=0,
                       contrast=0)
    images = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    with_off, without = BatchTransform(32, HALF, HALF, off), BatchTransform(32, HALF, HALF)
    assert torch.allclose(with_off(images), without(images), atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_draws_stay_in_their_ranges(seed):
    a = Augmentation(rotate=20, zoom=1.5, warp=0, min_scale=0.3)
    draws = torch.rand(64, data.NUM_DRAWS, generator=torch.Generator().manual_seed(seed))
    matrices = data.draw_matrices(draws, a)
    area = torch.linalg.det(matrices[:, :2, :2]).abs()
    assert (area >= 0.3 / 1.5**2 - 1e-5).all() and (area <= 1 + 1e-5).all()
    gain, offset = data.draw_lighting(draws, a)
    assert (gain <= 1.2 + 1e-5).all() and (gain >= 1 / 1.2 - 1e-5).all()
    assert ((gain * 0.5 + offset - 0.5).abs() <= 0.1 + 1e-5).all()  # mid-grey moves by the brightness alone
    crop_only = data.draw_matrices(draws, Augmentation(rotate=0, zoom=1, warp=0, min_scale=0.1, horizontal_flip=False))
    corners = crop_only @ torch.tensor([[-1.0, 1], [-1, 1], [1, 1]])
    assert corners[:, :2].abs().max() <= 1 + 1e-5  # a crop never leaves the picture


def test_shrinking_a_lot_averages_first():
    """One-pixel stripes, shrunk four times, are grey; four-pixel interpolation alone would keep stripes."""
    stripes = (torch.arange(256) % 2 * 255).to(torch.uint8).expand(1, 3, 256, 256)
    shrunk = warp_images(stripes, torch.eye(3)[None], 64)
    assert shrunk[..., 4:-4, 4:-4].std() < 15 and abs(shrunk.mean().item() - 127.5) < 2


def test_augmentation_checks_its_ranges():
    changes = {"rotate": -1, "zoom": 0.5, "warp": 0.9, "min_scale": 0, "probability": 2, "contrast": -1}
    for name, value in changes.items():
        with pytest.raises(ValueError, match=f"{name} = {value} must be a finite number "):
            Augmentation(**{name: value})


def test_solar_cells_are_flipped_both_ways_and_pets_are_not():
    items = fake_items({"a": 2, "b": 2})
    assert data.default_augmentation(replace(items, info=DATASETS["elpv"])).vertical_flip
    assert not data.default_augmentation(replace(items, info=DATASETS["pets"])).vertical_flip
    assert data.default_augmentation(items) == Augmentation()


def test_the_answers_to_the_lessons_exercises():
    items = items_from_pattern(Path("x"), r"^[\d-]+_(.+)_\d+.png$", names=["2024-05-01_dark_roast_0007.png"])
    assert items.classes == ("dark_roast",)
    items = items_from_pattern(Path("x"), r"(.+)_\d+.png$", names=["2024-05-01_dark_roast_0007.png"])
    assert items.classes == ("2024-05-01_dark_roast",)
    assert 0.75 ** 0.5 * 258 < 224 <= 0.75 ** 0.5 * 259
    once = BatchTransform(8, HALF, HALF)(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 8, 8, 3))
    assert torch.allclose((once[:, 0, 0, 0] - 0.5) / 0.5, torch.tensor([-3.0, 1.0]))
