"""One number decides whether a training works at all: find it with a short sweep, and check it with real trainings."""

from .explorer import LRRun, explore_lrs, plot_lr_run, try_lrs
from .finder import (
    LRSweep, has_diverged, longest_fall, lr_find, plot_lr_sweep, slide_window, suggest_lrs, suggest_minimum,
    suggest_slide, suggest_steep, suggest_valley, sweep_lrs,
)

__all__ = [
    "LRSweep", "lr_find", "plot_lr_sweep", "suggest_lrs", "suggest_minimum", "suggest_slide", "suggest_steep",
    "suggest_valley", "explore_lrs", "try_lrs",
]
