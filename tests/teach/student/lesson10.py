"""Students' answers to the exercises of lesson 10."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import right, wrong


@right("10.smooth")
def filled_and_scattered(y, num_classes, amount):
    targets = torch.full((len(y), num_classes), amount / num_classes)
    targets[torch.arange(len(y)), y] += 1 - amount
    smallest = nn.CrossEntropyLoss(label_smoothing=amount)(targets.clamp(min=1e-30).log(), y)
    return targets, float(smallest)


@right("10.smooth")
def by_hand_in_numpy(y, num_classes, amount):
    own, others = 1 - amount + amount / num_classes, amount / num_classes
    rows = np.full((len(y), num_classes), others)
    rows[range(len(y)), y.numpy()] = own
    entropy = -own * math.log(own) - ((num_classes - 1) * others * math.log(others) if others else 0)
    return rows, entropy


@wrong("10.smooth", "`smooth` gives back a tensor of shape (1, 4). Wanted: a")
def targets_alone(y, num_classes, amount):
    return F.one_hot(y, num_classes) * (1 - amount) + amount / num_classes


@wrong("10.smooth", "at [1]: 0.797376 in place of 0.34878")
def loss_with_hard_labels(y, num_classes, amount):
    targets = targets_alone(y, num_classes, amount)
    return targets, F.cross_entropy(targets, y).item()


@wrong("10.smooth", "`F.cross_entropy` takes logits, and you give it probabilities")
def loss_of_probabilities(y, num_classes, amount):
    targets = targets_alone(y, num_classes, amount)
    return targets, F.cross_entropy(targets, targets).item()


@wrong("10.smooth", "One number is wanted: their mean")
def a_loss_for_each(y, num_classes, amount):
    targets = targets_alone(y, num_classes, amount)
    return targets, torch.special.entr(targets).sum(1)


@wrong("10.smooth", "at [1]: 0.503184 in place of 0.34878")
def in_bits(y, num_classes, amount):
    targets = targets_alone(y, num_classes, amount)
    return targets, float(torch.special.entr(targets).sum(1).mean()) / math.log(2)


@wrong("10.smooth", "the first at [0, 0]: 0 in place of 0.025")
def whole_numbers(y, num_classes, amount):
    targets = F.one_hot(y, num_classes)
    targets[targets == 1] = 1 - amount
    return targets, 0.0


@right("10.closing_gamma")
def with_min_and_max(rates, step, final_lr, gammas, within):
    parts = []
    for gamma in gammas:
        lower, upper = final_lr - final_lr / (gamma * step + 1), final_lr + final_lr / (gamma * step)
        clipped = [min(max(rate, lower), upper) for rate in rates.tolist()]
        parts.append(max(abs(rate - final_lr) for rate in clipped) / final_lr)
    enough = sorted(gamma for gamma, part in zip(gammas, parts, strict=True) if part <= within)
    return parts, enough[0] if enough else None


@right("10.closing_gamma")
def all_at_once(rates, step, final_lr, gammas, within):
    many = torch.tensor(gammas)[:, None]
    low, high = final_lr * (1 - 1 / (many * step + 1)), final_lr * (1 + 1 / (many * step))
    parts = (torch.minimum(torch.maximum(rates, low), high) - final_lr).abs().amax(1) / final_lr
    enough = [gamma for gamma, part in zip(gammas, parts, strict=True) if part <= within]
    return parts, min(enough) if enough else None


@right("10.closing_gamma")
def all_at_once_as_a_list(rates, step, final_lr, gammas, within):
    parts, smallest = all_at_once(rates, step, final_lr, gammas, within)
    return parts.tolist(), smallest


@wrong("10.closing_gamma", "at [1]: 2 in place of 1")
def number_of_the_gamma(rates, step, final_lr, gammas, within):
    parts, smallest = with_min_and_max(rates, step, final_lr, gammas, within)
    return parts, None if smallest is None else gammas.index(smallest)


@wrong("10.closing_gamma", "at [1]: 1 in place of 0.001")
def least_distance(rates, step, final_lr, gammas, within):
    parts, _ = with_min_and_max(rates, step, final_lr, gammas, within)
    return parts, gammas[parts.index(min(parts))]


@wrong("10.closing_gamma", "at [0]: at [0]: 0.909091 in place of 9")
def bounds_exchanged(rates, step, final_lr, gammas, within):
    parts = []
    for gamma in gammas:
        low, high = final_lr * (1 - 1 / (gamma * step)), final_lr * (1 + 1 / (gamma * step + 1))
        parts.append(float((rates.clamp(low, high) / final_lr - 1).abs().max()))
    return parts, min((g for g, part in zip(gammas, parts, strict=True) if part <= within), default=None)


@wrong("10.closing_gamma", "It raised ValueError in the line `return parts, min(gamma")
def fails_without_any(rates, step, final_lr, gammas, within):
    parts, _ = with_min_and_max(rates, step, final_lr, gammas, within)
    return parts, min(gamma for gamma, part in zip(gammas, parts, strict=True) if part <= within)


@wrong("10.closing_gamma", "changes one of its arguments")
def clips_what_it_is_given(rates, step, final_lr, gammas, within):
    parts = []
    for gamma in gammas:
        rates.clamp_(final_lr * (1 - 1 / (gamma * step + 1)), final_lr * (1 + 1 / (gamma * step)))
        parts.append(float((rates / final_lr - 1).abs().max()))
    return parts, min((g for g, part in zip(gammas, parts, strict=True) if part <= within), default=None)


@wrong("10.closing_gamma", "0.1 in place of [9, 1, 0.1], of type float in place of list")
def one_gamma_for_all(rates, step, final_lr, gammas, within):
    parts, smallest = with_min_and_max(rates, step, final_lr, gammas, within)
    return min(parts), smallest


@right("10.paste")
def with_a_mask(x, y, order, top, left, bottom, right):
    rows, columns = torch.arange(x.shape[2]), torch.arange(x.shape[3])
    mask = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
    share = mask.float().mean()
    return torch.where(mask, x[order], x), torch.lerp(y, y[order], share)


@right("10.paste")
def image_by_image(x, y, order, top, left, bottom, right):
    height, width = x.shape[-2:]
    (top, bottom), (left, right) = np.clip([top, bottom], 0, height), np.clip([left, right], 0, width)
    part = (bottom - top) * (right - left) / height / width
    images, targets = [], []
    for i, j in enumerate(order):
        image = x[i].detach().clone()
        image[..., top:bottom, left:right] = x[j][..., top:bottom, left:right]
        images.append(image)
        targets.append(y[i] - part * y[i] + part * y[j])
    return torch.stack(images), torch.stack(targets)


@wrong("10.paste", "has to stay within *both* borders")
def each_at_its_own_border(x, y, order, top, left, bottom, right):
    height, width = x.shape[-2:]
    rows, columns = slice(max(0, top), min(height, bottom)), slice(max(0, left), min(width, right))
    part, mixed = (rows.stop - rows.start) * (columns.stop - columns.start) / height / width, x.clone()
    mixed[..., rows, columns] = x[order][..., rows, columns]
    return mixed, torch.lerp(y, y[order], part)


@wrong("10.paste", "`paste` gives back a tensor of shape (2, 1, 2, 3). Wanted:")
def images_alone(x, y, order, top, left, bottom, right):
    return with_a_mask(x, y, order, top, left, bottom, right)[0]


@wrong("10.paste", "Your rectangle is a row and a column too large")
def last_row_too(x, y, order, top, left, bottom, right):
    return with_a_mask(x, y, order, top, left, bottom + 1, right + 1)


@wrong("10.paste", "36 of 144 numbers differ, the first at [0, 0, 2, 3]")
def partner_the_other_way(x, y, order, top, left, bottom, right):
    return with_a_mask(x, y, order.argsort(), top, left, bottom, right)


@wrong("10.paste", "the first at [0, 0, 0, 0]: 0 in place of 6")
def everything_but_the_rectangle(x, y, order, top, left, bottom, right):
    rows, columns = torch.arange(x.shape[2]), torch.arange(x.shape[3])
    mask = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))
    return torch.where(mask, x, x[order]), torch.lerp(y, y[order], mask.float().mean())


@wrong("10.paste", "72 of 280 numbers differ")
def moved_instead_of_cut(x, y, order, top, left, bottom, right):
    down, across = max(0, -top), max(0, -left)
    return with_a_mask(x, y, order, top + down, left + across, bottom + down, right + across)


@wrong("10.paste", "the first at [0, 0, 0, 0]: 3 in place of 6")
def blended(x, y, order, top, left, bottom, right):
    _, targets = with_a_mask(x, y, order, top, left, bottom, right)
    return 0.5 * x + 0.5 * x[order], targets


@right("10.answer_from_views")
def running_sum(model, x, axes):
    with torch.no_grad():
        total = F.softmax(model(x), dim=-1)
        for some in axes:
            total += F.softmax(model(torch.flip(x, some)), dim=-1)
    return total / (len(axes) + 1)


@right("10.answer_from_views")
def one_large_batch(model, x, axes):
    views = torch.cat([x] + [x.flip(*some) for some in axes])
    return model(views).softmax(1).view(len(axes) + 1, len(x), -1).mean(0)


@wrong("10.answer_from_views", "You flip what was flipped before")
def views_one_after_the_other(model, x, axes):
    views = [x]
    for some in axes:
        views.append(views[-1].flip(some))
    return torch.stack([model(view).softmax(1) for view in views]).mean(0)


@wrong("10.answer_from_views", "the shape is (1,) and should be (1, 2)")
def classes_named(model, x, axes):
    return running_sum(model, x, axes).argmax(1)


@wrong("10.answer_from_views", "You lay the views over each other")
def view_of_the_mean_image(model, x, axes):
    return model(torch.stack([x, *(x.flip(some) for some in axes)]).mean(0)).softmax(1)


@wrong("10.answer_from_views", "the shape is (2, 2) and should be (1, 2)")
def one_view_after_another_in_rows(model, x, axes):
    return torch.cat([model(view).softmax(1) for view in (x, *(x.flip(some) for some in axes))])


@wrong("10.answer_from_views", "0.741007 in place of 0.625478")
def sigmoid_for_softmax(model, x, axes):
    return torch.stack([model(view).sigmoid() for view in (x, *(x.flip(some) for some in axes))]).mean(0)


@wrong("10.answer_from_views", "-0.665706 in place of 0.625478")
def mean_of_logarithms(model, x, axes):
    return torch.stack([model(view).log_softmax(1) for view in (x, *(x.flip(some) for some in axes))]).mean(0)


@right("10.distil")
def by_sums(student, teacher, y, temperature, weight):
    with torch.no_grad():
        p = F.softmax(teacher / temperature, dim=1)
        log_p = F.log_softmax(teacher / temperature, dim=1)
    log_q = F.log_softmax(student / temperature, dim=1)
    soft = (p * (log_p - log_q)).sum(dim=1).mean()
    hard = -student.log_softmax(1)[torch.arange(len(y)), y].mean()
    return hard * (1 - weight) + soft * (weight * temperature ** 2)


@right("10.distil")
def with_the_module(student, teacher, y, temperature, weight):
    divergence = nn.KLDivLoss(reduction="sum")
    soft = divergence((student / temperature).log_softmax(-1), (teacher / temperature).softmax(-1).detach()) / len(y)
    return torch.lerp(nn.CrossEntropyLoss()(student, y), soft * temperature * temperature, weight)


@wrong("10.distil", "nothing can learn from it")
def student_detached(student, teacher, y, temperature, weight):
    return by_sums(student.detach(), teacher, y, temperature, weight)


@wrong("10.distil", "You add both parts whole")
def both_parts_whole(student, teacher, y, temperature, weight):
    return by_sums(student, teacher, y, temperature, 0) + by_sums(student, teacher, y, temperature, 1)


@wrong("10.distil", "at 'loss': 2.5 in place of 1.02961")
def mean_squared_logits(student, teacher, y, temperature, weight):
    return (1 - weight) * F.cross_entropy(student, y) + weight * F.mse_loss(student, teacher.detach())


@wrong("10.distil", "without `.item()`")
def as_a_number(student, teacher, y, temperature, weight):
    return by_sums(student, teacher, y, temperature, weight).item()


@wrong("10.distil", "at 'loss': 8.00344 in place of 1.02961")
def times_the_temperature(student, teacher, y, temperature, weight):
    return by_sums(student * temperature ** 2, teacher * temperature ** 2, y, temperature, weight)


@wrong("10.distil", "You add up over the batch")
def the_sum_over_the_batch(student, teacher, y, temperature, weight):
    return by_sums(student, teacher, y, temperature, weight) * len(y)


@wrong("10.distil", "at 'loss': 21.608 in place of 1.55784")
def square_on_both_parts(student, teacher, y, temperature, weight):
    return temperature ** 2 * ((1 - weight) * F.cross_entropy(student, y)
                               + weight * by_sums(student, teacher, y, temperature, 1) / temperature ** 2)


@right("10.best_average")
def with_lerp(pages, decays, loss):
    losses = []
    for decay in decays:
        kept, t = pages[0].clone(), 0
        for page in pages[1:]:
            t += 1
            kept.lerp_(page, 1 - min(decay, (1 + t) / (10 + t)))
        losses.append(loss(kept))
    best = int(np.argmin(losses))
    return losses, decays[best] if losses[best] < loss(pages[-1]) else None


@right("10.best_average")
def by_weights_of_the_pages(pages, decays, loss):
    losses = []
    for decay in decays:
        shares = [1.0]
        for t in range(1, len(pages)):
            d = min(decay, (1 + t) / (10 + t))
            shares = [d * share for share in shares] + [1 - d]
        losses.append(loss((torch.stack(pages) * torch.tensor(shares)[:, None]).sum(0)))
    lowest, decay = min(zip(losses, decays, strict=True))
    return losses, None if loss(pages[-1]) <= lowest else decay


@wrong("10.best_average", "of type tuple in place of float")
def decay_with_its_loss(pages, decays, loss):
    losses, best = with_lerp(pages, decays, loss)
    return losses, best and (best, min(losses))


@wrong("10.best_average", "you compare with the best of all pages")
def best_page_of_all(pages, decays, loss):
    losses, _ = with_lerp(pages, decays, loss)
    return losses, None if min(map(loss, pages)) <= min(losses) else decays[losses.index(min(losses))]


@wrong("10.best_average", "at [0]: at [0]: 0.0625 in place of 1")
def first_two_counted_the_same(pages, decays, loss):
    return with_lerp([pages[0], *pages], decays, loss)


@wrong("10.best_average", "Each begins anew, with the first page")
def goes_on_with_the_last_average(pages, decays, loss):
    losses, kept = [], pages[0].clone()
    for decay in decays:
        for t, page in enumerate(pages[1:], start=1):
            kept = torch.lerp(page, kept, min(decay, (1 + t) / (10 + t)))
        losses.append(loss(kept))
    best = losses.index(min(losses))
    return losses, decays[best] if losses[best] < loss(pages[-1]) else None


@wrong("10.best_average", "at [0]: at [0]: 0")
def smallest_loss_on_the_way(pages, decays, loss):
    losses = []
    for decay in decays:
        kept = pages[0]
        seen = [loss(kept)]
        for t, page in enumerate(pages[1:], start=1):
            kept = torch.lerp(page, kept, min(decay, (1 + t) / (10 + t)))
            seen.append(loss(kept))
        losses.append(min(seen))
    best = losses.index(min(losses))
    return losses, decays[best] if losses[best] < loss(pages[-1]) else None


@wrong("10.best_average", "at [1]: 0.5 in place of None")
def last_wins_only_if_better(pages, decays, loss):
    losses, _ = with_lerp(pages, decays, loss)
    return losses, None if loss(pages[-1]) < min(losses) else decays[losses.index(min(losses))]


@right("10.mix")
def lerped(x, y, share, order):
    return torch.lerp(x[order], x, share), torch.lerp(y[order], y, share)


@right("10.mix")
def in_a_loop(x, y, share, order):
    both = []
    for whole in (x, y):
        both.append(torch.stack([share * whole[i] + (1 - share) * whole[j] for i, j in enumerate(order.tolist())]))
    return tuple(both)


@wrong("10.mix", "the first at [0, 0]: 1 in place of 0.75")
def targets_joined(x, y, share, order):
    return share * x + (1 - share) * x[order], (y + y[order]).clamp(max=1)


@wrong("10.mix", "the first at [0, 0]: 0.625 in place of 0.75")
def targets_twice(x, y, share, order):
    mixed, soft = lerped(x, y, share, order)
    return mixed, share * soft + (1 - share) * soft[order]


@wrong("10.mix", "Now nothing is mixed")
def images_no_longer_mixed(x, y, share, order):
    return x, y


@wrong("10.mix", "the shape is (2,) and should be (2, 2)")
def class_numbers(x, y, share, order):
    mixed, soft = lerped(x, y, share, order)
    return mixed, soft.argmax(1)


@wrong("10.mix", "changes one of its arguments")
def targets_in_place(x, y, share, order):
    partner = y[order]
    y *= share
    y += (1 - share) * partner
    return share * x + (1 - share) * x[order], y


@wrong("10.mix", "`share` has become the partner's")
def both_of_the_partner(x, y, share, order):
    return share * x[order] + (1 - share) * x, share * y[order] + (1 - share) * y


@right("10.smooth")
def entropy_of_a_distribution(y, num_classes, amount):
    targets = torch.eye(num_classes)[y].mul(1 - amount).add(amount / num_classes)
    return targets, torch.distributions.Categorical(probs=targets).entropy().mean()


@wrong("10.smooth", "You share `amount` among the *other* classes. That is")
def shared_by_the_others(y, num_classes, amount):
    targets = torch.full((len(y), num_classes), amount / (num_classes - 1))
    targets[range(len(y)), y] = 1 - amount
    return targets, torch.special.entr(targets).sum(1).mean().item()


@right("10.paste")
def coordinates_by_list(x, y, order, top, left, bottom, right):
    rows = [r for r in range(x.shape[2]) if top <= r < bottom]
    columns = [c for c in range(x.shape[3]) if left <= c < right]
    out = x.clone()
    for r in rows:
        out[:, :, r, columns] = x[order][:, :, r, columns]
    part = len(rows) * len(columns) / (x.shape[2] * x.shape[3])
    return out, y * (1 - part) + y[order] * part


@wrong("10.paste", "The images are right. But your share is that of the whole")
def share_before_cutting(x, y, order, top, left, bottom, right):
    images, _ = coordinates_by_list(x, y, order, top, left, bottom, right)
    part = (bottom - top) * (right - left) / (x.shape[2] * x.shape[3])
    return images, y * (1 - part) + y[order] * part


@right("10.answer_from_views")
def weighed_mean(model, x, axes):
    answers = [torch.exp(model(x).log_softmax(dim=1))]
    for a in axes:
        answers.append(F.softmax(model(torch.flip(x, dims=a)), dim=1))
    return (sum(answers) / len(answers)).detach().numpy()


@wrong("10.answer_from_views", "You average the logits and take the softmax of their mean.")
def softmax_of_the_mean(model, x, axes):
    views = [x] + [x.flip(a) for a in axes]
    return sum(model(v) for v in views).div(len(views)).softmax(1)


@wrong("10.distil", "in place of 178.318")
def kl_of_distributions(student, teacher, y, temperature, weight):
    t = torch.distributions.Categorical(logits=teacher.detach() / temperature)
    s = torch.distributions.Categorical(logits=student / temperature)
    soft = torch.distributions.kl_divergence(t, s).mean()
    return (1 - weight) * F.cross_entropy(student, y) + weight * temperature**2 * soft


@wrong("10.distil", "The square of the temperature is missing: at a temperature")
def square_left_out(student, teacher, y, temperature, weight):
    soft = F.kl_div(F.log_softmax(student / temperature, 1), F.softmax(teacher.detach() / temperature, 1),
                    reduction="batchmean")
    return (1 - weight) * F.cross_entropy(student, y) + weight * soft


@right("10.best_average")
def in_double(pages, decays, loss):
    losses = []
    for decay in decays:
        kept = pages[0].double()
        for t in range(1, len(pages)):
            d = min(decay, (1 + t) / (10 + t))
            kept = kept * d + pages[t].double() * (1 - d)
        losses.append(float(loss(kept)))
    best = min(losses)
    return losses, None if loss(pages[-1]) <= best else decays[losses.index(best)]


@wrong("10.best_average", "You count from 0: when the second page comes, the average")
def t_from_zero(pages, decays, loss):
    losses = []
    for decay in decays:
        kept = pages[0].clone()
        for t, page in enumerate(pages[1:]):
            d = min(decay, (1 + t) / (10 + t))
            kept = d * kept + (1 - d) * page
        losses.append(loss(kept))
    return losses, decays[int(np.argmin(losses))] if min(losses) < loss(pages[-1]) else None


@wrong("10.best_average", "Your decay is the same from the start, so the first")
def fixed_decay(pages, decays, loss):
    losses = []
    for decay in decays:
        kept = pages[0]
        for page in pages[1:]:
            kept = decay * kept + (1 - decay) * page
        losses.append(loss(kept))
    return losses, decays[int(np.argmin(losses))] if min(losses) < loss(pages[-1]) else None


@right("10.mix")
def with_views(x, y, share, order):
    keep = torch.full((len(x),), share)
    mixed = keep.view(-1, 1, 1, 1) * x + (1 - keep).view(-1, 1, 1, 1) * x.index_select(0, order)
    return [mixed, keep[:, None] * y + (1 - keep)[:, None] * y.index_select(0, order)]


@wrong("10.mix", "Your targets are half and half, whatever the share. Use")
def half_of_each(x, y, share, order):
    return share * x + (1 - share) * x[order], (y + y[order]) / 2


@right("10.distil")
def cross_entropies_and_entropy(student, teacher, y, temperature, weight):
    wanted = (teacher.detach() / temperature).softmax(dim=1)
    entropy = torch.special.entr(wanted).sum(dim=1).mean()
    soft = F.cross_entropy(student / temperature, wanted) - entropy
    return weight * temperature**2 * soft + (1 - weight) * F.cross_entropy(student, y)
