"""The training loop, and what lets it run unattended for hours."""

from ..core.modes import evaluation_mode
from .loop import Averages, Learner, accuracy, error_rate
from .checks import Predictions
from .callbacks import (
    Callback, CancelFit, NonFiniteLossError, ProgressBar, Recorder, SkipStep, StopOnNonFiniteLoss, Watch,
    plot_losses, smooth,
)
from .checkpoint import (
    Checkpoint, CheckpointError, load_checkpoint, load_weights, preserved, resume_training, save_checkpoint,
    save_weights,
)
from .strategy import Strategy, create_strategy, make_adamw

__all__ = [
    "Averages", "Learner", "accuracy", "error_rate", "Predictions", "Callback", "CancelFit", "NonFiniteLossError",
    "ProgressBar", "Recorder", "SkipStep", "StopOnNonFiniteLoss", "Watch", "plot_losses", "smooth", "Checkpoint",
    "CheckpointError", "load_checkpoint", "load_weights", "preserved", "resume_training", "save_checkpoint",
    "save_weights", "Strategy", "create_strategy", "make_adamw",
]
