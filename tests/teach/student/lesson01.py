"""Students' answers to the exercises of lesson 1."""

import hashlib
import math
import random
import re
import zlib
from collections import defaultdict
from functools import reduce

import numpy as np
import torch

from . import right, wrong


@right("01.class_of_name")
def full_match(name):
    found = re.fullmatch(r"(?P<date>\d{4}-\d{2}-\d{2})_(?P<kind>\w+)_(?P<number>\d+)\.png", name)
    return found["kind"] if found else None


@right("01.class_of_name")
def find_all(name):
    return (re.compile(r"^\d+-\d+-\d+_(.*)_[0-9]{4}[.]png$").findall(name) or [None])[0]


@wrong("01.class_of_name", "`class_of_name` prints, but gives nothing back")
def printed_class(name):
    found = re.search(r"^[\d-]+_(.+)_\d+\.png$", name)
    print(found.group(1) if found else None)


@wrong("01.class_of_name", "AttributeError")
def forgot_none(name):
    return re.search(r"^[\d-]+_(.+)_\d+\.png$", name).group(1)


@wrong("01.class_of_name", "'' in place of None")
def empty_text(name):
    found = re.search(r"^[\d-]+_(.+)_\d+\.png$", name)
    return found.group(1) if found else ""


@wrong("01.class_of_name", "`class_of_name` gives back one of class `Match`. Wanted: a")
def the_match_itself(name):
    return re.search(r"^[\d-]+_(.+)_\d+\.png$", name)


@wrong("01.class_of_name", "'2024-05-01_green_0007' in place of 'green'")
def group_zero(name):
    found = re.search(r"^[\d-]+_(.+)_\d+\.png$", name)
    return found.group(0)[:-4] if found else None


@wrong("01.class_of_name", "None in place of 'light_roast_2'")
def letters_only(name):
    found = re.search(r"^[\d-]+_([a-z_]+)_\d+\.png$", name)
    return found.group(1) if found else None


@wrong("01.class_of_name", "'dark' in place of None")
def by_splitting(name):
    return "_".join(name.split("_")[1:-1])


@right("01.to_network")
def with_numpy(images, mean, std):
    x = images.numpy().astype("float32") / 255
    return torch.from_numpy(((x - np.float32(mean)) / np.float32(std)).transpose(0, 3, 1, 2))


@right("01.to_network")
def colour_by_colour(images, mean, std):
    planes = [(images[..., c].to(torch.float32) / 255 - mean[c]) / std[c] for c in range(3)]
    return torch.stack(planes, dim=1)


@wrong("01.to_network", "The values are right, but they are float64: with NumPy,")
def in_double(images, mean, std):
    x = (images.numpy() / 255.0 - np.array(mean)) / np.array(std)
    return torch.from_numpy(x.transpose(0, 3, 1, 2))


@wrong("01.to_network", "the shape is")
def rows_and_columns_exchanged(images, mean, std):
    x = images.permute(0, 3, 2, 1).float() / 255
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@wrong("01.to_network", "at 'values': 3 of 6 numbers differ, the first at [0, 0,")
def by_256(images, mean, std):
    x = images.permute(0, 3, 1, 2).float() / 256
    return (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@wrong("01.to_network", "at 'values': 3 of 6 numbers differ, the first at [0, 0,")
def brackets_forgotten(images, mean, std):
    x = images.permute(0, 3, 1, 2).float() / 255
    return x - torch.tensor(mean).view(3, 1, 1) / torch.tensor(std).view(3, 1, 1)


@wrong("01.to_network", "RuntimeError")
def in_place_on_bytes(images, mean, std):
    images /= 255
    return (images.permute(0, 3, 1, 2) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@wrong("01.to_network", "at 'values': 6 of 6 numbers differ, the first at [0, 0,")
def own_mean(images, mean, std):
    x = images.permute(0, 3, 1, 2).float() / 255
    return (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)


@right("01.hold_out")
def lot_from_random(names, labels, fraction, seed):
    members = defaultdict(list)
    for name, label in zip(names, labels, strict=True):
        members[label].append((random.Random(f"{seed} {name}").random(), name))
    return {name for group in members.values() for _, name in sorted(group)[:round(len(group) * fraction)]}


@right("01.hold_out")
def lot_from_crc(names, labels, fraction, seed):
    names, labels, chosen = np.array(names), np.array(labels), []
    for label in np.unique(labels):
        own = names[labels == label]
        lots = [zlib.crc32(f"{name}:{seed}".encode()) for name in own]
        chosen.extend(own[np.argsort(lots)[:round(fraction * len(own))]].tolist())
    return tuple(chosen)


@wrong("01.hold_out", "another one in every session")
def pythons_hash(names, labels, fraction, seed):
    held_out = []
    for label in set(labels):
        own = sorted((n for n, its in zip(names, labels, strict=True) if its == label), key=lambda n: hash((seed, n)))
        held_out += own[:round(fraction * len(own))]
    return held_out


@wrong("01.hold_out", "You round down, as `int` does")
def rounded_down(names, labels, fraction, seed):
    held_out = []
    for label in set(labels):
        own = sorted((n for n, its in zip(names, labels, strict=True) if its == label),
                     key=lambda n: hashlib.md5(f"{seed}{n}".encode()).hexdigest())
        held_out += own[:int(fraction * len(own))]
    return held_out


@wrong("01.hold_out", "You give back something else than names, such as their")
def indices_not_names(names, labels, fraction, seed):
    held_out = []
    for label in set(labels):
        own = sorted((i for i, its in enumerate(labels) if its == label),
                     key=lambda i: hashlib.md5(f"{seed}{names[i]}".encode()).hexdigest())
        held_out += own[:round(fraction * len(own))]
    return held_out


@wrong("01.hold_out", "You hold out at least one photograph of every class")
def at_least_one(names, labels, fraction, seed):
    held_out = []
    for label in set(labels):
        own = sorted((n for n, its in zip(names, labels, strict=True) if its == label),
                     key=lambda n: hashlib.md5(f"{seed}{n}".encode()).hexdigest())
        held_out += own[:max(1, round(fraction * len(own)))]
    return held_out


@wrong("01.hold_out", "The classes do not keep their shares")
def each_by_its_own_lot(names, labels, fraction, seed):
    """Each name is held out if its lot is below the fraction, so the share is only about right."""
    lot = lambda name: int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest(), 16) / 2**256
    return [name for name in names if lot(name) < fraction]


@wrong("01.hold_out", "You give back something else than names, such as their")
def lists_of_lists(names, labels, fraction, seed):
    held_out = []
    for label in set(labels):
        own = sorted((n for n, its in zip(names, labels, strict=True) if its == label),
                     key=lambda n: hashlib.md5(f"{seed}{n}".encode()).hexdigest())
        held_out.append(own[:round(fraction * len(own))])
    return held_out


@wrong("01.hold_out", "Every seed gives the same validation set, so nobody can try another")
def hash_without_seed(names, labels, fraction, seed):
    held_out = []
    for label in set(labels):
        own = sorted((n for n, its in zip(names, labels, strict=True) if its == label),
                     key=lambda n: hashlib.md5(n.encode()).hexdigest())
        held_out += own[:round(fraction * len(own))]
    return held_out


@right("01.look_up")
def one_product(changes, x, y):
    whole = reduce(np.matmul, [change.numpy() for change in changes], np.eye(3))
    place = whole @ [x, y, 1]
    return list(place[:2] / place[2])


@right("01.look_up")
def divided_on_the_way(changes, x, y):
    for change in changes[::-1]:
        a, b, w = change @ torch.tensor([float(x), float(y), 1.0])
        x, y = a / w, b / w
    return x, y


@right("01.look_up")
def a_tensor(changes, x, y):
    place = torch.tensor([x, y, 1.0])
    for change in reversed(changes):
        place = change @ place
    return place[:2] / place[2]


@wrong("01.look_up", "IndexError")
def starts_with_the_last(changes, x, y):
    whole = changes[0]
    for change in changes[1:]:
        whole = whole @ change
    place = whole @ torch.tensor([x, y, 1.0])
    return (place[0] / place[2]).item(), (place[1] / place[2]).item()


@wrong("01.look_up", "3 elements in place of 2")
def w_too(changes, x, y):
    place = torch.tensor([x, y, 1.0])
    for change in reversed(changes):
        place = change @ place
    return tuple((place / place[2]).tolist())


@wrong("01.look_up", "at [0]: -0.25 in place of 0")
def as_a_direction(changes, x, y):
    place = torch.tensor([x, y, 0.0])
    for change in reversed(changes):
        place = change @ place
    return place[0].item(), place[1].item()


@wrong("01.look_up", "changes one of its arguments")
def reverses_in_place(changes, x, y):
    changes.reverse()
    place = torch.tensor([x, y, 1.0])
    for change in changes:
        place = change @ place
    return (place[0] / place[2]).item(), (place[1] / place[2]).item()


@right("01.smallest_presize")
def by_trying(image_size, min_scale, max_ratio, zoom):
    presize = 1
    while presize * (min_scale / max_ratio) ** 0.5 < image_size * zoom - 1e-9:
        presize += 1
    return presize


@right("01.smallest_presize")
def numpy_ceil(image_size, min_scale, max_ratio, zoom):
    return np.ceil(image_size * zoom * np.sqrt(max_ratio / min_scale))


@wrong("01.smallest_presize", "You round to the nearest, so sometimes a fraction of a")
def to_the_nearest(image_size, min_scale, max_ratio, zoom):
    return round(image_size * zoom * math.sqrt(max_ratio / min_scale))


@wrong("01.smallest_presize", "225 in place of 224")
def one_more(image_size, min_scale, max_ratio, zoom):
    return int(image_size * zoom * math.sqrt(max_ratio / min_scale)) + 1


@wrong("01.smallest_presize", "258.653 in place of 259")
def no_whole_number(image_size, min_scale, max_ratio, zoom):
    return image_size * zoom * math.sqrt(max_ratio / min_scale)


@wrong("01.smallest_presize", "224 in place of 299")
def longer_side(image_size, min_scale, max_ratio, zoom):
    return math.ceil(image_size * zoom / math.sqrt(min_scale * max_ratio))


@wrong("01.smallest_presize", "300 in place of 299")
def rounded_up_twice(image_size, min_scale, max_ratio, zoom):
    return math.ceil(math.ceil(image_size / math.sqrt(min_scale)) * math.sqrt(max_ratio) * zoom)


@right("01.hold_out_groups")
def numpy_groups(groups, fraction, seed):
    objects = np.unique(groups)
    lots = [int(hashlib.md5(f"{name}{seed}".encode()).hexdigest(), 16) for name in objects]
    chosen = objects[np.argsort(lots)[:round(fraction * len(objects))]]
    return np.flatnonzero(np.isin(groups, chosen))


@right("01.hold_out_groups")
def a_set_of_numbers(groups, fraction, seed):
    objects = sorted({*groups}, key=lambda name: random.Random(f"{seed}-{name}").random())
    del objects[round(fraction * len(objects)):]
    return {i for i in range(len(groups)) if groups[i] in objects}


@wrong("01.hold_out_groups", "another one in every session")
def groups_by_pythons_hash(groups, fraction, seed):
    objects = sorted(set(groups), key=lambda group: hash(f"{seed}/{group}"))
    chosen = set(objects[:round(fraction * len(objects))])
    return [i for i, group in enumerate(groups) if group in chosen]


@wrong("01.hold_out_groups", "You give back something else than the numbers of the")
def the_objects_not_the_photographs(groups, fraction, seed):
    objects = sorted(set(groups), key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).hexdigest())
    return objects[:round(fraction * len(objects))]


@wrong("01.hold_out_groups", "You add objects until the share of the *photographs* is")
def share_of_the_photographs(groups, fraction, seed):
    """Adds whole objects until the share of the photographs is reached."""
    chosen = []
    for group in sorted(set(groups), key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).hexdigest()):
        if len(chosen) < fraction * len(groups):
            chosen += [i for i, its in enumerate(groups) if its == group]
    return chosen


@wrong("01.hold_out_groups", "You give back something else than the numbers of the")
def a_mask(groups, fraction, seed):
    objects = sorted(set(groups), key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).hexdigest())
    chosen = set(objects[:round(fraction * len(objects))])
    return [group in chosen for group in groups]


@wrong("01.hold_out_groups", "at 'the same when the list is in another order': False in")
def never_sorted(groups, fraction, seed):
    objects = list(dict.fromkeys(groups))
    rng = np.random.default_rng(seed)
    chosen = set(rng.permutation(objects)[:round(fraction * len(objects))].tolist())
    return [i for i, group in enumerate(groups) if group in chosen]


@wrong("01.hold_out_groups", "depends on all of them: when one is added, others move")
def sorted_then_shuffled(groups, fraction, seed):
    """The lot depends on the seed and the names of all objects: a new object moves the old ones."""
    objects = sorted(set(groups))
    random.Random(seed).shuffle(objects)
    chosen = objects[:round(fraction * len(objects))]
    return [i for i, group in enumerate(groups) if group in chosen]


@right("01.class_of_name")
def cut_piece_by_piece(name):
    date, _, rest = name.partition("_")
    kind, _, number = rest.rpartition("_")
    whole = re.fullmatch(r"[0-9-]+", date) and re.fullmatch(r"\d+\.png", number) and kind
    return kind if whole else None


@wrong("01.class_of_name", "A half-finished download, `.png.part`, is taken for a")
def match_without_end(name):
    found = re.match(r"[\d-]+_(.+)_\d+[.]png", name)
    return found and found.group(1)


@right("01.to_network")
def with_arrays_and_moveaxis(images, mean, std):
    x = np.moveaxis(np.asarray(images, dtype=np.float32), -1, 1) / np.float32(255)
    mean, std = (np.array(v, dtype=np.float32)[None, :, None, None] for v in (mean, std))
    return (x - mean) / std


@right("01.hold_out")
def lots_by_dictionary(names, labels, fraction, seed):
    digest = lambda name: hashlib.blake2b(name.encode(), key=str(seed).encode()).digest()
    lot = {name: int.from_bytes(digest(name), "big") for name in names}
    by_class = {}
    for name, label in zip(names, labels, strict=False):
        by_class.setdefault(label, []).append(name)
    return [n for own in by_class.values()
            for n in sorted(own, key=lot.get, reverse=True)[:round(fraction * len(own))]]


@wrong("01.hold_out", "depends on ")
def drawn_from_a_set(names, labels, fraction, seed):
    rng, out = random.Random(seed), []
    for label in sorted(set(labels)):
        own = list({n for n, its in zip(names, labels, strict=False) if its == label})
        out += rng.sample(own, round(fraction * len(own)))
    return out


@wrong("01.hold_out", "You draw from the sorted list, so who is drawn depends on")
def drawn_after_sorting(names, labels, fraction, seed):
    out = []
    for label in set(labels):
        own = sorted(n for n, its in zip(names, labels, strict=False) if its == label)
        order = np.random.default_rng(seed).permutation(len(own))
        out += [own[i] for i in order[:round(fraction * len(own))]]
    return out


@wrong("01.hold_out", "You round up, as `math.ceil` does: 0.3 of 11 photographs")
def rounded_up(names, labels, fraction, seed):
    out = []
    for label in set(labels):
        own = sorted((n for n, its in zip(names, labels, strict=False) if its == label),
                     key=lambda n: hashlib.sha1(f"{n}{seed}".encode()).digest())
        out.extend(own[:math.ceil(fraction * len(own))])
    return out


@right("01.look_up")
def matrix_by_matrix_in_double(changes, x, y):
    point = np.array([x, y, 1.0])
    for change in changes[::-1]:
        point = change.double().numpy().dot(point)
    return (float(point[0] / point[2]), float(point[1] / point[2]))


@wrong("01.look_up", " in place of ")
def adds_the_changes(changes, x, y):
    whole = sum(changes, torch.zeros(3, 3)) if changes else torch.eye(3)
    a, b, w = whole @ torch.tensor([x, y, 1.0])
    return a.item() / w.item(), b.item() / w.item()


@wrong("01.look_up", "in the opposite order")
def y_before_x(changes, x, y):
    place = torch.tensor([x, y, 1.0])
    for change in reversed(changes):
        place = change @ place
    return (place[1] / place[2]).item(), (place[0] / place[2]).item()


@right("01.smallest_presize")
def negative_floor(image_size, min_scale, max_ratio, zoom):
    return int(-(-image_size * zoom // math.sqrt(min_scale / max_ratio)))


@wrong("01.smallest_presize", "The ratio counts once in your formula, but an oblong crop")
def ratio_squared(image_size, min_scale, max_ratio, zoom):
    return math.ceil(image_size * zoom * max_ratio / math.sqrt(min_scale))


@wrong("01.smallest_presize", " in place of ")
def image_size_divided_by_share(image_size, min_scale, max_ratio, zoom):
    return math.ceil(image_size * zoom * max_ratio / min_scale)


@wrong("01.hold_out_groups", "You round down, as `int` does: 0.27 of 10 objects is 2.7,")
def floor_of_the_share(groups, fraction, seed):
    objects = sorted(set(groups), key=lambda g: hashlib.md5(f"{g}-{seed}".encode()).hexdigest())
    kept = objects[:int(len(objects) * fraction)]
    return [i for i, g in enumerate(groups) if g in kept]


@right("01.hold_out_groups")
def largest_lots(groups, fraction, seed):
    lot = {g: random.Random(f"{g}/{seed}").random() for g in groups}
    count = round(fraction * len(lot))
    chosen = {g for g, _ in sorted(lot.items(), key=lambda pair: -pair[1])[:count]}
    return tuple(i for i in range(len(groups)) if groups[i] in chosen)
