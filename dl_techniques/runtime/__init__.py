"""Functions compiled, recorded and kept; variables without values; memory."""
