"""An intelligent, plugin-based edge proxy in front of GitHub Pages."""

__version__ = "0.1.0"
