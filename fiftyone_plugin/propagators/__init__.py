"""Propagators: each carries the masks of seeded objects from frame to frame. One backend per file."""
