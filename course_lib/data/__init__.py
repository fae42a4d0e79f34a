"""From a folder of pictures to batches that a network can learn from."""

from .prepare import (
    CACHE_VERSION, DATASETS, ELPV_CLASSES, IMAGE_SUFFIXES, KNOWN_BY, NUM_DRAWS, PETS_PATTERN, SPLIT_FOLDERS,
    UNREADABLE, Augmentation, BadImageError, BatchTransform, DatasetInfo, ImageItems, ImageLoader, Loaders,
    PresizedImages, StorageError, announce_items, content_digests, crop_matrix, dataset_info,
    default_augmentation, download_dataset, draw_lighting, draw_matrices, flip_matrix, get_items,
    image_size_statistics, image_sizes, items_from_folders, items_from_pattern, items_from_table, limit_items,
    list_images, load_image, make_loaders, map_ahead, plot_class_counts, presize, resize_images, rotation_matrix,
    scale_and_shift, show_batch, show_images, shuffled_order, split_items, take_shard, warp_grid, warp_images,
    warp_matrix, zoom_matrix,
)

__all__ = [
    "CACHE_VERSION", "DATASETS", "ELPV_CLASSES", "IMAGE_SUFFIXES", "KNOWN_BY", "NUM_DRAWS", "PETS_PATTERN",
    "SPLIT_FOLDERS", "UNREADABLE", "Augmentation", "BadImageError", "BatchTransform", "DatasetInfo", "ImageItems",
    "ImageLoader", "Loaders", "PresizedImages", "StorageError", "announce_items", "content_digests", "crop_matrix",
    "dataset_info", "default_augmentation", "download_dataset", "draw_lighting", "draw_matrices", "flip_matrix",
    "get_items", "image_size_statistics", "image_sizes", "items_from_folders", "items_from_pattern",
    "items_from_table", "limit_items", "list_images", "load_image", "make_loaders", "map_ahead",
    "plot_class_counts", "presize", "resize_images", "rotation_matrix", "scale_and_shift", "show_batch",
    "show_images", "shuffled_order", "split_items", "take_shard", "warp_grid", "warp_images", "warp_matrix",
    "zoom_matrix",
]
