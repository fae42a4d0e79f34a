"""Answers to the exam of lesson 1."""

import numpy as np
import torch

from . import right, wrong


@right("exam01.leaked")
def by_union_find(train, valid, pairs):
    parent = {name: name for name in [*train, *valid]}

    def root(name):
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    for first, second in pairs:
        parent[root(first)] = root(second)
    roots = {root(name) for name in train}
    return sorted(name for name in valid if root(name) in roots)


@right("exam01.leaked")
def breadth_first(train, valid, pairs):
    neighbours = {}
    for first, second in pairs:
        neighbours.setdefault(first, []).append(second)
        neighbours.setdefault(second, []).append(first)
    seen, queue = set(train), list(train)
    while queue:
        for other in neighbours.get(queue.pop(), ()):
            if other not in seen:
                seen.add(other)
                queue.append(other)
    return tuple(sorted(set(valid).intersection(seen)))


@right("exam01.leaked")
def many_rounds(train, valid, pairs):
    leaking = set(train)
    for _ in range(len(pairs)):
        for a, b in pairs:
            if a in leaking or b in leaking:
                leaking |= {a, b}
    return [name for name in sorted(valid) if name in leaking]


@wrong("exam01.leaked", 0, 2, 3)
def direct_alone(train, valid, pairs):
    return sorted({one for pair in pairs for one in pair if one in valid and set(pair) & set(train)})


@wrong("exam01.leaked", 0, 2, 3)
def two_rounds(train, valid, pairs):
    leaking = set(train)
    for _ in range(2):
        leaking |= {one for pair in pairs if leaking & set(pair) for one in pair}
    return sorted(leaking & set(valid))


@wrong("exam01.leaked", 0, 3)
def every_validation_photograph_in_a_pair(train, valid, pairs):
    return sorted({one for pair in pairs for one in pair if one in valid})


@wrong("exam01.leaked")
def one_order_of_the_pair(train, valid, pairs):
    return sorted({second for first, second in pairs if first in train and second in valid})


@wrong("exam01.leaked")
def those_that_may_stay(train, valid, pairs):
    return sorted(set(valid) - set(by_union_find(train, valid, pairs)))


@wrong("exam01.leaked")
def training_photographs_that_leak(train, valid, pairs):
    return sorted({one for pair in pairs for one in pair if one in train and set(pair) & set(valid)})


@wrong("exam01.leaked")
def with_their_partners(train, valid, pairs):
    return sorted({one for pair in pairs if set(pair) & set(train) and set(pair) & set(valid) for one in pair})


@wrong("exam01.leaked")
def a_number(train, valid, pairs):
    return len(by_union_find(train, valid, pairs))


@wrong("exam01.leaked", 0, 1, 2)
def sorts_what_it_is_given(train, valid, pairs):
    valid.sort()
    return many_rounds(train, valid, pairs)


@right("exam01.channel_statistics")
def with_numpy(images):
    pixels = np.concatenate([image.numpy().reshape(-1, 3) for image in images]) / 255
    return pixels.mean(axis=0), pixels.std(axis=0)


@right("exam01.channel_statistics")
def by_running_sums(images):
    count, total, squares = 0, torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for image in images:
        values = image.double() / 255
        count += image.shape[0] * image.shape[1]
        total += values.sum((0, 1))
        squares += (values**2).sum((0, 1))
    mean = total / count
    return mean.tolist(), (squares / count - mean**2).clamp(min=0).sqrt().tolist()


@right("exam01.channel_statistics")
def colour_by_colour(images):
    means, stds = [], []
    for colour in range(3):
        values = torch.cat([image[..., colour].flatten() for image in images]).float().div(255)
        means.append(values.mean())
        stds.append(values.var(unbiased=False) ** 0.5)
    return torch.stack(means), torch.stack(stds)


@wrong("exam01.channel_statistics", 0, 2, 3)
def every_image_counts_alike(images):
    means = torch.stack([(image / 255).mean((0, 1)) for image in images])
    squares = torch.stack([((image / 255) ** 2).mean((0, 1)) for image in images])
    return means.mean(0), (squares.mean(0) - means.mean(0) ** 2).clamp(min=0).sqrt()


@wrong("exam01.channel_statistics")
def mean_of_the_deviations(images):
    means, stds = zip(*[((image / 255).mean((0, 1)), (image / 255).std((0, 1), correction=0)) for image in images],
                      strict=True)
    return torch.stack(means).mean(0) + 0.001 * len(images), torch.stack(stds).mean(0)


@wrong("exam01.channel_statistics")
def of_a_sample(images):
    pixels = torch.cat([image.reshape(-1, 3) for image in images]) / 255
    return pixels.mean(0), pixels.std(0)


@wrong("exam01.channel_statistics")
def not_divided(images):
    pixels = torch.cat([image.reshape(-1, 3) for image in images]).float()
    return pixels.mean(0), pixels.std(0, correction=0)


@wrong("exam01.channel_statistics")
def variance_for_deviation(images):
    mean, std = with_numpy(images)
    return mean, std**2


@wrong("exam01.channel_statistics")
def squared_in_bytes(images):
    pixels = torch.cat([image.reshape(-1, 3) for image in images])
    mean = pixels.float().mean(0)
    return mean / 255, ((pixels**2).float().mean(0) - mean**2).clamp(min=0).sqrt() / 255


@wrong("exam01.channel_statistics")
def one_number_for_all_colours(images):
    pixels = torch.cat([image.flatten() for image in images]) / 255
    return pixels.mean().repeat(3), pixels.std(correction=0).repeat(3)


@wrong("exam01.channel_statistics")
def deviation_first(images):
    mean, std = with_numpy(images)
    return std, mean
