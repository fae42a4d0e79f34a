"""Which images to look at before training: copies, likely wrong labels, damaged and odd ones; and what is decided."""

from .check import Quality, check_images
from .review import review_images

__all__ = ["Quality", "check_images", "review_images"]
