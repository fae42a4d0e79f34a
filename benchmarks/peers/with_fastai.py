"""fastai, as its own course teaches it: DataBlock, vision Learner, `lr_find`, `fine_tune`."""

import common
from common import Clock, Job

IMPORT = "from fastai.vision.all import *"


def loaders_of(job: Job, body=None):
    from fastai.vision.all import (
        CategoryBlock,
        DataBlock,
        GrandparentSplitter,
        ImageBlock,
        Normalize,
        Resize,
        aug_transforms,
        get_image_files,
        parent_label,
    )

    transforms = [*aug_transforms(size=job.size, min_scale=0.75),
                  Normalize.from_stats(body.mean if body else (0.5,) * 3, body.std if body else (0.5,) * 3)]
    block = DataBlock(blocks=(ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                      splitter=GrandparentSplitter("train", "valid"), item_tfms=Resize(job.stored),
                      batch_tfms=transforms)
    return block.dataloaders(job.folder, bs=job.batch, num_workers=job.workers)


def learner_of(job: Job):
    from fastai.vision.all import Learner, error_rate, set_seed

    set_seed(job.seed)
    model = common.network(len(list(job.train.iterdir())))
    return Learner(loaders_of(job, model.body), model, splitter=lambda model: model.parameter_groups(),
                   metrics=error_rate, path=job.cache)


def pipeline(job: Job) -> dict:
    def both():
        loaders = loaders_of(job)
        return loaders.train, loaders.valid

    return common.pipeline_rates(both, job)


def finder(job: Job) -> dict:
    learner = learner_of(job)
    if job.frozen:
        learner.freeze()
    with learner.no_bar(), Clock() as clock:
        learner.lr_find(num_it=job.iterations, stop_div=False, show_plot=False)
    return {"seconds": clock.seconds, "iterations": len(learner.recorder.lrs)}


def frozen(job: Job) -> dict:
    import time

    from fastai.vision.all import Callback

    class Timed(Callback):
        def before_fit(self): self.seconds = []
        def before_epoch(self): self.start = time.perf_counter()
        def after_epoch(self): self.seconds.append(time.perf_counter() - self.start)

    learner, timed = learner_of(job), Timed()
    learner.freeze()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(job.epochs, cbs=timed)
    first, *later = timed.seconds
    return {"first": first, "later": later}


def step(job: Job, layout: str = "contiguous_format", compiled: bool = False) -> dict:
    import time

    from fastai.vision.all import Callback, DataLoaders, Learner, error_rate, nn

    class Timed(Callback):
        def before_train(self): self.start = time.perf_counter()

        def after_train(self):
            common.wait()
            rates.append(job.batch * job.steps / (time.perf_counter() - self.start))

    rates: list[float] = []
    x, y = common.batch_in_memory(job, layout)
    model = common.network(job.classes, layout).to(common.device())
    if compiled:
        model.compile()
    learner = Learner(DataLoaders([(x, y)] * job.steps, [(x, y)]), model, nn.CrossEntropyLoss(), metrics=error_rate,
                      splitter=lambda model: model.parameter_groups(), cbs=Timed())
    with learner.no_bar(), learner.no_logging():
        learner.fit(1 + job.epochs, 1e-6)
    return {"rates": rates[1:]}


def step_channels_last(job: Job) -> dict:
    """The same in the layout that the course uses, which a fastai user has to ask for."""
    return step(job, "channels_last")


def step_best(job: Job) -> dict:
    """The same, and compiled; the time for that does not count."""
    return step(job, "channels_last", compiled=True)


def tune(job: Job) -> dict:
    """`fine_tune`, from image files to the error on the validation images."""
    with Clock() as clock:
        learner = learner_of(job)
        with learner.no_bar(), learner.no_logging():
            learner.fine_tune(job.epochs)
    return {"seconds": clock.seconds, "error": float(learner.recorder.values[-1][-1])}


def inference(job: Job) -> dict:
    from pathlib import Path

    learner = learner_of(job)
    files = common.images_in(Path(job.folder))
    learner.get_preds(dl=learner.dls.test_dl(files[:job.batch]))
    with learner.no_bar(), Clock() as clock:
        probabilities, _ = learner.get_preds(dl=learner.dls.test_dl(files))
    return {"rate": len(probabilities) / clock.seconds}
