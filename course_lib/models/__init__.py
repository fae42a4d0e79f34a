"""A classifier is a body that somebody trained and a head of your own: both, by name."""

from .classifier import Backbone, Classifier, count_parameters, create_backbone, create_classifier, create_head
from .sources import UnknownBackboneError, WeightsUnavailableError, list_backbones

# For the library's other rooms and for the lessons.
from .classifier import GlobalPool, body_blocks, split_body, summarize
from .sources import LITE_SIZES, lite_weights, load_in_order, output_shape, unreachable_reason, weights_source

__all__ = [
    "Backbone", "Classifier", "UnknownBackboneError", "WeightsUnavailableError", "count_parameters",
    "create_backbone", "create_classifier", "create_head", "list_backbones",
]
