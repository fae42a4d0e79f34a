"""From photographs to batches: labels, splits, presized squares on disk, augmentation, loaders.

The modules are loaded when one of their names is asked for, so that a download needs no PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.files import StorageError
    from ..core.plots import show_images
    from .archives import ArchiveError, unpack
    from .datasets import (
        DATASETS, DatasetInfo, dataset_info, default_augmentation, download_dataset, get_items, limit_items,
    )
    from .download import DownloadError
    from .items import ImageItems, plot_class_counts
    from .listing import list_images
    from .loaders import ImageLoader, Loaders, make_loaders, show_batch, shuffled_order, take_shard
    from .pixels import warp_grid, warp_images
    from .prepare import (
        NUM_DRAWS, Augmentation, BatchTransform, crop_matrix, draw_lighting, draw_matrices, flip_matrix,
        group_test_split, items_from_folders, items_from_pattern, rotation_matrix, split_items, warp_matrix,
        zoom_matrix,
    )
    from .presizing import (
        BadImageError, PresizedImages, content_digests, image_size_statistics, image_sizes, load_image, map_ahead,
        presize,
    )
    from .tables import items_from_table

_HOMES = {
    "course_lib.core.files": "StorageError",
    "course_lib.core.plots": "show_images",
    "course_lib.data.archives": "ArchiveError unpack",
    "course_lib.data.datasets": "DATASETS DatasetInfo dataset_info default_augmentation download_dataset get_items "
                                "limit_items",
    "course_lib.data.download": "DownloadError",
    "course_lib.data.items": "ImageItems plot_class_counts",
    "course_lib.data.listing": "list_images",
    "course_lib.data.loaders": "ImageLoader Loaders make_loaders show_batch shuffled_order take_shard",
    "course_lib.data.prepare": "NUM_DRAWS Augmentation BatchTransform crop_matrix draw_lighting draw_matrices "
                               "flip_matrix group_test_split items_from_folders items_from_pattern rotation_matrix "
                               "split_items warp_matrix zoom_matrix",
    "course_lib.data.pixels": "warp_grid warp_images",
    "course_lib.data.presizing": "BadImageError PresizedImages content_digests image_size_statistics image_sizes "
                                 "load_image map_ahead presize",
    "course_lib.data.tables": "items_from_table",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

# For students and lessons; the other names are for the rest of the library.
__all__ = [
    "ImageItems", "items_from_folders", "items_from_pattern", "items_from_table", "get_items", "DATASETS",
    "DownloadError", "split_items", "group_test_split", "limit_items", "plot_class_counts", "show_images",
    "load_image", "BadImageError", "presize", "StorageError", "Augmentation", "BatchTransform", "ImageLoader",
    "Loaders", "make_loaders", "show_batch",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME_OF)
