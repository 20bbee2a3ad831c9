"""The version of the toolkit, alone: nothing below the package's face has to import that."""

__version__ = "1.0.0"
