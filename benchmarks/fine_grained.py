"""Ways of pooling on photographs of pets, for lesson 09: course_lib/results/pooling.json.

    python benchmarks/fine_grained.py pets     37 breeds at 56, 112 and 224 px, if the photographs are there

COURSELIB_SAMPLE_PETS names their folder. What is measured is the lesson's own code: its cells `one_pass` and
`train_linear`, with a frozen EfficientNet-Lite0. Each way of pooling and each size has its own learning rate: the one
of the grid with the lowest validation loss, over two seeds; five others measure the error, each with a division of
its own, three quarters to one. A finished training is a line of pooling.jsonl, and a run that was stopped goes on from
it; the last one to end writes pooling.json. A few minutes of one core for the course's sample of 296 photographs.
"""

import json
import statistics
import tempfile

import numpy as np
import torch
from frame import PETS, ROOT, Rows, arguments, record, run_cells

from course_lib.data import get_items, presize, split_items
from course_lib.models import create_backbone
from course_lib.settings import seed_everything

LESSON = ROOT / "nbs" / "09_fine_grained.ipynb"
CHOOSING, SEEDS = (142, 143), range(42, 47)
SIZES, SMALLER, DIMS, EPOCHS = (112, 224), 56, (512, 2048, 8192), 40
LRS = {"average": [10.0**power for power in range(-6, 1)],  # of the averages, whose numbers are larger
       "products": [10.0**power for power in range(-3, 4)]}


def rotated(maps: torch.Tensor, pieces: int = 40) -> torch.Tensor:
    """Full bilinear vectors of maps (N, C, h, w), normalised, in N coordinates in place of C * C.

    N vectors span no more than N dimensions. Turned into these, they keep their lengths and inner products, so that a
    linear layer that starts at zero learns the same with SGD.
    """
    places = maps.flatten(2)
    products = torch.zeros(len(maps), len(maps), dtype=torch.double)
    for part in places.chunk(pieces, 1):
        table = torch.einsum("nip,njp->nij", part, places) / places.shape[2]
        roots = (table / (table.abs() + 1e-6).sqrt()).flatten(1)
        products += (roots @ roots.T).double()
    lengths = products.diagonal().sqrt()
    values, vectors = torch.linalg.eigh(products / lengths[:, None] / lengths)
    return (vectors * values.clamp(min=0).sqrt()).float()


def vectors_of(cells: dict, items, folder: str) -> dict[tuple[int, str], torch.Tensor]:
    """The pooled vectors of every photograph, for each size and way of pooling."""
    body, found = create_backbone("efficientnet_lite0").eval(), {}
    images = presize(items, 256, folder)
    longest = cells["CompactBilinearPool"](body.num_features, DIMS[-1])
    unit = torch.nn.Sequential(cells["SignedSquareRoot"](), cells["UnitLength"]())
    ways = {"average": lambda maps: maps.mean((2, 3)), "sketch": longest, "maps": lambda maps: maps.float()}
    for size in SIZES:
        pooled = cells["one_pass"](images, size, body, ways)
        found[size, "average"] = pooled["average"]
        found[size, "bilinear"] = rotated(pooled["maps"])
        for dim in DIMS:
            found[size, f"compact, {dim:,}"] = unit(cells["fold_sketch"](pooled["sketch"], dim))
    average = {"average": ways["average"]}
    found[SMALLER, "average"] = cells["one_pass"](images, SMALLER, body, average)["average"]
    seed_everything(0)
    untrained = create_backbone("efficientnet_lite0", pretrained=False).eval()
    found[SIZES[-1], "average, untrained body"] = cells["one_pass"](images, SIZES[-1], untrained, average)["average"]
    return found


def measure(rows: Rows, train, items, vectors: dict[tuple[int, str], torch.Tensor]) -> None:
    """Choose a rate for each, and measure with it; what is in the file is not done again."""
    targets = torch.from_numpy(np.asarray(items.targets))

    def run(size: int, way: str, lr: float, seed: int, part: str) -> None:
        if not rows.done(size, way, lr, seed):
            divided = split_items(items, seed=seed, official=False)
            errors = train(vectors[size, way], targets, divided, lr, seed, EPOCHS)
            rows.add({"size": size, "way": way, "lr": lr, "seed": seed, "part": part, **errors})

    for size, way in vectors:
        lrs = LRS["average" if way.startswith("average") else "products"]
        for seed in CHOOSING:
            for lr in lrs:
                run(size, way, lr, seed, "choose")
        best = best_rate(rows.read(), size, way)
        for seed in SEEDS:
            run(size, way, best, seed, "measure")
        print(size, way, best, [row["error_rate"] for row in chosen(rows.read(), size, way, "measure")], flush=True)


def chosen(rows: list[dict], size: int, way: str, part: str) -> list[dict]:
    return [row for row in rows if (row["size"], row["way"], row["part"]) == (size, way, part)]


def best_rate(rows: list[dict], size: int, way: str) -> float:
    """The rate with the lowest mean validation loss. Raises: `ValueError` if it lies at an end of the grid."""
    losses: dict[float, list[float]] = {}
    for row in chosen(rows, size, way, "choose"):
        losses.setdefault(row["lr"], []).append(row["valid_loss"])
    best = min(losses, key=lambda lr: statistics.fmean(losses[lr]))
    if best in (min(losses), max(losses)):
        raise ValueError(f"{way} at {size} px: the best rate, {best:g}, lies at an end of the grid. Widen LRS.")
    return best


def summary(rows: list[dict]) -> list[dict]:
    """One row a size and way of pooling: its rate, and pairs of a seed and its error."""
    table = []
    for size, way in dict.fromkeys((row["size"], row["way"]) for row in rows):
        done = {row["seed"]: row for row in chosen(rows, size, way, "measure")}
        if len(done) == len(SEEDS):
            table.append({"size": size, "way": way, "lr": done[SEEDS[0]]["lr"],
                          "errors": [[seed, done[seed]["error_rate"]] for seed in SEEDS]})
    return table


def main() -> None:
    asked = arguments(__doc__, ("pets",))
    rows = Rows(asked.output / "pooling.jsonl", "size", "way", "lr", "seed")
    if not PETS.is_dir():
        print("The photographs of pets are not there: COURSELIB_SAMPLE_PETS says where they are.")
        return
    items = get_items("pets", PETS.parent, announce=False)
    cells = run_cells(LESSON, ["one_pass", "train_linear"])
    with tempfile.TemporaryDirectory() as folder:
        measure(rows, cells["train_linear"], items, vectors_of(cells, items, folder))
    train, valid = split_items(items, seed=SEEDS[0], official=False)
    usual = np.bincount(items.targets[train]).argmax()
    print(json.dumps(record("pooling", {
        "images": len(items), "classes": len(items.classes), "validation_images": len(valid),
        "always the commonest class": float((items.targets[valid] != usual).mean()), "held_out": 0.25,
        "rows": summary(rows.read())}, asked.output), indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
