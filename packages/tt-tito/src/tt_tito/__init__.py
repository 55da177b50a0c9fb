"""TinyTorch's course tool."""

from tt_tito import curriculum

__all__ = ["curriculum"]
__version__ = "0.1.0"
