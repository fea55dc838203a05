"""One module for each format: how a network is written, and how the file is run to check it."""
