"""Students' answers to the exercises of lesson 6."""

import numpy as np
import torch
import torch.nn.functional as F

from . import right, wrong


@right("06.count_confusions")
def added_in_numpy(predicted, targets, num_classes):
    matrix = np.zeros((num_classes, num_classes), dtype=int)
    np.add.at(matrix, (targets.numpy(), predicted.numpy()), 1)
    return matrix


@right("06.count_confusions")
def one_hot_product(predicted, targets, num_classes):
    return F.one_hot(targets, num_classes).T @ F.one_hot(predicted, num_classes)


@wrong("06.count_confusions", "of another type")
def floats(predicted, targets, num_classes):
    matrix = torch.zeros(num_classes, num_classes)
    for t, p in zip(targets, predicted, strict=True):
        matrix[t, p] += 1
    return matrix


@wrong("06.count_confusions", "at 'counts': 1 of 4 numbers differ, the first at [0, 0]:")
def only_mistakes(predicted, targets, num_classes):
    return one_hot_product(predicted, targets, num_classes).fill_diagonal_(0)


@wrong("06.count_confusions", "It raised RuntimeError in the line `return")
def bincount_too_short(predicted, targets, num_classes):
    return torch.bincount(targets * num_classes + predicted).view(num_classes, num_classes)


@right("06.confused_pairs")
def loops(matrix, min_val=1):
    table, found = matrix.numpy(), []
    for i in range(len(table)):
        for j in range(i):
            if table[i, j] + table[j, i] >= min_val:
                found.append([j, i, table[i, j] + table[j, i]])
    return sorted(found, key=lambda row: (-row[2], row[0], row[1]))


@wrong("06.confused_pairs", "changes one of its arguments")
def adds_in_place(matrix, min_val=1):
    matrix += matrix.T.clone()
    return loops((matrix.triu(1)), min_val)


@wrong("06.confused_pairs", "at [0]: at [0]: 1 in place of 0")
def equal_ones_reversed(matrix, min_val=1):
    return [tuple(row) for row in sorted(loops(matrix, min_val), key=lambda row: row[2])[::-1]]


@wrong("06.confused_pairs", "at [0]: at [0]: 3 in place of 0")
def count_first(matrix, min_val=1):
    return [(n, i, j) for i, j, n in loops(matrix, min_val)]


@wrong("06.confused_pairs", "You ask for `min_val` in *one* direction. Both directions")
def each_direction_enough(matrix, min_val=1):
    return [row for row in loops(matrix) if max(matrix[row[0], row[1]], matrix[row[1], row[0]]) >= min_val]


@wrong("06.confused_pairs", "at [0]: at [0]: 1 in place of 0")
def larger_first(matrix, min_val=1):
    return [(j, i, n) for i, j, n in loops(matrix, min_val)]


@right("06.worst_images")
def top_k(logits, targets, count):
    losses = -logits.log_softmax(1)[torch.arange(len(targets)), targets]
    found = losses.topk(min(count, len(losses)))
    return list(zip(found.indices, found.values, strict=True))


@right("06.worst_images")
def numpy_sort(logits, targets, count):
    p = np.exp(logits.double().numpy())
    losses = -np.log(p[range(len(p)), targets] / p.sum(1))
    return [[row, losses[row]] for row in np.argsort(-losses)[:count]]


@wrong("06.worst_images", "It raised RuntimeError in the line `found =")
def top_k_too_many(logits, targets, count):
    found = F.cross_entropy(logits, targets, reduction="none").topk(count)
    return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))


@wrong("06.worst_images", "at [0]: at [1]: 0 in place of 4.60517")
def two_lists(logits, targets, count):
    found = top_k(logits, targets, count)
    return [row for row, _ in found], [loss for _, loss in found]


@wrong("06.worst_images", "at [0]: at [0]: 4.60517 in place of 1")
def loss_before_row(logits, targets, count):
    return [(loss, row) for row, loss in top_k(logits, targets, count)]


@wrong("06.worst_images", "at [0]: at [1]: 0.01 in place of 4.60517")
def no_logarithm(logits, targets, count):
    return [(row, torch.exp(-loss)) for row, loss in top_k(logits, targets, count)]


@wrong("06.worst_images", "You leave out the images that were called by their right")
def mistakes_only(logits, targets, count):
    predicted = logits.argmax(1)
    return [(row, loss) for row, loss in top_k(logits, targets, count) if predicted[row] != targets[row]]


@right("06.heat")
def image_by_image(maps, head, classes):
    pictures = []
    for x, c in zip(maps, classes, strict=True):
        x = x[None].clone().requires_grad_(True)
        head(x)[0, c].backward()
        weights = x.grad[0].mean(dim=-1).mean(dim=-1)
        pictures.append(torch.einsum("c,chw->hw", weights, x[0]).clamp(min=0))
    return torch.stack(pictures)


@wrong("06.heat", "It raised RuntimeError in the line `gradient =")
def asks_no_gradient(maps, head, classes):
    score = head(maps)[torch.arange(len(maps)), classes].sum()
    gradient = torch.autograd.grad(score, maps)[0]
    return (gradient.mean((2, 3), keepdim=True) * maps).sum(1).relu()


@wrong("06.heat", "3 of 4 numbers differ, the first at [0, 0, 0]: 1 in place")
def scaled_to_one(maps, head, classes):
    found = image_by_image(maps, head, classes)
    return found / found.amax((1, 2), keepdim=True).clamp_min(1e-9)


@wrong("06.heat", "6 of 12 numbers differ, the first at [1, 0, 0]: 0 in")
def same_class_for_all(maps, head, classes):
    return image_by_image(maps, head, classes[:1].expand(len(maps)))


@wrong("06.heat", "1 of 4 numbers differ, the first at [0, 0, 1]: 1 in place")
def absolute_value(maps, head, classes):
    x = maps.clone().requires_grad_(True)
    head(x).gather(1, classes[:, None]).sum().backward()
    return (x.grad.mean((2, 3), keepdim=True) * x).sum(1).abs()


@wrong("06.heat", "3 of 4 numbers differ, the first at [0, 0, 0]: 1 in place")
def mean_over_channels(maps, head, classes):
    return image_by_image(maps, head, classes) / maps.shape[1]


@right("06.calibration_error")
def with_digitize(confidence, right, bins):
    confidence, right = confidence.numpy(), right.numpy()
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1), right=True)
    return sum(abs(right[place == k].sum() - confidence[place == k].sum()) for k in set(place)) / len(right)


@right("06.calibration_error")
def edges_in_a_loop(confidence, right, bins):
    error = torch.zeros(())
    for k in range(bins):
        mask = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if mask.sum() > 0:
            error = error + mask.float().mean() * (confidence[mask].mean() - right[mask].mean()).abs()
    return error


@wrong("06.calibration_error", "A number in it is none (`nan`): it comes of 0 / 0, of")
def mean_of_no_images(confidence, right, bins):
    error = 0.0
    for k in range(bins):
        mask = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        error += (mask.double().mean() * (confidence[mask].mean() - right[mask].mean()).abs()).item()
    return error


@wrong("06.calibration_error", "0.35 in place of 0.1")
def each_image_by_itself(confidence, right, bins):
    return (confidence - right).abs().mean().item()


@wrong("06.calibration_error", "0.111803 in place of 0.1")
def square_distance(confidence, right, bins):
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1), right=True)
    return sum((right[place == k].mean() - confidence[place == k].mean()) ** 2 * (place == k).mean()
               for k in set(place)) ** 0.5


@wrong("06.calibration_error", "10 in place of 0.1")
def in_percent(confidence, right, bins):
    return 100 * with_digitize(confidence, right, bins)


@wrong("06.calibration_error", "0.15 in place of 0.1")
def largest_bin(confidence, right, bins):
    place = np.digitize(confidence, np.linspace(0, 1, bins + 1), right=True)
    return max(abs(right[place == k].mean() - confidence[place == k].mean()) for k in set(place))


@right("06.class_numbers")
def a_dictionary(names, valid_names):
    number = {name: k for k, name in enumerate(sorted(dict.fromkeys(names)))}
    return tuple(map(number.get, names)), tuple(number[name] for name in valid_names)


@right("06.class_numbers")
def with_unique(names, valid_names):
    classes, numbers = np.unique(names, return_inverse=True)
    return [numbers, np.searchsorted(classes, valid_names)]


@wrong("06.class_numbers", "at 'training': at [0]: 1 in place of 0")
def numbers_from_one(names, valid_names):
    first, second = a_dictionary(names, valid_names)
    return [k + 1 for k in first], [k + 1 for k in second]


@wrong("06.class_numbers", "at 'training': at [0]: 1 in place of 0")
def backwards(names, valid_names):
    classes = sorted(set(names), reverse=True)
    return [classes.index(name) for name in names], [classes.index(name) for name in valid_names]


@wrong("06.class_numbers", "`class_numbers` gives back a list of 4. Wanted: a tuple of")
def one_list(names, valid_names):
    first, second = a_dictionary(names, valid_names)
    return [*first, *second]


@wrong("06.class_numbers", "at 'training': at [0]: 1 in place of 0")
def a_set_in_any_order(names, valid_names):
    classes = sorted(set(names), key=lambda name: (len(name), name[::-1]))
    return [classes.index(name) for name in names], [classes.index(name) for name in valid_names]


@right("06.count_confusions")
def masks(predicted, targets, num_classes):
    return torch.tensor([[int(((targets == i) & (predicted == j)).sum()) for j in range(num_classes)]
                         for i in range(num_classes)])


@wrong("06.count_confusions", "Rows and columns are exchanged: a row must be what the")
def said_in_the_rows(predicted, targets, num_classes):
    matrix = torch.zeros(num_classes, num_classes, dtype=torch.long)
    for p, t in zip(predicted, targets, strict=False):
        matrix[p, t] += 1
    return matrix


@wrong("06.count_confusions", "Every field is 0 or 1: `matrix[targets, predicted] += 1`")
def plus_equals_on_indices(predicted, targets, num_classes):
    matrix = torch.zeros((num_classes, num_classes), dtype=torch.int64)
    matrix[targets, predicted] = matrix[targets, predicted] + 1
    return matrix


@wrong("06.count_confusions", "It is a whole number of times too small: 2 times here. Is")
def normalised(predicted, targets, num_classes):
    matrix = one_hot_product(predicted, targets, num_classes)
    return matrix / matrix.sum()


@right("06.confused_pairs")
def from_the_upper_triangle(matrix, min_val=1):
    i, j = torch.triu_indices(len(matrix), len(matrix), offset=1)
    counts = matrix[i, j] + matrix[j, i]
    rows = [(int(a), int(b), int(c)) for a, b, c in zip(i, j, counts, strict=False) if c >= min_val]
    rows.sort(key=lambda row: row[2], reverse=True)
    return rows


@right("06.confused_pairs")
def as_an_array(matrix, min_val=1):
    both = np.triu((matrix + matrix.T).numpy(), 1)
    rows = [[i, j, both[i, j]] for i, j in np.argwhere(both >= min_val)]
    return sorted(rows, key=lambda row: -row[2])


@wrong("06.confused_pairs", "The diagonal is among your pairs, twice as large as it is.")
def with_the_right_ones(matrix, min_val=1):
    both = matrix + matrix.T
    rows = [(i, j, int(both[i, j])) for i in range(len(both)) for j in range(i, len(both)) if both[i, j] >= min_val]
    return sorted(rows, key=lambda row: -row[2])


@right("06.worst_images")
def sorted_pairs(logits, targets, count):
    losses = [F.cross_entropy(row[None], y[None]).item() for row, y in zip(logits, targets, strict=False)]
    return sorted(enumerate(losses), key=lambda pair: pair[1], reverse=True)[:count]


@wrong("06.worst_images", "You give the *smallest* losses: these are the images that")
def smallest_first(logits, targets, count):
    losses = F.cross_entropy(logits, targets, reduction="none")
    order = losses.argsort()[-count:]
    return [(int(i), float(losses[i])) for i in order]


@right("06.heat")
def with_retain_grad(maps, head, classes):
    x = maps.clone().requires_grad_(True)
    scores = head(x)
    chosen = scores[torch.arange(len(x)), classes]
    chosen.backward(torch.ones_like(chosen))
    weights = x.grad.flatten(2).mean(2)
    return F.relu((weights[:, :, None, None] * maps).sum(dim=1))


@right("06.heat")
def as_numpy(maps, head, classes):
    x = maps.detach().requires_grad_()
    picked = F.one_hot(classes, head(x).shape[1])
    (g,) = torch.autograd.grad((head(x) * picked).sum(), x)
    return np.maximum(np.einsum("nc,nchw->nhw", g.mean((-1, -2)).numpy(), x.detach().numpy()), 0)


@wrong("06.heat", " in place of ")
def highest_class(maps, head, classes):
    x = maps.clone().requires_grad_(True)
    head(x).max(1).values.sum().backward()
    return (x.grad.mean((2, 3), keepdim=True) * maps).sum(1).relu()


@right("06.calibration_error")
def bucketized(confidence, right, bins):
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    place = torch.bucketize(confidence, edges)
    total = 0.0
    for k in place.unique():
        inside = place == k
        total += abs(float(confidence[inside].sum() - right[inside].sum()))
    return total / len(confidence)


@wrong("06.calibration_error", "Your bins go from the smallest confidence to the largest.")
def bins_over_the_data(confidence, right, bins):
    confidence, right = confidence.numpy(), right.numpy()
    edges = np.linspace(confidence.min(), confidence.max(), bins + 1)
    place = np.clip(np.digitize(confidence, edges, right=True), 1, bins)
    return float(sum(abs(right[place == k].mean() - confidence[place == k].mean()) * (place == k).mean()
                     for k in set(place)))


@wrong("06.calibration_error", "Every bin counts the same, also one with a single image.")
def bins_counted_alike(confidence, right, bins):
    gaps = []
    for k in range(bins):
        inside = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if inside.any():
            gaps.append((confidence[inside].mean() - right[inside].mean()).abs().item())
    return sum(gaps) / len(gaps)


@right("06.class_numbers")
def as_tensors(names, valid_names):
    classes = sorted({name for name in names})
    return torch.tensor([classes.index(n) for n in names]), torch.tensor([classes.index(n) for n in valid_names])


@wrong("06.class_numbers", " in place of ")
def any_order_of_a_set(names, valid_names):
    classes = list(set(names))
    return [classes.index(n) for n in names], [classes.index(n) for n in valid_names]


@wrong("06.class_numbers", "You sort the classes, but those of each list by")
def sorted_apart(names, valid_names):
    return tuple([sorted(set(some)).index(name) for name in some] for some in (names, valid_names))
