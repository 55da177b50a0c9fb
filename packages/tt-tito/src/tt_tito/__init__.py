"""TinyTorch's course tool: learn by writing the chapters, swap your code in, be graded."""

__version__ = "0.1.0"
