"""The model that comes with the package, from raw downloads to the finished preset."""
