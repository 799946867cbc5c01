"""The procedural world: random scenes for training, scripted scenes with known identities, and scripted backends."""
