"""Students' answers to the exercises of lesson 2."""

import copy
import math
from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import right, wrong


@right("02.conv_parameters")
def by_building(channels_in, channels_out, kernel_size, groups, bias):
    layer = nn.Conv2d(channels_in, channels_out, kernel_size, groups=groups, bias=bias)
    return sum(p.numel() for p in layer.parameters())


@right("02.conv_parameters")
def as_a_float(channels_in, channels_out, kernel_size, groups, bias):
    return channels_out * channels_in / groups * kernel_size * kernel_size + bias * channels_out


@wrong("02.conv_parameters", "9 in place of 288")
def both_divided(channels_in, channels_out, kernel_size, groups, bias):
    return (channels_out // groups) * (channels_in // groups) * kernel_size**2 + channels_out * bias


@wrong("02.conv_parameters", "48 in place of 24")
def times_two(channels_in, channels_out, kernel_size, groups, bias):
    return channels_out * (channels_in // groups) * kernel_size * 2 + channels_out * bias


@wrong("02.conv_parameters", "prints, but gives nothing back")
def printed_count(channels_in, channels_out, kernel_size, groups, bias):
    print(channels_out * (channels_in // groups) * kernel_size**2 + channels_out * bias)


@wrong("02.conv_parameters", "32 in place of 24")
def always_a_bias(channels_in, channels_out, kernel_size, groups, bias):
    return channels_out * (channels_in // groups) * kernel_size**2 + channels_out


@wrong("02.conv_parameters", "217 in place of 224")
def one_bias_in_all(channels_in, channels_out, kernel_size, groups, bias):
    return channels_out * (channels_in // groups) * kernel_size**2 + int(bias)


@wrong("02.conv_parameters", "294912 in place of 288")
def multiplied_by_groups(channels_in, channels_out, kernel_size, groups, bias):
    return channels_out * channels_in * kernel_size**2 * groups + channels_out * bias


@right("02.convolve")
def with_unfold(image, kernel, stride):
    rows, columns = kernel.shape
    windows = image.unfold(0, rows, stride).unfold(1, columns, stride)
    return torch.einsum("ijrc,rc->ij", windows, kernel)


@right("02.convolve")
def numpy_loops(image, kernel, stride):
    image, kernel = image.numpy(), kernel.numpy()
    rows, columns = kernel.shape
    return np.array([[np.sum(image[i:i + rows, j:j + columns] * kernel)
                      for j in range(0, image.shape[1] - columns + 1, stride)]
                     for i in range(0, image.shape[0] - rows + 1, stride)])


@right("02.convolve")
def four_loops(image, kernel, stride):
    rows, columns = kernel.shape
    height, width = 1 + (image.shape[0] - rows) // stride, 1 + (image.shape[1] - columns) // stride
    result = torch.empty(height, width, dtype=torch.float64)
    for i in range(height):
        for j in range(width):
            total = 0.0
            for r in range(rows):
                for c in range(columns):
                    total += float(image[i * stride + r][j * stride + c]) * float(kernel[r][c])
            result[i][j] = total
    return result


@wrong("02.convolve", "That is PyTorch's own convolution. Here you write one:")
def with_two_dimensions_more(image, kernel, stride):
    return F.conv2d(image[None, None], kernel[None, None], stride=stride)


@wrong("02.convolve", "of type list in place of Tensor")
def lists(image, kernel, stride):
    return with_unfold(image, kernel, stride).tolist()


@wrong("02.convolve", "4 of 4 numbers differ, the first at [0, 0]: 0.25 in place")
def mean_in_place_of_sum(image, kernel, stride):
    rows, columns = kernel.shape
    return torch.stack([torch.stack([(image[i:i + rows, j:j + columns] * kernel).mean()
                                     for j in range(0, image.shape[1] - columns + 1, stride)])
                        for i in range(0, image.shape[0] - rows + 1, stride)])


@wrong("02.convolve", "the shape is (1, 1) and should be (2, 2)")
def range_one_short(image, kernel, stride):
    rows, columns = kernel.shape
    return torch.tensor([[(image[i:i + rows, j:j + columns] * kernel).sum().item()
                          for j in range(0, image.shape[1] - columns, stride)]
                         for i in range(0, image.shape[0] - rows, stride)])


@wrong("02.convolve", "It raised RuntimeError in the line `return")
def square_kernels_only(image, kernel, stride):
    n = len(kernel)
    return torch.tensor([[(image[i:i + n, j:j + n] * kernel).sum().item()
                          for j in range(0, image.shape[1] - n + 1, stride)]
                         for i in range(0, image.shape[0] - n + 1, stride)])


@wrong("02.convolve", "changes one of its arguments")
def multiplies_in_place(image, kernel, stride):
    windows = image.unfold(0, kernel.shape[0], stride).unfold(1, kernel.shape[1], stride)
    result = torch.einsum("ijrc,rc->ij", windows, kernel)
    for i in range(result.shape[0]):
        for j in range(result.shape[1]):
            windows[i, j] *= kernel
    return result


@wrong("02.convolve", "the shape is (3, 3) and should be (2, 2)")
def padded(image, kernel, stride):
    rows, columns = kernel.shape
    return with_unfold(F.pad(image, (0, columns - 1, 0, rows - 1)), kernel, stride)


@wrong("02.convolve", "20 of 20 numbers differ, the first at [0, 0]: -2 in place")
def into_integers(image, kernel, stride):
    result = with_unfold(image, kernel, stride)
    whole = torch.zeros(result.shape, dtype=torch.int64)
    for i in range(len(whole)):
        for j in range(whole.shape[1]):
            whole[i, j] = result[i, j]
    return whole


class _Average(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


@right("02.make_head")
def with_own_layer(num_features, classes):
    linear = nn.Linear(num_features, len(classes))
    with torch.no_grad():
        linear.weight.normal_(0, 0.001)
        linear.bias.fill_(0)
    return nn.Sequential(OrderedDict(pool=_Average(), logits=linear))


@right("02.make_head")
def truncated(num_features, classes):
    head = nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(start_dim=1), nn.Dropout(0.2),
                         nn.Linear(num_features, len(classes), bias=True))
    nn.init.trunc_normal_(head[-1].weight, std=1e-3)
    nn.init.constant_(head[-1].bias, 0)
    return head


@wrong("02.make_head", "`nn.Flatten()` between them")
def not_flattened(num_features, classes):
    linear = nn.Linear(num_features, len(classes))
    nn.init.normal_(linear.weight, std=0.001)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), linear)


@wrong("02.make_head", "Your head starts with biases that are not zero, as")
def biases_left(num_features, classes):
    linear = nn.Linear(num_features, len(classes))
    nn.init.normal_(linear.weight, std=0.001)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


@wrong("02.make_head", "at 'biases at the start': 'none' in place of 'zero'")
def no_bias(num_features, classes):
    linear = nn.Linear(num_features, len(classes), bias=False)
    nn.init.normal_(linear.weight, std=0.001)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


@wrong("02.make_head", "The head starts with large weights")
def default_weights(num_features, classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(num_features, len(classes)))


@wrong("02.make_head", "Your weights start larger than the task asks for")
def variance_for_deviation(num_features, classes):
    linear = nn.Linear(num_features, len(classes))
    nn.init.normal_(linear.weight, std=0.001**0.5)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


@wrong("02.make_head", "at 'shapes': at [0]: at [1]: 1 in place of 2")
def two_classes_one_logit(num_features, classes):
    linear = nn.Linear(num_features, 1 if len(classes) == 2 else len(classes))
    nn.init.normal_(linear.weight, std=0.001)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


@wrong("02.make_head", "at 'scores with other weights': 12 of 12 numbers differ,")
def mean_over_the_batch(num_features, classes):
    class Pool(nn.Module):
        def forward(self, x):
            return x.mean((0, 2, 3)).expand(len(x), -1)
    linear = nn.Linear(num_features, len(classes))
    nn.init.normal_(linear.weight, std=0.001)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(Pool(), linear)


@wrong("02.make_head", "at 'first loss': 'far from that of guessing' in place of")
def summed(num_features, classes):
    class Pool(nn.Module):
        def forward(self, x):
            return x.sum((2, 3))
    linear = nn.Linear(num_features, len(classes))
    nn.init.normal_(linear.weight, std=0.001)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(Pool(), linear)


@wrong("02.make_head", "It raised TypeError in the line `return")
def len_of_nothing(num_features, classes):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(num_features, classes))


@right("02.loss_by_hand")
def log_of_the_sum(scores, right):
    top = max(scores)
    return top + math.log(sum(math.exp(score - top) for score in scores)) - scores[right]


@right("02.loss_by_hand")
def by_pytorch(scores, right):
    return F.cross_entropy(torch.tensor(scores)[None], torch.tensor([right])).item()


@wrong("02.loss_by_hand", "gives up at large scores")
def softmax_of_raw_scores(scores, right):
    total = sum(math.exp(score) for score in scores)
    return math.log(total) - scores[right]


@wrong("02.loss_by_hand", "The minus is missing")
def log_probability(scores, right):
    return torch.tensor(scores).log_softmax(0)[right].item()


@wrong("02.loss_by_hand", "base 10 or 2")
def log_ten(scores, right):
    return -math.log10(torch.tensor(scores).double().softmax(0)[right].item())


@wrong("02.loss_by_hand", "the class with the largest score")
def of_the_answer(scores, right):
    return -torch.tensor(scores).log_softmax(0).max().item()


@wrong("02.loss_by_hand", "You average over all classes")
def mean_of_all(scores, right):
    return -torch.tensor(scores).log_softmax(0).mean().item()


@right("02.what_moves")
def deep_copy(body, batches):
    before = copy.deepcopy(body).state_dict()
    body = body.train()
    for x in batches:
        body(x)
    return {name: torch.max(torch.abs(value - before[name])) for name, value in body.state_dict().items()}


@right("02.what_moves")
def on_a_copy(body, batches):
    """A careful student leaves the body as it is."""
    trial = copy.deepcopy(body)
    trial.train()
    for x in batches:
        trial(x)
    old = body.state_dict()
    return {name: float(np.abs(value.numpy() - old[name].numpy()).max()) for name, value in trial.state_dict().items()}


@right("02.what_moves")
def put_back(body, batches):
    before = {name: value.clone() for name, value in body.state_dict().items()}
    mode = body.training
    body.train()
    for x in batches:
        body(x)
    moved = {name: float((value - before[name]).abs().max()) for name, value in body.state_dict().items()}
    body.load_state_dict(before)
    body.train(mode)
    return moved


@wrong("02.what_moves", "Nothing seems to move, because you compare the tensors")
def shallow_copy(body, batches):
    before = dict(body.state_dict())
    body.train()
    for x in batches:
        body(x)
    return {name: (value - before[name]).abs().max().item() for name, value in body.state_dict().items()}


@wrong("02.what_moves", "at 'changes': at '1.running_mean': 0.18239 in place of")
def mean_change(body, batches):
    before = copy.deepcopy(body.state_dict())
    body.train()
    for x in batches:
        body(x)
    return {name: (value - before[name]).abs().float().mean().item() for name, value in body.state_dict().items()}


@wrong("02.what_moves", "at 'changes': '0.weight' is missing")
def buffers_only(body, batches):
    before = copy.deepcopy(body.state_dict())
    body.train()
    for x in batches:
        body(x)
    return {name: (value - before[name]).abs().max().item() for name, value in body.named_buffers()}


@wrong("02.what_moves", "at 'changes': '0.weight' is missing")
def only_what_moved(body, batches):
    before = copy.deepcopy(body.state_dict())
    body.train()
    for x in batches:
        body(x)
    moved = {name: (value - before[name]).abs().max().item() for name, value in body.state_dict().items()}
    return {name: change for name, change in moved.items() if change}


@wrong("02.what_moves", "at 'changes': at '0.weight': False in place of 0, of type")
def yes_or_no(body, batches):
    before = copy.deepcopy(body.state_dict())
    body.train()
    for x in batches:
        body(x)
    return {name: not torch.equal(value, before[name]) for name, value in body.state_dict().items()}


@wrong("02.what_moves", "at 'changes': at '1.running_mean': 0.101513 in place of")
def all_batches_as_one(body, batches):
    before = copy.deepcopy(body.state_dict())
    body.train()
    body(torch.cat(batches))
    return {name: (value - before[name]).abs().max().item() for name, value in body.state_dict().items()}


@right("02.start_epoch")
def only_the_head(model):
    model.body.requires_grad_(False).eval()
    model.head.train()


@right("02.start_epoch")
def norms_one_by_one(model):
    for p in model.body.parameters():
        p.requires_grad = False
    model.train()
    for layer in model.body.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.training = False
    return model


@wrong("02.start_epoch", "This still does what")
def eval_not_called(model):
    for parameter in model.body.parameters():
        parameter.requires_grad_(False)
    model.train()
    model.body.eval  # noqa: B018


@wrong("02.start_epoch", "running means")
def body_left_as_it_is(model):
    """Right after an evaluation only: a new model is in training mode."""
    model.body.requires_grad_(False)
    model.head.train()


@wrong("02.start_epoch", "This still does what the one you were given does")
def eval_first(model):
    for parameter in model.body.parameters():
        parameter.requires_grad_(False)
    model.body.eval()
    model.train()


@wrong("02.start_epoch", "This still does what the one you were given does")
def attribute_of_the_body_only(model):
    for parameter in model.body.parameters():
        parameter.requires_grad_(False)
    model.train()
    model.body.training = False


@wrong("02.start_epoch", "Nothing moves at all")
def grad_off_everywhere(model):
    model.train()
    model.body.eval()
    torch.set_grad_enabled(False)


@right("02.conv_parameters")
def summed_group_by_group(channels_in, channels_out, kernel_size, groups, bias):
    total = 0
    for _ in range(groups):
        total += (channels_in // groups) * (channels_out // groups) * kernel_size * kernel_size
    return total + (channels_out if bias else 0)


@right("02.make_head")
def averaged_by_two_means(num_features, classes):
    class Pool(nn.Module):
        def forward(self, maps):
            return maps.flatten(2).mean(-1)

    layer = nn.Linear(num_features, len(classes))
    layer.weight.data = 0.001 * torch.randn(len(classes), num_features)
    layer.bias.data.zero_()
    return nn.Sequential(Pool(), layer)


@wrong("02.make_head", "All your weights are the same number. Then all classes get")
def every_weight_a_thousandth(num_features, classes):
    layer = nn.Linear(num_features, len(classes))
    nn.init.constant_(layer.weight, 1e-3)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer)


@wrong("02.make_head", "Your weights start at zero exactly. The task asks for")
def zero_weights(num_features, classes):
    layer = nn.Linear(num_features, len(classes))
    for p in layer.parameters():
        nn.init.zeros_(p)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), layer)


@right("02.loss_by_hand")
def in_numpy(scores, right):
    shifted = np.array(scores) - np.max(scores)
    return float(np.log(np.exp(shifted).sum()) - shifted[right])


@wrong("02.loss_by_hand", " in place of ")
def logits_in_place_of_probability(scores, right):
    top = max(scores)
    return -(scores[right] - top)


@wrong("02.convolve", "That is PyTorch's own convolution. Here you write one:")
def pytorchs_own(image, kernel, stride):
    image, kernel = (some.unsqueeze(0).unsqueeze(0) for some in (image, kernel))
    return F.conv2d(image, kernel, stride=stride).squeeze(0).squeeze(0)


@right("02.start_epoch")
def training_then_body_off(model):
    model.train(True)
    for module in model.body.modules():
        module.training = False
    for name, p in model.named_parameters():
        p.requires_grad = not name.startswith("body")


@wrong("02.start_epoch", "Nothing in the body moves, but the head is in evaluation")
def everything_off(model):
    model.eval()
    for p in model.body.parameters():
        p.requires_grad_(False)


@wrong("02.start_epoch", "The running statistics stay, but the body's weights are")
def body_learns_again(model):
    for p in model.parameters():
        p.requires_grad_(True)
    model.train()
    model.body.eval()
