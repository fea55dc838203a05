"""Training files of conversations: their layouts, and the forms of their rows."""
