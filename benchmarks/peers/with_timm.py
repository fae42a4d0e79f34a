"""timm: its loaders with worker processes, its optimiser factory, and the loop that its training script has."""

import common
from common import Clock, Job

IMPORT = "import timm"


def loader_of(job: Job, training: bool = True, body=None, folder=None):
    from timm.data import create_dataset, create_loader

    pixels = {"mean": body.mean, "std": body.std} if body else {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    root = folder or (job.train if training else job.valid)
    images = create_dataset("", root=str(root), split="", search_split=False)
    return create_loader(images, input_size=(3, job.size, job.size), batch_size=job.batch, is_training=training,
                         num_workers=job.workers, use_prefetcher=False, persistent_workers=True,
                         device=common.device(), **pixels)


def pipeline(job: Job) -> dict:
    """timm drops a last batch that is not full from training."""
    return common.pipeline_rates(lambda: (loader_of(job), loader_of(job, False)), job)


def optimizer_of(model, lr: float):
    from timm.optim import create_optimizer_v2

    return create_optimizer_v2(model, opt="adamw", lr=lr, weight_decay=0.01)


def make_step(model, optimizer):
    from timm.utils import AverageMeter
    from torch import nn

    loss_function, losses = nn.CrossEntropyLoss(), AverageMeter()

    def take_step(x, y) -> None:
        loss = loss_function(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.update(loss.item(), len(x))

    return take_step


def frozen(job: Job) -> dict:
    model = common.head_learns(job)
    loaders = loader_of(job, True, model.body), loader_of(job, False, model.body)
    return common.plain_epochs(model, make_step(model, optimizer_of(model, 1e-3)), *loaders, job)


def step(job: Job) -> dict:
    x, y = common.batch_in_memory(job)
    model = common.network(job.classes).to(common.device()).train()
    take_step = make_step(model, optimizer_of(model, 1e-6))
    return {"rates": common.step_rates(lambda: take_step(x, y), job)}


def inference(job: Job) -> dict:
    import torch

    model = common.network(job.classes).to(common.device()).eval()
    loader = loader_of(job, False, model.body, folder=job.folder)
    with torch.inference_mode(), Clock() as clock:
        count = sum(len(model(x.to(common.device())).argmax(1).tolist()) for x, _ in loader)
    return {"rate": count / clock.seconds}
