"""What a trained network gets wrong, what that costs, where it looked, and whether its probabilities can be trusted."""

from .measures import (
    best_threshold, conformal_threshold, confusion_matrix, fit_temperature, grad_cam, most_confused, top_losses,
)
from .answers import Interpretation, class_errors, interpret
from .plots import (
    plot_class_errors, plot_confusion_matrix, plot_reliability, show_grad_cam, show_most_confused, show_top_losses,
)

__all__ = [
    "best_threshold", "class_errors", "conformal_threshold", "confusion_matrix", "fit_temperature", "grad_cam",
    "most_confused", "top_losses", "Interpretation", "interpret", "plot_class_errors", "plot_confusion_matrix",
    "plot_reliability", "show_grad_cam", "show_most_confused", "show_top_losses",
]
