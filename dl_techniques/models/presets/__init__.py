"""Presets: folders that this package writes, and the readers of other people's."""
