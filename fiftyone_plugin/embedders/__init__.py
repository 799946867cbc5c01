"""Embedders: one backend per file, and the cutting and judging of crops, which is written once for all of them."""
