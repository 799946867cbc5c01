"""How the bundled models were made: atlas, training and evaluation, each to be run with ``python -m``."""
