"""Bilinear pooling and its sketch: what the mathematics promises, measured."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.learner.features import cut_classifier
from course_lib.models import create_backbone
from course_lib.pooling import (
    BilinearPool,
    CompactBilinearPool,
    CountSketch,
    SignedSquareRoot,
    UnitLength,
    create_bilinear_classifier,
    create_bilinear_head,
    fold_sketch,
    largest_spread,
    pooling_cost,
)
from course_lib.transfer import freeze


def estimates(x: torch.Tensor, y: torch.Tensor, dim: int, draws: int) -> torch.Tensor:
    """Inner products of the sketches of two vectors, over `draws` seeds."""
    pair = torch.stack([x, y])[:, :, None, None]
    found = [CompactBilinearPool(len(x), dim, seed)(pair) for seed in range(draws)]
    return torch.stack([a @ b for a, b in found])


def pair_of_vectors(seed: int, num_features: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, num_features, generator=generator, dtype=torch.double)
    return x / x.norm(), (y := x + y) / y.norm()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_inner_product_of_sketches_is_unbiased(seed):
    x, y = pair_of_vectors(seed)
    found = estimates(x, y, 64, 1500)
    standard_error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - (x @ y) ** 2) < 4 * standard_error < 0.05
    # the same sketch twice is biased, so the test can fail
    both = []
    for draw in range(400):
        sketch = CountSketch(24, 64, draw)
        a, b = (torch.fft.irfft(torch.fft.rfft(sketch(v)) ** 2, n=64) for v in (x, y))
        both.append(a @ b)
    both = torch.stack(both)
    assert abs(both.mean() - (x @ y) ** 2) > 4 * both.std() / math.sqrt(len(both))


def test_the_error_falls_as_one_over_the_root_of_the_dimension():
    x, y = pair_of_vectors(3)
    dims = [16, 64, 256]
    stds = [float(estimates(x, y, dim, 600).std()) for dim in dims]
    slope = torch.linalg.lstsq(torch.tensor([[math.log(d), 1.0] for d in dims]),
                               torch.tensor(stds).log()[:, None]).solution[0, 0]
    assert -0.6 < slope < -0.4


@pytest.mark.parametrize("cosine", [0.0, -0.5, 0.84, 1.0])
def test_the_spread_that_is_foretold_is_the_spread(cosine):
    """Above the exact standard deviation, which a count of all meetings gives, and near what is measured."""
    generator = torch.Generator().manual_seed(7)
    x, other = torch.linalg.qr(torch.randn(40, 2, generator=generator, dtype=torch.double))[0].T
    y = cosine * x + math.sqrt(1 - cosine**2) * other
    both, c2, dim = float((x**2 * y**2).sum()), cosine**2, 32
    exact = math.sqrt((2 * c2 * (1 + c2 - 2 * both) + (1 - both)**2 + (c2 - both)**2) / dim
                      + 4 * (1 - both) * (c2 - both) / dim**2)
    assert exact <= largest_spread(cosine, dim) < 1.25 * exact
    assert float(estimates(x, y, dim, 1000).std()) == pytest.approx(exact, rel=0.15)
    assert largest_spread(cosine, 4 * 10**6) == pytest.approx(largest_spread(cosine, 10**6) / 2, rel=1e-5)


@pytest.mark.parametrize("cosine, dim, words", [(1.5, 8, "cosine = 1.5"), (0.5, 0, "dim"), (math.nan, 8, "cosine")])
def test_a_spread_of_nothing_is_refused(cosine, dim, words):
    with pytest.raises(ValueError, match=words):
        largest_spread(cosine, dim)


def test_over_a_map_it_estimates_the_sum_over_all_pairs_of_places():
    generator = torch.Generator().manual_seed(5)
    maps = torch.randn(2, 12, 3, 5, generator=generator, dtype=torch.double)
    full = BilinearPool(12)(maps)
    found = torch.stack([a @ b for a, b in (CompactBilinearPool(12, 48, seed)(maps) for seed in range(1500))])
    assert abs(found.mean() - full[0] @ full[1]) < 4 * found.std() / math.sqrt(len(found))
    places = maps.flatten(2)
    torch.testing.assert_close(full[0] @ full[1], ((places[0].T @ places[1]) ** 2).mean())


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(1, 40), st.integers(1, 5), st.integers(1, 5), st.integers(0, 3))
def test_the_fourier_way_is_the_long_way(channels, dim, height, width, seed):
    dim = min(dim, channels**2)
    maps = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    pool = CompactBilinearPool(channels, dim, seed)
    table = BilinearPool(channels)(maps).view(2, channels, channels)
    expected = torch.zeros(2, dim, dtype=torch.double)
    for i in range(channels):
        for j in range(channels):
            bucket = int(pool.first.buckets[i] + pool.second.buckets[j]) % dim
            expected[:, bucket] += pool.first.signs[i] * pool.second.signs[j] * table[:, i, j]
    torch.testing.assert_close(pool(maps), expected)


@pytest.mark.parametrize("module", [
    BilinearPool(3), CompactBilinearPool(3, 8), CompactBilinearPool(3, 5),
    nn.Sequential(CompactBilinearPool(3, 7), SignedSquareRoot(eps=1e-3), UnitLength()),
    nn.Sequential(BilinearPool(3), SignedSquareRoot(eps=1e-3), UnitLength())])
def test_gradients(module):
    maps = torch.randn(2, 3, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(module, maps)


def test_gradients_stay_finite_where_the_root_is_steep():
    maps = torch.zeros(2, 8, 3, 3, requires_grad=True)
    head = create_bilinear_head(8, 4, dim=32)
    head(maps).sum().backward()
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pooling_stays_in_float32_under_autocast(dtype):
    head = create_bilinear_head(16, 4, dim=64)
    seen = {}
    for name in ("pool", "root"):
        getattr(head, name).register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    maps = torch.full((2, 16, 3, 3), 300.0)  # its square does not fit into float16
    with torch.autocast("cpu", dtype=dtype):
        logits = head(maps.to(dtype))
    assert {out.dtype for out in seen.values()} == {torch.float32}
    assert all(out.isfinite().all() for out in (*seen.values(), logits))


@pytest.mark.parametrize("images", [1, 2, 5])
def test_a_batch_in_pieces_is_the_batch(images):
    pool = CompactBilinearPool(96, 8192)
    x = torch.randn(images, 96, 6, 5, generator=torch.Generator().manual_seed(0))
    assert 1 <= 2**19 // (30 * 8192) < 5  # so that five images are more than one piece
    places = x.flatten(2).transpose(1, 2)
    product = (torch.fft.rfft(pool.first(places)) * torch.fft.rfft(pool.second(places))).mean(1)
    torch.testing.assert_close(pool(x), torch.fft.irfft(product, n=8192))
    assert not torch.allclose(pool(x)[0], pool(x.flip(1))[0])  # images differ, so their order matters


@pytest.mark.parametrize("channels, dim, times", [(6, 4, 5), (9, 7, 2), (3, 9, 1)])
def test_a_folded_sketch_is_a_shorter_sketch(channels, dim, times):
    x = torch.randn(3, channels, 2, 5, dtype=torch.double)
    long, short = CompactBilinearPool(channels, dim * times), CompactBilinearPool(channels, dim)
    for mine, theirs in ((short.first, long.first), (short.second, long.second)):
        mine.buckets, mine.signs = theirs.buckets % dim, theirs.signs
    torch.testing.assert_close(fold_sketch(long(x), dim), short(x))


@pytest.mark.parametrize("dim", [5, 0, -4, 24, True, 4.0])
def test_a_sketch_folds_only_onto_a_divisor(dim):
    with pytest.raises(ValueError, match="must divide the 12 numbers"):
        fold_sketch(torch.ones(2, 12), dim)


def test_parameters_and_numbers_against_full_bilinear():
    full, compact = create_bilinear_head(40, 5, dim=None), create_bilinear_head(40, 5, dim=100)
    for head, cost in ((full, pooling_cost(40, 5)), (compact, pooling_cost(40, 5, 100))):
        maps = torch.randn(1, 40, 2, 2)
        pooled = head.pool(maps)
        assert pooled.numel() == cost["numbers"] and pooled.nbytes == cost["bytes"]
        assert sum(p.numel() for p in head.parameters()) == cost["parameters"]
    assert pooling_cost(1280, 4)["parameters"] == 1280**2 * 4 + 4


def test_the_sketch_is_saved_with_the_weights_and_depends_on_the_seed():
    one, two, other = (create_bilinear_head(6, 3, dim=10, seed=seed) for seed in (0, 0, 1))
    maps = torch.randn(2, 6, 2, 2)
    torch.testing.assert_close(one.pool(maps), two.pool(maps))
    assert not torch.allclose(one.pool(maps), other.pool(maps))
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(maps), other(maps))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "timm/mobilenetv3_small_050"])
@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_a_head_for_any_backbone(name, size):
    classifier = create_bilinear_classifier(name, 3, dim=32, pretrained=False)
    logits = classifier(torch.randn(2, 3, *size))
    assert logits.shape == (2, 3)
    logits.sum().backward()
    assert len(classifier.parameter_groups()[2]) == 2  # weight and bias of the one linear layer


def test_cached_features_are_cut_after_the_pooling():
    classifier = create_bilinear_classifier("resnet18", 3, dim=32, pretrained=False)
    freeze(classifier)
    front, rest = cut_classifier(classifier, torch.randn(2, 3, 64, 64))
    assert front(torch.randn(2, 3, 64, 64)).shape == (2, 32) and [type(m) for m in rest.head] == [nn.Dropout, nn.Linear]


@pytest.mark.parametrize("dim, words", [(26, "more than the 25 products"), (0, "at least 1"), (2.5, "whole number"),
                                        (True, "whole number")])
def test_a_dimension_that_makes_no_sense(dim, words):
    with pytest.raises(ValueError, match=words):
        CompactBilinearPool(5, dim)


@pytest.mark.parametrize("x, words", [
    (torch.zeros(2, 5), "no places left"), (torch.zeros(2, 4, 3, 3), "5 channels"),
    (torch.zeros(2, 5, 0, 3), "no places"), (torch.zeros(2, 5, 3, 3, dtype=torch.long), "int64")])
@pytest.mark.parametrize("pool", [BilinearPool(5), CompactBilinearPool(5, 9)])
def test_what_is_no_map_is_refused(pool, x, words):
    with pytest.raises(ValueError, match=words):
        pool(x)


def test_a_body_without_places_is_refused():
    with pytest.raises(ValueError, match="no places left"):
        create_bilinear_classifier(create_backbone("vit_b_16", pretrained=False), 4)


@pytest.mark.parametrize("make", [lambda: BilinearPool(0), lambda: BilinearPool(-5), lambda: CountSketch(5, 0),
                                  lambda: CountSketch(2.0, 4), lambda: CompactBilinearPool(True, 1)])
def test_sizes_are_counts(make):
    with pytest.raises(ValueError, match="whole number of at least 1"):
        make()


def test_a_network_is_no_backbone():
    with pytest.raises(TypeError, match="what create_backbone gives, not Linear"):
        create_bilinear_classifier(nn.Linear(3, 3), 4)
