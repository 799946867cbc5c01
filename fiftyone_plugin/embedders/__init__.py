"""Embedders: one backend per file, and the cutting of clean crops, which is written once for all of them."""
