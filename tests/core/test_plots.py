"""Figures: photographs large enough to look at, captions that can be read, sharp on a doubled screen."""
from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from course_lib.core.plots import DPI, FONT_SIZE, new_axes, show_images  # noqa: E402
from course_lib.data import ImageItems, plot_class_counts  # noqa: E402


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.mark.parametrize("shape", [(64, 64), (48, 64), (64, 48), (32, 96), (96, 32)])
@pytest.mark.parametrize("count, columns", [(1, 4), (3, 3), (7, 4), (12, 4), (5, 1)])
def test_each_photograph_has_130_pixels_on_a_doubled_screen(shape, count, columns):
    ax = show_images([np.zeros(shape, np.uint8)] * count, ["a caption\nof two lines"] * count, columns=columns)
    ax.figure.draw_without_rendering()
    assert ax.figure.dpi == DPI == 144
    for image in ax.images:
        box = image.get_window_extent()
        assert box.width >= 2 * 130 - 0.5 and box.height == pytest.approx(box.width * shape[0] / shape[1], rel=0.01)
    inside, texts = ax.figure.bbox, [text.get_window_extent() for text in ax.texts]
    for text in texts:
        assert inside.y0 <= text.y0 and text.y1 <= inside.y1
        assert not any(text.overlaps(image.get_window_extent()) for image in ax.images)
    assert {text.get_fontsize() for text in ax.texts} == {FONT_SIZE} and FONT_SIZE >= 9


def test_new_axes_are_sharp_and_another_number_of_dots_can_be_asked_for():
    assert new_axes().figure.dpi == 144 and new_axes(dpi=50).figure.dpi == 50


@pytest.mark.parametrize("count", [2, 19, 20, 40, 41, 200])
def test_the_names_of_classes_can_be_read_and_do_not_overlap(count):
    classes = tuple(f"class {number}" for number in range(count))
    items = ImageItems(Path("nowhere"), tuple(f"{name}.jpg" for name in classes), classes, classes)
    ax = plot_class_counts(items, {"training": [0], "validation": [1]})
    ax.figure.draw_without_rendering()
    labels = ax.get_yticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert min(count, 21) <= len(labels) <= 40 and ax.figure.get_figheight() < 12.5
    assert not any(one.overlaps(other) for one, other in zip(boxes, boxes[1:], strict=False))
    assert min(label.get_fontsize() for label in [*labels, *ax.get_legend().get_texts()]) >= 9
    assert len({bar.get_hatch() for bar in ax.patches}) == 2  # not by colour alone
