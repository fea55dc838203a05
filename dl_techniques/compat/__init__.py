"""The one place that touches private names of Keras, KerasHub, PyTorch, JAX and TensorFlow.

One accessor a name, one test each (`tests/compat`), which says what would break. `pyproject.toml`
bounds keras and keras-hub from above by the versions that these tests passed on.
"""
