"""Students' answers to the exercises of lesson 11."""

import math
from itertools import combinations

import numpy as np

from . import right, wrong


@right("11.close_pairs")
def with_combinations(hashes, most):
    return [pair for pair in combinations(range(len(hashes)), 2)
            if np.count_nonzero(hashes[pair[0]] ^ hashes[pair[1]]) <= most]


@right("11.close_pairs")
def by_argwhere(hashes, most):
    differ = (hashes[:, None] ^ hashes[None]).sum(-1)
    return np.argwhere(np.triu(differ <= most, 1)).tolist()


@right("11.close_pairs")
def in_plain_python(hashes, most):
    found = []
    for j, second in enumerate(hashes.tolist()):
        for i, first in enumerate(hashes.tolist()[:j]):
            if sum(a != b for a, b in zip(first, second, strict=True)) <= most:
                found.append((i, j))
    return sorted(found)


@wrong("11.close_pairs", "a list of 0. Wanted: a list of 1")
def identical_only(hashes, most):
    return [pair for pair in with_combinations(hashes, most) if (hashes[pair[0]] == hashes[pair[1]]).all()]


@wrong("11.close_pairs", "at [0]: at [0]: 1 in place of 0")
def larger_first(hashes, most):
    return [(j, i) for i, j in with_combinations(hashes, most)]


@wrong("11.close_pairs", "a tuple of 3. Wanted: a tuple of 2")
def with_distance(hashes, most):
    return [(i, j, int((hashes[i] != hashes[j]).sum())) for i, j in with_combinations(hashes, most)]


@wrong("11.close_pairs", "numpy boolean subtract")
def minus_of_bools(hashes, most):
    return [(i, j) for i, j in combinations(range(len(hashes)), 2) if abs(hashes[i] - hashes[j]).sum() <= most]


@wrong("11.close_pairs", "a list of 3. Wanted: a list of 1")
def a_share_of_the_places(hashes, most):
    return [(i, j) for i, j in combinations(range(len(hashes)), 2) if (hashes[i] != hashes[j]).mean() <= most]


@wrong("11.close_pairs", "of type set in place of list")
def a_set(hashes, most):
    return set(with_combinations(hashes, most))


@right("11.hold_out")
def animal_after_animal(groups, wanted):
    held, seen = [], []
    for animal in groups:
        if animal in seen:
            continue
        seen.append(animal)
        if len(held) < wanted:
            held += [i for i, other in enumerate(groups) if other == animal]
    return sorted(held)


@right("11.hold_out")
def with_a_loop_and_break(groups, wanted):
    held = np.zeros(len(groups), dtype=bool)
    for animal in sorted(set(groups), key=groups.index):
        if held.sum() >= wanted:
            break
        held |= np.array(groups) == animal
    return np.flatnonzero(held)


@right("11.hold_out")
def with_a_dictionary(groups, wanted):
    rows = {}
    for i, animal in enumerate(groups):
        rows.setdefault(animal, []).append(i)
    found = []
    while rows and len(found) < wanted:
        found += rows.pop(next(iter(rows)))
    return sorted(found)


@wrong("11.hold_out", "3 elements in place of 2")
def one_more_animal(groups, wanted):
    return animal_after_animal(groups, wanted + 1)


@wrong("11.hold_out", "Expected [0, 1], got ['rex']")
def names_of_animals(groups, wanted):
    return list(dict.fromkeys(groups[i] for i in animal_after_animal(groups, wanted)))


@wrong("11.hold_out", "6 elements in place of 7")
def the_largest_first(groups, wanted):
    held = []
    for animal in sorted(set(groups), key=lambda one: (-groups.count(one), groups.index(one))):
        if len(held) < wanted:
            held += [i for i, other in enumerate(groups) if other == animal]
    return sorted(held)


@wrong("11.hold_out", "Expected [0, 1], got [0, 0]")
def first_photograph_of_each(groups, wanted):
    return [groups.index(groups[i]) for i in animal_after_animal(groups, wanted)]


@wrong("11.hold_out", "Give them rising")
def in_order_of_animals(groups, wanted):
    order = list(dict.fromkeys(groups))
    return [i for animal in order for i in animal_after_animal(groups, wanted) if groups[i] == animal]


@wrong("11.hold_out", "Expected [0, 1], got [3]")
def from_the_end(groups, wanted):
    last = len(groups) - 1
    return sorted(last - i for i in animal_after_animal(groups[::-1], wanted))


@right("11.error_interval")
def roots_of_a_parabola(wrong, images):
    """The errors e from which `wrong` is 1.96 standard errors away: (p - e)² = z² e (1 - e) / n."""
    p, share = wrong / images, 1.96**2 / images
    return tuple(sorted(np.roots([1 + share, -2 * p - share, p * p]).real))


@right("11.error_interval")
def with_counts(wrong, images):
    z = 1.96
    middle = (wrong + z**2 / 2) / (images + z**2)
    reach = z / (images + z**2) * math.sqrt(wrong * (images - wrong) / images + z**2 / 4)
    return [middle - reach, middle + reach]


@right("11.error_interval")
def as_array(wrong, images):
    return np.array(with_counts(wrong, images))


@wrong("11.error_interval", "in the opposite order")
def high_first(wrong, images):
    return with_counts(wrong, images)[::-1]


@wrong("11.error_interval", "Each number is 100 times")
def in_percent(wrong, images):
    return [100 * end for end in with_counts(wrong, images)]


@wrong("11.error_interval", "at [0]: -0.009687 in place of")
def two_standard_errors(wrong, images):
    p = wrong / images
    reach = 2 * (p * (1 - p) / images) ** 0.5
    return p - reach, p + reach


@wrong("11.error_interval", "at [0]: -0.004028 in place of")
def about_the_error(wrong, images):
    low, high = with_counts(wrong, images)
    return wrong / images - (high - low) / 2, wrong / images + (high - low) / 2


@wrong("11.error_interval", "at [0]: 0.075118 in place of")
def nothing_under_the_root(wrong, images):
    z, p = 1.96, wrong / images
    shrink = 1 + z**2 / images
    reach = z * math.sqrt(p * (1 - p) / images) / shrink
    return (p + z**2 / (2 * images)) / shrink - reach, (p + z**2 / (2 * images)) / shrink + reach


@wrong("11.error_interval", "at [0]: 6.56667 in place of")
def divided_by_the_wrong(wrong, images):
    p = images / wrong
    return p - 0.1, p + 0.1


@right("11.stability")
def in_numpy(before, now):
    p, q = (np.array(some) + 0.5 for some in (before, now))
    p, q = p / p.sum(), q / q.sum()
    return ((q - p) * np.log(q / p)).sum()


@right("11.stability")
def with_a_loop(before, now):
    total = 0.0
    for a, b in zip(before, now, strict=True):
        p = (a + 0.5) / (sum(before) + len(before) / 2)
        q = (b + 0.5) / (sum(now) + len(now) / 2)
        total += (q - p) * (math.log(q) - math.log(p))
    return total


@right("11.stability")
def both_directions(before, now):
    p, q = ((np.array(some) + 0.5) / (np.array(some) + 0.5).sum() for some in (before, now))
    return float((q * np.log(q / p)).sum() + (p * np.log(p / q)).sum())


@wrong("11.stability", "3.51556 in place of 3.41224")
def no_half(before, now):
    return sum((b / sum(now) - a / sum(before)) * math.log(b / sum(now) / (a / sum(before)))
               for a, b in zip(before, now, strict=True))


@wrong("11.stability", "3.51556 in place of 3.41224")
def empty_bins_left_out(before, now):
    return sum((b / sum(now) - a / sum(before)) * math.log(b / sum(now) / (a / sum(before)))
               for a, b in zip(before, now, strict=True) if a and b)


@wrong("11.stability", "1.70612 in place of 3.41224")
def the_other_divergence(before, now):
    p, q = ((np.array(some) + 0.5) / (np.array(some) + 0.5).sum() for some in (before, now))
    return (p * np.log(p / q)).sum()


@wrong("11.stability", "Each number is 1.44 times")
def logarithm_of_two(before, now):
    return in_numpy(before, now) / math.log(2)


@wrong("11.stability", "never below zero")
def turned_round(before, now):
    p, q = ((np.array(some) + 0.5) / (np.array(some) + 0.5).sum() for some in (before, now))
    return ((q - p) * np.log(p / q)).sum()


@wrong("11.stability", "a list of 2. Wanted: a number")
def for_each_bin(before, now):
    p, q = ((np.array(some) + 0.5) / (np.array(some) + 0.5).sum() for some in (before, now))
    return ((q - p) * np.log(q / p)).tolist()


@right("11.every_fourth")
def by_number_of_animal(animals):
    numbers = {}
    for animal in animals:
        numbers.setdefault(animal, len(numbers))
    held = np.array([numbers[animal] % 4 == 0 for animal in animals])
    return np.flatnonzero(~held), np.flatnonzero(held)


@right("11.every_fourth")
def sorted_by_first_place(animals):
    chosen = sorted(set(animals), key=animals.index)[::4]
    train, valid = [], []
    for i, animal in enumerate(animals):
        (valid if animal in chosen else train).append(i)
    return train, valid


@right("11.every_fourth")
def with_sets(animals):
    seen = list(dict.fromkeys(animals))
    valid = {i for i, animal in enumerate(animals) if seen.index(animal) % 4 == 0}
    return sorted(set(range(len(animals))) - valid), sorted(valid)


@wrong("11.every_fourth", "at 'training': at [2]: 5 in place of 4")
def every_third(animals):
    chosen = list(dict.fromkeys(animals))[::3]
    return ([i for i, animal in enumerate(animals) if animal not in chosen],
            [i for i, animal in enumerate(animals) if animal in chosen])


@wrong("11.every_fourth", "a list of 4. Wanted: a list of 3")
def first_quarter(animals):
    seen = list(dict.fromkeys(animals))
    chosen = seen[:max(len(seen) // 4, 1)]
    return ([i for i, animal in enumerate(animals) if animal not in chosen],
            [i for i, animal in enumerate(animals) if animal in chosen])


@wrong("11.every_fourth", "a list of 4. Wanted: a tuple of 2")
def validation_alone(animals):
    return sorted_by_first_place(animals)[1]


@wrong("11.every_fourth", "a list of 2. Wanted: a list of 4")
def the_animals_themselves(animals):
    chosen = list(dict.fromkeys(animals))[::4]
    return [animal for animal in animals if animal not in chosen], chosen


@wrong("11.every_fourth", "a list of 6. Wanted: a list of 3")
def from_the_second(animals):
    chosen = list(dict.fromkeys(animals))[1::4]
    return ([i for i, animal in enumerate(animals) if animal not in chosen],
            [i for i, animal in enumerate(animals) if animal in chosen])


@wrong("11.every_fourth", "This still does what the one you were given does")
def still_every_fourth_photograph(animals):
    valid = list(range(0, len(animals), 4))
    return [i for i in range(len(animals)) if i % 4], valid
