"""A hands-on course on image classification."""

__version__ = "0.1.0"
