"""The version of the toolkit."""

__version__ = "1.0.0"
