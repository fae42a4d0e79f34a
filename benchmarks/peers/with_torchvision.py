"""The recipe of torchvision's own training script for classification: ImageFolder, PIL, worker processes, SGD.

The script is not part of the package; its steps are written out here: random resized crop and flip, a loop that keeps
a smoothed loss and the accuracy, momentum 0.9 and weight decay 1e-4.
"""

from collections.abc import Callable

import common
from common import Clock, Job

IMPORT = "import torchvision"


def datasets_of(job: Job, mean=(0.5,) * 3, std=(0.5,) * 3):
    import torch
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    last = [transforms.PILToTensor(), transforms.ConvertImageDtype(torch.float32), transforms.Normalize(mean, std)]
    train = transforms.Compose([transforms.RandomResizedCrop(job.size), transforms.RandomHorizontalFlip(), *last])
    valid = transforms.Compose([transforms.Resize(job.stored), transforms.CenterCrop(job.size), *last])
    return ImageFolder(job.train, train), ImageFolder(job.valid, valid)


def loaders_of(job: Job, body=None):
    from torch.utils.data import DataLoader

    pixels = (body.mean, body.std) if body else ()
    train, valid = datasets_of(job, *pixels)
    options = {"batch_size": job.batch, "num_workers": job.workers}
    return DataLoader(train, shuffle=True, **options), DataLoader(valid, **options)


def whole_folder(job: Job, body):
    """Every image of the folder, prepared as for validation."""
    from torch.utils.data import ConcatDataset, DataLoader

    _, valid = datasets_of(job, body.mean, body.std)
    both = ConcatDataset([type(valid)(job.train, valid.transform), valid])
    return DataLoader(both, job.batch, num_workers=job.workers)


def pipeline(job: Job) -> dict:
    return common.pipeline_rates(lambda: loaders_of(job), job)


def make_step(model, optimizer) -> Callable:
    """One step of the training script, with its running numbers."""
    from torch import nn

    loss_function, losses, hits = nn.CrossEntropyLoss(), [], []

    def take_step(x, y) -> None:
        output = model(x)
        loss = loss_function(output, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        hits.append((output.argmax(1) == y).float().mean().item())
        losses.append(loss.item())

    return take_step


def sgd(model, lr: float):
    import torch

    learning = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(learning, lr=lr, momentum=0.9, weight_decay=1e-4)


def frozen(job: Job) -> dict:
    model = common.head_learns(job)
    return common.plain_epochs(model, make_step(model, sgd(model, 0.01)), *loaders_of(job, model.body), job)


def step(job: Job) -> dict:
    x, y = common.batch_in_memory(job)
    model = common.network(job.classes).to(common.device()).train()
    take_step = make_step(model, sgd(model, 1e-6))
    return {"rates": common.step_rates(lambda: take_step(x, y), job)}


def inference(job: Job) -> dict:
    import torch

    model = common.network(job.classes).to(common.device()).eval()
    with torch.inference_mode(), Clock() as clock:
        count = sum(len(model(x.to(common.device())).argmax(1).tolist()) for x, _ in whole_folder(job, model.body))
    return {"rate": count / clock.seconds}
