"""Experiments with error bars: compared over seeds, run and kept as rows, shown, and searched."""

from .compare import compare, grid, seeds_needed, summarize
from .search import choice, plot_history, plot_importances, search, uniform
from .show import experiment_table, plot_curves, plot_experiment
from .trials import Experiment, read_trials, run_experiment

# For other rooms, lessons and benchmarks.
from .compare import Comparison, Summary, mean_and_std
from .trials import Pruned, complete_configs, run_trial, trial_key

__all__ = [
    "Experiment", "choice", "compare", "experiment_table", "grid", "plot_curves", "plot_experiment", "plot_history",
    "plot_importances", "read_trials", "run_experiment", "search", "seeds_needed", "summarize", "uniform",
]
