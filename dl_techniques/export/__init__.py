"""From a model to files that run elsewhere, each compared with Keras before it is kept."""
