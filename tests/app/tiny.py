"""A small classifier, as `course train` saves one, for tests of what is done with it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from course_lib.app.unknown import familiar
from course_lib.data import BatchTransform, ImageLoader
from course_lib.learner import save_weights
from course_lib.models import create_classifier

BACKBONE, CLASSES = "timm/test_efficientnet", ("cat", "犬", "🦊 fox")
SAVED = {"backbone": BACKBONE, "classes": list(CLASSES), "presize": 80, "image_size": 64, "mean": [0.5] * 3,
         "std": [0.5] * 3, "dropout": 0.2, "dataset": "my photos", "seed": 42, "epochs": 3, "trained_fraction": 1.0,
         "temperature": 1.5, "resize_mode": "crop"}


def photograph(number: int, height: int = 90, width: int = 120) -> np.ndarray:
    """Smooth colours, other ones for each number: uint8 (height, width, 3)."""
    rng = np.random.default_rng(number)
    return np.array(Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height)))


def tiny_model(folder: Path, **changes: object) -> Path:
    """A model with random weights in a folder of its own, with all that a training keeps."""
    torch.manual_seed(0)
    saved = SAVED | changes
    model = create_classifier(saved["backbone"], len(saved["classes"]), pretrained=False, dropout=0.2).eval()
    torch.nn.init.normal_(model.head.linear.weight, std=0.3)
    images = np.stack([photograph(i, 80, 80) for i in range(48)])
    loaders = [ImageLoader(images, np.arange(48) % 3, rows, BatchTransform(64, (0.5,) * 3, (0.5,) * 3), 16,
                           classes=saved["classes"]) for rows in (range(24), range(24, 48))]
    seen = familiar(model, *loaders, plain=loaders[0].transform)
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(folder / "model.safetensors", model, saved | {"limit": seen.limit}, {"known": seen.known})
    return folder
