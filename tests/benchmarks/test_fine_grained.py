"""Ways of pooling on pets: what the script says of full bilinear vectors, of the best rate and of what is finished."""

import fine_grained
import pytest
import torch

from course_lib.pooling import BilinearPool, SignedSquareRoot, UnitLength

pytestmark = pytest.mark.slow


def test_full_vectors_in_few_coordinates_keep_their_inner_products():
    maps = torch.randn(6, 12, 3, 2, generator=torch.Generator().manual_seed(0))
    full = UnitLength()(SignedSquareRoot()(BilinearPool(12)(maps)))
    few = fine_grained.rotated(maps, pieces=5)
    assert few.shape == (6, 6)
    torch.testing.assert_close(few @ few.T, full @ full.T, atol=1e-5, rtol=1e-4)


def rows_of(losses: dict[float, float]) -> list[dict]:
    return [{"size": 112, "way": "average", "lr": lr, "seed": seed, "part": "choose", "valid_loss": loss + seed / 1000}
            for lr, loss in losses.items() for seed in fine_grained.CHOOSING]


def test_the_best_rate_lies_inside_the_grid():
    assert fine_grained.best_rate(rows_of({0.1: 2.0, 1.0: 1.0, 10.0: 3.0}), 112, "average") == 1.0
    with pytest.raises(ValueError, match="end of the grid"):
        fine_grained.best_rate(rows_of({0.1: 2.0, 1.0: 1.0}), 112, "average")


def test_a_way_counts_when_all_its_seeds_are_done():
    rows = rows_of({0.1: 2.0}) + [
        {"size": 112, "way": "average", "lr": 0.1, "seed": seed, "part": "measure", "error_rate": seed / 100}
        for seed in fine_grained.SEEDS]
    assert fine_grained.summary(rows[:-1]) == []
    assert fine_grained.summary(rows) == [{"size": 112, "way": "average", "lr": 0.1, "errors": [
        [seed, seed / 100] for seed in fine_grained.SEEDS]}]
