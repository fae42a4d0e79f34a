"""Lightning's Trainer and Tuner. It has no images of its own, so the loaders are those of torchvision's recipe."""

import warnings

import common
import with_torchvision
from common import Clock, Job

IMPORT = "import lightning"


def module_of(model, lr: float):
    import torch
    from lightning import LightningModule
    from torch import nn

    class Classifying(LightningModule):
        def __init__(self):
            super().__init__()
            self.model, self.lr = model, lr

        def training_step(self, batch, index):
            x, y = batch
            loss = nn.functional.cross_entropy(self.model(x), y)
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch, index):
            x, y = batch
            self.log("error", (self.model(x).argmax(1) != y).float().mean())

        def predict_step(self, batch, index):
            return self.model(batch[0]).argmax(1)

        def configure_optimizers(self):
            return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=self.lr)

    return Classifying()


def trainer_of(job: Job, **options):
    import logging

    from lightning import Trainer

    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                   default_root_dir=job.cache or None, num_sanity_val_steps=0, **options)


def finder(job: Job) -> dict:
    from lightning.pytorch.tuner import Tuner

    model = common.network(len(list(job.train.iterdir())))
    if job.frozen:
        common.head_alone(model)
    train, _ = with_torchvision.loaders_of(job, model.body)
    with Clock() as clock:
        found = Tuner(trainer_of(job, max_epochs=100)).lr_find(
            module_of(model, 1e-3), train, min_lr=1e-7, max_lr=10, num_training=job.iterations,
            early_stop_threshold=None, update_attr=False)
    return {"seconds": clock.seconds, "iterations": len(found.results["lr"])}


def frozen(job: Job) -> dict:
    import time

    from lightning import Callback

    class Timed(Callback):
        seconds: list[float] = []

        def on_train_epoch_start(self, *_): self.start = time.perf_counter()
        def on_train_epoch_end(self, *_): self.seconds.append(time.perf_counter() - self.start)

    model, timed = common.head_learns(job), Timed()
    trainer_of(job, max_epochs=job.epochs, callbacks=[timed]).fit(
        module_of(model, 1e-3), *with_torchvision.loaders_of(job, model.body))
    return {"first": timed.seconds[0], "later": timed.seconds[1:]}


def step(job: Job, layout: str = "contiguous_format", compiled: bool = False) -> dict:
    import time

    from lightning import Callback
    from torch.utils.data import DataLoader

    class Timed(Callback):
        rates: list[float] = []

        def on_train_epoch_start(self, *_): self.start = time.perf_counter()

        def on_train_epoch_end(self, *_):
            common.wait()
            self.rates.append(job.batch * job.steps / (time.perf_counter() - self.start))

    timed, batch = Timed(), common.batch_in_memory(job, layout)
    model = common.network(job.classes, layout)
    if compiled:
        model.compile()
    trainer_of(job, max_epochs=1 + job.epochs, callbacks=[timed]).fit(
        module_of(model, 1e-6), DataLoader([batch] * job.steps, batch_size=None))
    return {"rates": timed.rates[1:]}


def step_best(job: Job) -> dict:
    """The same in the layout that the course uses, and compiled; the time for that does not count."""
    return step(job, "channels_last", compiled=True)


def inference(job: Job) -> dict:
    import torch

    model = common.network(job.classes)
    with Clock() as clock:
        answers = trainer_of(job).predict(module_of(model, 1e-3), with_torchvision.whole_folder(job, model.body))
    return {"rate": len(torch.cat(answers)) / clock.seconds}
