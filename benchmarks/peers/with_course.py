"""This course's own library."""

from pathlib import Path

import common
from common import Clock, Job

IMPORT = ("import course_lib.data.loaders, course_lib.data.datasets, course_lib.models, course_lib.learner, "
          "course_lib.transfer, course_lib.lr_finder")


def loaders_of(job: Job, body):
    from course_lib.data import get_items, make_loaders, presize

    items = get_items(Path(job.folder), job.cache, announce=False)
    images = presize(items, job.stored, job.cache, progress=False)
    return make_loaders(images, image_size=job.size, batch_size=job.batch, mean=body.mean, std=body.std, seed=job.seed,
                        device=common.device())


def learner_of(job: Job):
    from course_lib.learner import Learner, error_rate
    from course_lib.settings import seed_everything

    seed_everything(job.seed)
    classifier = common.network(len(list(job.train.iterdir())), "channels_last").to(common.device())
    loaders = loaders_of(job, classifier.body)
    return Learner(classifier, loaders.train, loaders.valid, metrics=[error_rate], device=common.device(),
                   progress=False)


def pipeline(job: Job) -> dict:
    from types import SimpleNamespace

    from course_lib.core.device import disable_malloc_trim

    disable_malloc_trim()  # as a training does

    def both():
        loaders = loaders_of(job, SimpleNamespace(mean=(0.5,) * 3, std=(0.5,) * 3))
        return loaders.train, loaders.valid

    return common.pipeline_rates(both, job)


def finder(job: Job) -> dict:
    """All rates, also after the loss has diverged, as the others are told to."""
    import math
    from unittest.mock import patch

    from course_lib.lr_finder import finder
    from course_lib.transfer import freeze

    learner = learner_of(job)
    if job.frozen:
        freeze(learner)

    def sweep() -> int:
        with patch.object(finder, "DIVERGED", math.inf):
            return len(finder.lr_find(learner, iterations=job.iterations, echo=lambda text: None).lrs)

    with Clock() as clock:
        count = sweep()
    found = {"seconds": clock.seconds, "iterations": count}
    if job.frozen:
        with Clock() as again:
            sweep()
        found["again"] = again.seconds
    return found


def frozen(job: Job) -> dict:
    from course_lib.transfer import fit_one_cycle, freeze

    learner = learner_of(job)
    freeze(learner)
    with Clock() as clock:
        fit_one_cycle(learner, job.epochs)
    later = [row["seconds"] for row in learner.recorder.rows[1:]]
    return {"first": clock.seconds - sum(later), "later": later}


def step(job: Job, mixed_precision: str = "no") -> dict:
    from course_lib.learner import Learner, error_rate

    x, y = common.batch_in_memory(job, "channels_last")
    model = common.network(job.classes, "channels_last").to(common.device())
    learner = Learner(model, [(x, y)] * job.steps, metrics=[error_rate], device=common.device(), progress=False,
                      mixed_precision=mixed_precision)
    learner.fit(1 + job.epochs, 1e-6)
    rates = [job.batch * job.steps / row["seconds"] for row in learner.recorder.rows[1:]]
    return {"rates": rates}


def step_bf16(job: Job) -> dict:
    """The same in bf16, as `course train` chooses for a long training where it pays."""
    return step(job, "bf16")


def tune(job: Job) -> dict:
    """`course train`, from image files to the error on the validation images; it chooses its epochs itself if 0."""
    from course_lib.app.train import train_classifier
    from course_lib.settings import CourseSettings

    settings = CourseSettings(dataset=job.folder, data_dir=Path(job.cache), seed=job.seed, profile_name=job.profile)
    more = {"epochs": job.epochs or None, "few_per_class": job.few_per_class}
    with Clock() as clock:
        result = train_classifier(settings, output=Path(job.cache) / "run", echo=lambda text: None, **more)
    return {"seconds": clock.seconds, "error": result.metrics["validation_error"]}


def classifier_of(job: Job):
    from course_lib.app.predict import TrainedClassifier
    from course_lib.data import BatchTransform

    model = common.network(job.classes, "channels_last").to(common.device()).eval()
    body = model.body
    known = {"backbone": "efficientnet_lite0", "classes": list(map(str, range(job.classes))), "dataset": "a folder",
             "seed": 42, "epochs": 0, "presize": job.stored, "image_size": job.size}
    return TrainedClassifier(model, tuple(known["classes"]), job.stored, BatchTransform(job.size, body.mean, body.std),
                             known)


def inference(job: Job) -> dict:
    """Name the class of every image file of the folder."""
    from course_lib.app.predict import predict_images

    classifier = classifier_of(job)
    files = common.images_in(Path(job.folder))
    predict_images(classifier, files[:job.batch])
    with Clock() as clock:
        predicted = predict_images(classifier, files)
    return {"rate": len(predicted) / clock.seconds}


def inference_exported(job: Job) -> dict:
    """The same with what `course export` writes, one image after the other, as its model card shows."""
    import numpy as np
    import onnxruntime
    from PIL import Image

    from course_lib.app.export import export_model

    export_model(classifier_of(job), output=Path(job.cache) / "export")
    session = onnxruntime.InferenceSession(str(Path(job.cache) / "export" / "model.onnx"))
    [name] = [one.name for one in session.get_inputs()]
    files = common.images_in(Path(job.folder))

    def answer(path: Path) -> int:
        return int(session.run(None, {name: np.asarray(Image.open(path).convert("RGB"))})[0].argmax())

    answer(files[0])
    with Clock() as clock:
        answers = [answer(path) for path in files]
    return {"rate": len(answers) / clock.seconds}
