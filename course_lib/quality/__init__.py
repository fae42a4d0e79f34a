"""Which images to look at before training: copies, likely wrong labels, damaged and odd ones; and what is decided."""

from .check import Quality, check_images
from .review import review_images
from .sorting import ImageGroups, group_images, label_images

__all__ = ["ImageGroups", "Quality", "check_images", "group_images", "label_images", "review_images"]
