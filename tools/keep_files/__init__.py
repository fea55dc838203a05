"""Files of every registered class and kind, kept for good: later versions must load them.

`KERAS_BACKEND=torch python -m tools.keep_files --commit SHA` writes the files of one backend.
A file that is there is never written anew: it stands for the version that wrote it.
"""
