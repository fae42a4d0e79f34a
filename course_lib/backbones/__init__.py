"""Deeper networks: built from a table, weighed before they are trained, made light, and trained where memory is short."""

from ..learner.memory import (
    GradientAccumulation, activation_bytes, checkpoint_blocks, find_batch_size, largest_batch_size, largest_block_bytes,
)
from .design import VGG16_LAYERS, count_multiply_adds, create_vgg, data_parallel_seconds, pareto_front
from .lighter import int8_bytes, prune_width, quantize_int8
from .plots import Stage, plot_architecture, plot_pareto, stages
from .profile import FeatureMap, ModelProfile, feature_maps, measure_latency, peak_bytes, profile_model

__all__ = [
    "VGG16_LAYERS", "count_multiply_adds", "create_vgg", "data_parallel_seconds", "pareto_front", "prune_width",
    "quantize_int8", "plot_architecture", "plot_pareto", "feature_maps", "measure_latency", "profile_model",
    "GradientAccumulation", "checkpoint_blocks", "find_batch_size",
]
