"""scikit-learn, as many begin: features of a pretrained network, computed once, and logistic regression on them."""

from pathlib import Path

from common import Clock, Job


def features_of(folder: Path, backbone: str, size: int, stored: int):
    """Features of all images of folder/CLASS/IMAGE, (N, channels), and their classes, (N,)."""
    import numpy as np
    import torch
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    from course_lib.models import create_backbone

    body = create_backbone(backbone).eval()
    prepare = transforms.Compose([transforms.Resize(stored), transforms.CenterCrop(size), transforms.ToTensor(),
                                  transforms.Normalize(body.mean, body.std)])
    images = ImageFolder(folder, prepare)
    with torch.inference_mode():
        found = [body(x).mean((2, 3)).numpy() for x, _ in torch.utils.data.DataLoader(images, batch_size=32)]
    return np.concatenate(found), np.array(images.targets)


def tune(job: Job) -> dict:
    """From image files to the error on the validation images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with Clock() as clock:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(*features_of(job.train, job.backbone, job.size, job.stored))
        error = 1 - model.score(*features_of(job.valid, job.backbone, job.size, job.stored))
    return {"seconds": clock.seconds, "error": float(error)}
