"""Made-up pictures and items for the tests of this folder."""
from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw

from course_lib.data import ImageItems

HALF = (0.5, 0.5, 0.5)


def picture(number: int, width: int = 40, height: int = 30) -> Image.Image:
    """A small picture that differs from every other and has a left, a right, an upper and a lower side."""
    image = Image.new("RGB", (width, height), (number * 7 % 256, number * 29 % 256, number * 53 % 256))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 3, height // 4), fill="white")
    draw.ellipse((width // 2, height // 2, width - 2, height - 2), fill=(255 - number * 11 % 256, 90, 20))
    return image


def folder_of(root: Path, counts: dict[str, int], suffix: str = ".png") -> Path:
    """A folder with `counts[class]` pictures in each class folder."""
    number = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            picture(number).save(root / name / f"{i:03}{suffix}")
            number += 1
    return root


def fake_items(counts: dict[str, int], shuffle_with: random.Random | None = None) -> ImageItems:
    """Items without files."""
    pairs = [(f"{name}/{i}.jpg", name) for name, count in counts.items() for i in range(count)]
    if shuffle_with:
        shuffle_with.shuffle(pairs)
    return ImageItems(Path("nowhere"), tuple(n for n, _ in pairs), tuple(c for _, c in pairs), tuple(sorted(counts)))
