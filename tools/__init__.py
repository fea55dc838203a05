"""Programs for maintainers: train the shipped model, compare, refresh tables."""
