"""Experiments with error bars: compared over seeds, run and kept as rows, shown, and searched."""

from .compare import compare, grid, mean_and_std, summarize
from .trials import Experiment, read_trials, run_experiment
from .show import experiment_table, plot_curves, plot_experiment
from .search import choice, plot_history, plot_importances, search, uniform

__all__ = [
    "compare", "grid", "mean_and_std", "summarize", "Experiment", "read_trials", "run_experiment",
    "experiment_table", "plot_curves", "plot_experiment", "choice", "plot_history", "plot_importances", "search",
    "uniform",
]
