"""Files of other runtimes, run without Keras."""
