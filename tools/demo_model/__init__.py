"""The recipe of the shipped demo model, from raw downloads to finished preset."""
