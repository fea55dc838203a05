"""Models that read pictures and text."""
