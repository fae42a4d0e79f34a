"""The training loop and what it takes to trust it with an evening."""

from .loop import (
    Averages, BatchSteps, Callback, CancelFit, Checkpoint, CheckpointError, EpochSteps, EvaluationSteps, FitSteps,
    Learner, NonFiniteLossError, Predictions, ProgressBar, Recorder, SkipStep, StopOnNonFiniteLoss, Watch,
    accuracy, check_batch, check_device, check_epochs, check_loader, check_lrs, check_scalar_loss,
    default_callbacks, empty_message, error_rate, join_predictions, load_checkpoint, load_weights, loader_length,
    loader_state, make_adamw, make_precision, named_metrics, plot_losses, preserved, resume_training,
    save_checkpoint, set_loader_state, smooth, split_batch, trainable_groups,
)

__all__ = [
    "Averages", "BatchSteps", "Callback", "CancelFit", "Checkpoint", "CheckpointError", "EpochSteps",
    "EvaluationSteps", "FitSteps", "Learner", "NonFiniteLossError", "Predictions", "ProgressBar", "Recorder",
    "SkipStep", "StopOnNonFiniteLoss", "Watch", "accuracy", "check_batch", "check_device", "check_epochs",
    "check_loader", "check_lrs", "check_scalar_loss", "default_callbacks", "empty_message", "error_rate",
    "join_predictions", "load_checkpoint", "load_weights", "loader_length", "loader_state", "make_adamw",
    "make_precision", "named_metrics", "plot_losses", "preserved", "resume_training", "save_checkpoint",
    "set_loader_state", "smooth", "split_batch", "trainable_groups",
]
