"""Other people's weights: names, shapes and transforms between their files and our models."""
