"""Tricks: most turn a batch into another with soft targets; a teacher, AdaBound and averages do something else."""

# What is not in `__all__` below is for other rooms, lessons, and those who write a trick of their own.
from .adabound import AdaBound, rate_bounds
from .averaging import FlipTTA, WeightAverage
from .base import BatchTrick
from .batch import (
    BatchTricks, CutMix, Cutout, LabelSmoothing, Mixup, OneOf, Ricap, distillation_loss, soft_targets,
)
from .distill import Distillation
from .named import BATCH_TRICKS, OTHER_TRICKS, create_trick, parse_trick_names
from .playground import explore_tricks, plot_tricks
from .policies import AugmentPolicy
from .resizing import ProgressiveResizing

__all__ = [
    "AdaBound", "AugmentPolicy", "BatchTricks", "CutMix", "Cutout", "Distillation", "FlipTTA", "LabelSmoothing",
    "Mixup", "OneOf", "ProgressiveResizing", "Ricap", "WeightAverage", "distillation_loss", "soft_targets",
]
