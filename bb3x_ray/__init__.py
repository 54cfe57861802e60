"""bb3x-ray: chat models that keep learning from the people who talk to them."""

__version__ = "0.1.0"
