"""Training within memory: what a step keeps, the batch that fits, gradients added up, blocks computed twice."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from course_lib.backbones import create_vgg
from course_lib.learner import Callback, Learner
from course_lib.learner.memory import (
    GradientAccumulation,
    activation_bytes,
    checkpoint_blocks,
    find_batch_size,
    largest_batch_size,
    largest_block_bytes,
)
from course_lib.models import create_classifier
from course_lib.transfer import freeze

SMALL = (8, 8, "pool", 12, "pool")


def images(count: int = 4, size: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- what a step keeps


def kept_for_real(network: nn.Module, x: torch.Tensor) -> int:
    """What a step keeps, asked of tensors with values."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network.train()(x)
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    total = sum(storage.nbytes() for place, storage in kept.items() if place not in own)
    assert output.requires_grad
    return total


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0"])
def test_activation_memory_is_what_a_real_step_keeps(name):
    network = create_classifier(name, 3, pretrained=False, dropout=0.5)
    assert activation_bytes(network, 64, 3) == kept_for_real(network, images(3, 64))
    whole = activation_bytes(network, 64, 3)
    freeze(network)
    assert activation_bytes(network, 64, 3) < 0.01 * whole == 0.01 * activation_bytes(
        create_classifier(name, 3, pretrained=False, dropout=0.5), 64, 3)


class TooMuch(nn.Module):
    """Runs out of memory above a batch size, as a CPU says it."""

    def __init__(self, limit: int):
        super().__init__()
        self.limit, self.layer = limit, nn.Linear(3, 2)

    def forward(self, x):
        if len(x) > self.limit and x.device.type != "meta":
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 b")
        return self.layer(x.mean((2, 3)))


# ---------------------------------------------------------------- when it does not fit


@pytest.mark.slow
@given(limit=st.integers(1, 300), largest=st.integers(1, 300))
@settings(deadline=None, max_examples=20)  # each failed step collects garbage, which takes a while
def test_the_largest_batch_that_fits_is_found(limit, largest):
    tried = []

    def step(batch_size):
        tried.append(batch_size)
        if batch_size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")

    found = largest_batch_size(step, largest)
    assert found == tried[-1] <= limit and tried[0] == largest
    assert all(size > limit for size in tried[:-1]) and all(a // 2 == b for a, b in zip(tried, tried[1:], strict=False))


@pytest.mark.slow
def test_other_errors_come_through_and_one_image_too_many_is_told():
    def broken(batch_size):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        largest_batch_size(broken)
    with pytest.raises(RuntimeError, match="Not even one image"):
        largest_batch_size(lambda size: exec("raise MemoryError"))
    with pytest.raises(ValueError, match="largest = 0"):
        largest_batch_size(broken, 0)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 5, 64])
def test_a_learner_that_ran_out_of_memory_is_as_before(limit):
    learner = Learner(TooMuch(limit), [(images(3), torch.tensor([0, 1, 0]))], progress=False)
    before = copy.deepcopy(learner.model.state_dict())
    loader, callbacks = learner.train_loader, list(learner.callbacks)
    assert find_batch_size(learner, 32) == min(32, 1 << (limit.bit_length() - 1))
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())
    assert learner.train_loader is loader and learner.callbacks == callbacks and learner.step == 0
    if limit >= 3:
        learner.fit(1)  # and it can train
    assert find_batch_size(learner, 2, memory=1e12) in (1, 2)


@pytest.mark.slow
def test_on_a_cpu_memory_is_counted_before_it_is_used():
    network = create_vgg(3, SMALL, head="pooled")
    learner = Learner(network, [(images(2), torch.tensor([0, 1]))], progress=False)
    weights = 3 * sum(parameter.nbytes for parameter in network.parameters())
    assert find_batch_size(learner, 64, memory=weights + activation_bytes(network, 16, 16)) == 16
    with pytest.raises(RuntimeError, match="Not even one image"):
        find_batch_size(learner, 64, memory=1000)


class Clip(Callback):
    """Notes the length of the gradient that a step would use, and shortens it."""

    def __init__(self):
        self.lengths = []

    def after_backward(self, learner):
        self.lengths.append(float(nn.utils.clip_grad_norm_(learner.model.parameters(), 0.05)))


def trained(batches, callbacks=(), epochs=2):
    torch.manual_seed(0)
    network = create_vgg(3, (8, "pool", 8), head="pooled", dropout=0.0)
    learner = Learner(network, batches, progress=False, callbacks=callbacks)
    learner.fit(epochs, 1e-2)
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_accumulated_steps_are_the_steps_of_the_whole_batch():
    x, y = images(24), torch.arange(24) % 3
    whole = [(x[:12], y[:12]), (x[12:], y[12:])]
    parts = list(zip(x.split(4), y.split(4), strict=True))
    clips = Clip(), Clip()
    expected = trained(whole, [clips[0]])
    torch.testing.assert_close(trained(parts, [GradientAccumulation(3), clips[1]]), expected, rtol=1e-3, atol=1e-5)
    assert len(clips[0].lengths) == len(clips[1].lengths) == 4  # clipped once a step, on the mean
    torch.testing.assert_close(clips[0].lengths, clips[1].lengths, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(trained(parts, [Clip()]), expected, rtol=1e-3, atol=1e-4)
    once = trained([(x, y)], epochs=1)
    torch.testing.assert_close(trained(parts, [GradientAccumulation(6)], epochs=1), once, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(trained(parts, [GradientAccumulation(100)], epochs=1), once, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="batches = 0"):
        GradientAccumulation(0)


def test_accumulation_of_a_stream_counts_on_over_its_end():
    class Stream:
        def __iter__(self):
            return iter([(images(4, seed=i), torch.tensor([0, 1, 2, 0])) for i in range(3)])

    class Steps(Callback):
        """Notes after which batches the weights have moved."""

        def after_step(self, learner):
            steps.append(learner.step)

    steps = []
    callbacks = [GradientAccumulation(2), Steps()]
    learner = Learner(create_vgg(3, SMALL, head="pooled"), Stream(), progress=False, callbacks=callbacks)
    learner.fit(2, 1e-3)
    assert steps == [1, 3, 5]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
def test_computing_twice_changes_nothing_but_memory(name):
    torch.manual_seed(0)
    plain = create_classifier(name, 3, pretrained=False, dropout=0.5)
    saving = copy.deepcopy(plain)
    assert checkpoint_blocks(saving) > 3 and list(saving.state_dict()) == list(plain.state_dict())
    for network in (plain, saving):
        torch.manual_seed(5)
        for _ in range(2):
            F.cross_entropy(network.train()(images(4, 64)), torch.tensor([0, 1, 2, 0])).backward()
    for (name, p), q in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        torch.testing.assert_close(p.grad, q[1].grad, msg=name)
    for (name, p), q in zip(plain.named_buffers(), saving.named_buffers(), strict=True):
        torch.testing.assert_close(p, q[1], msg=name)
    assert saving.body.network.state_dict()[[n for n in saving.body.network.state_dict() if "tracked" in n][0]] == 2
    torch.testing.assert_close(plain.eval()(images(2, 64)), saving.eval()(images(2, 64)))
    assert kept_for_real(saving, images(4, 64)) < 0.6 * kept_for_real(plain, images(4, 64))
    checkpoint_blocks(saving, on=False)
    assert not any("forward" in vars(module) for module in saving.modules())


def test_computing_twice_in_half_precision_and_with_a_frozen_part():
    torch.manual_seed(0)
    plain = create_classifier("resnet18", 3, pretrained=False, dropout=0.0)
    for block in list(plain.body.network.children())[:6]:
        block.requires_grad_(False)
    saving = copy.deepcopy(plain)
    checkpoint_blocks(saving)
    for network in (plain, saving):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(network.train()(images(4, 64)), torch.tensor([0, 1, 2, 0]))
        loss.backward()
    for p, q in zip(plain.parameters(), saving.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad)


def test_single_layers_have_nothing_to_save():
    with pytest.raises(ValueError, match="single layers"):
        checkpoint_blocks(create_vgg(3, SMALL, head="pooled"))


# ---- What a reader of the lesson tried

@pytest.mark.slow
def test_checkpointed_blocks_are_counted_with_the_one_that_is_computed_again():
    """Kept, and on top the inside of the largest block: together less than all, and most of it that block."""
    model = create_classifier("efficientnet_lite0", 3, pretrained=False)
    plain = activation_bytes(model, 64, 4)
    shape = (4, 3, 64, 64)
    assert largest_block_bytes(model, shape) == 0
    checkpoint_blocks(model)
    kept, more = activation_bytes(model, 64, 4), largest_block_bytes(model, shape)
    assert kept < kept + more < 0.5 * plain and more > 2 * kept
    assert activation_bytes(model, 64, 4) == kept  # the blocks are as they were
    assert checkpoint_blocks(model, on=False) and activation_bytes(model, 64, 4) == plain


@pytest.mark.slow
def test_the_search_for_a_batch_size_moves_no_generator_and_counts_the_area():
    x, y = torch.randn(12, 3, 64, 16), torch.arange(12) % 3
    generator = torch.Generator().manual_seed(3)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 4, shuffle=True, generator=generator)
    learner = Learner(create_vgg(3, (8, "pool", 8), head="pooled"), loader, progress=False)
    before = generator.get_state()
    needed = activation_bytes(learner.model, 32, 8) + 3 * sum(p.nbytes for p in learner.model.parameters())
    assert find_batch_size(learner, 64, memory=needed) == 8  # 64 x 16 is as much as 32 x 32
    assert torch.equal(generator.get_state(), before)
    learner.train_loader = [(torch.randn(4, 1, 16, 16), torch.arange(4) % 3)]
    with pytest.raises(ValueError, match=r"colour images .* gives \(4, 1, 16, 16\)"):
        find_batch_size(learner)
