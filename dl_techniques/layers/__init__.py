"""Building blocks: one block a file, written in `keras.ops`, knowing nothing of the models."""
