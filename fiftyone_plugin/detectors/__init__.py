"""Detectors: text prompt to boxes.

`prompt` reads what the user typed, `prompted` turns a backend's raw answers into detections, and `tokens` knows which
tokens belong to which phrase. Every other module is one backend.
"""
