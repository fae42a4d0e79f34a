"""Which way of making a photograph square does an error the least harm: crop, squash or pad? squares.jsonl.

    python benchmarks/squares.py

On photographs of pets (COURSELIB_SAMPLE_PETS names their folder), which are mostly 4:3 and 3:2. The body of
EfficientNet-Lite0 stays as ImageNet left it, and a linear classifier learns on its features, as `course train` does it
where there are few photographs; so one look at each photograph is enough for all seeds. Every seed is another division
into training and validation; the three ways take turns on each. The interval is that of Nadeau and Bengio (2003),
because the divisions share their photographs. A line is one way and one seed.
"""

import math
import statistics
import tempfile
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from frame import PETS, Rows, arguments, record
from scipy.stats import t

from course_lib.data import BatchTransform, ImageItems, get_items, presize, split_items
from course_lib.data.presizing import RESIZE_MODES
from course_lib.models import create_backbone

SEEDS, SIZE, PRESIZE = range(100, 120), 224, 256


@torch.no_grad()
def features_of(items: ImageItems, resize_mode: str, folder: str) -> torch.Tensor:
    """What the body says of each photograph, float32 (N, channels), each of length 1."""
    body = create_backbone("efficientnet_lite0").eval()
    images = presize(items, PRESIZE, folder, resize_mode=resize_mode, progress=False).images
    transform = BatchTransform(SIZE, body.mean, body.std)
    batches = (torch.from_numpy(np.array(images[i:i + 16])) for i in range(0, len(images), 16))
    rows = [body(transform(batch)).mean((2, 3)) for batch in batches]
    return F.normalize(torch.cat(rows))


def error_of(features: torch.Tensor, items: ImageItems, seed: int) -> float:
    """The error on the quarter that `seed` holds out, of a linear classifier that learned on the rest."""
    train, valid = split_items(items, seed=seed, official=False)
    targets = torch.from_numpy(items.targets)
    head = torch.nn.Linear(features.shape[1], len(items.classes))
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        found = F.cross_entropy(head(features[train]), targets[train]) + 1e-4 * head.weight.square().sum()
        found.backward()
        return found

    optimizer.step(loss)
    with torch.no_grad():
        return (head(features[valid]).argmax(1) != targets[valid]).float().mean().item()


def differences(errors: dict[str, dict[int, float]], share: float) -> Iterator[tuple[str, float, float]]:
    """Each way against `crop`: the mean difference of the errors, and half of its 95 % interval."""
    for name in RESIZE_MODES[1:]:
        pairs = [errors[name][seed] - errors["crop"][seed] for seed in SEEDS]
        error = statistics.stdev(pairs) * math.sqrt(1 / len(pairs) + share)
        yield name, statistics.fmean(pairs), float(t.ppf(0.975, len(pairs) - 1)) * error


def main() -> None:
    asked = arguments(__doc__, ())
    items = get_items(PETS, announce=False)
    kept = Rows(asked.output / "squares.jsonl", "resize_mode", "seed")
    left = [(seed, name) for seed in SEEDS for name in RESIZE_MODES if not kept.done(name, seed)]
    with tempfile.TemporaryDirectory() as folder:
        features = {name: features_of(items, name, folder) for name in RESIZE_MODES if left}
    for seed, name in left:
        kept.add({"resize_mode": name, "seed": seed, "error_rate": error_of(features[name], items, seed)})
    errors: dict[str, dict[int, float]] = {name: {} for name in RESIZE_MODES}
    for row in kept.read():
        errors[row["resize_mode"]][row["seed"]] = row["error_rate"]
    found = {name: {"error_rate": statistics.fmean(errors[name].values())} for name in RESIZE_MODES}
    for name, mean, half in differences(errors, share=1 / 3):  # validation images for each training image
        found[name] |= {"difference_from_crop": mean, "half_interval": half}
    record("squares", {"images": f"pets, {len(items)} photographs of {len(items.classes)} breeds", "seeds": list(SEEDS),
                       "image_size": SIZE, "presize": PRESIZE, "backbone": "efficientnet_lite0, frozen",
                       "ways": found}, asked.output)
    for name in RESIZE_MODES:
        print(name, found[name])


if __name__ == "__main__":
    main()
