"""What ships with the package: tiny weights, the demo clip, the sprites behind both, and the training scripts."""
