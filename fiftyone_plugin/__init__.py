"""Shepherd: text in, trusted tracks out."""

__version__ = "0.1.0"
