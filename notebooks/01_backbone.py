# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The backbone: build, train, look inside, fuse, save, load
#
# `FastVLM` is a vision network of convolutions with attention at the end. While it trains, a block
# has several branches; `reparameterize()` turns each into one convolution that computes the same.
#
# `DL_NOTEBOOK_DATA` names the pictures to train on: a folder, a zip or a tar with
# `train/CLASS/*.jpg` and `test/CLASS/*.jpg` (or `validation/`), such as CIFAR-10 as files or the
# clothing photos of `alexeygrigorev/clothing-dataset-small`. Without it, coloured shapes are drawn,
# which needs no download; their test pictures have only combinations of colour and shape that the
# training pictures lack. The backend is the one that `KERAS_BACKEND` names.

# %%
import os
import sys
import tempfile
import time
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path.cwd().parent if Path.cwd().name == "notebooks" else Path.cwd()))

from dl_techniques import FastVLM
from tools.notebook_data import labelled_pictures, shape_pictures

SMALL = os.environ.get("DL_NOTEBOOK_SMALL") == "1"  # the tests' setting: seconds, not minutes
DATA = os.environ.get("DL_NOTEBOOK_DATA")
SIZE, EPOCHS = (32, 1) if SMALL else (64, 6)
TRAIN, TEST = (48, 16) if SMALL else (1500, 300)  # of drawn shapes; of files: all there are

keras.utils.set_random_seed(0)
print(f"Keras {keras.__version__} on {keras.backend.backend()}")

# %% [markdown]
# ## The pictures

# %%
if DATA:
    train = labelled_pictures(Path(DATA), "train", SIZE, TRAIN if SMALL else None)
    test = labelled_pictures(Path(DATA), "test", SIZE, TEST if SMALL else None)
else:
    train, test = shape_pictures(TRAIN, "train", SIZE), shape_pictures(TEST, "test", SIZE)
names = train.names
print(f"{len(train.labels)} pictures to train on, {len(test.labels)} to test, {len(names)} classes")


def show(pictures, titles, columns=8):
    """Draws pictures in rows, each with a title."""
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(1.3 * columns, 1.6 * rows), dpi=60)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, title in zip(axes.flat, pictures, titles, strict=False):
        axis.imshow(picture)
        axis.set_title(title, fontsize=9)
    figure.tight_layout()
    plt.show()


some = np.random.default_rng(0).permutation(len(train.labels))[:16]
show(train.images[some], [names[i] for i in train.labels[some]])

# %% [markdown]
# ## Build
#
# Variants are data: `variants/*.yaml`. Any field of one can be replaced by an argument.

# %%
for name, config in FastVLM.MODEL_VARIANTS.items():
    print(f"{name:12s} dims {config.embed_dims}, depths {config.depths}")

# %%
fewer = {"depths": (1, 1, 1)} if SMALL else {}
model = FastVLM.from_variant(
    "nano", num_classes=len(names), input_shape=(SIZE, SIZE, 3), layer_scale_init=0.1, **fewer
)
print(f"{model.count_params():,} parameters, {model.feature_dim} features")
print(f"one place of the last map for {model.total_stride} x {model.total_stride} pixels")

# %% [markdown]
# ## Train
#
# The network takes pixels in [0, 1]. Each picture is also shown mirrored.

# %%
x_train = np.concatenate([train.images, train.images[:, :, ::-1]]).astype("float32") / 255
y_train = np.concatenate([train.labels, train.labels])
x_test, y_test = test.images.astype("float32") / 255, test.labels

BATCH = 16 if SMALL else 64
steps = EPOCHS * -(-len(x_train) // BATCH)
schedule = keras.optimizers.schedules.CosineDecay(
    0.0, steps, warmup_target=2e-3, warmup_steps=max(1, steps // 20)
)
model.compile(
    keras.optimizers.AdamW(schedule, weight_decay=0.05),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
start = time.perf_counter()
history = model.fit(
    x_train, y_train, BATCH, EPOCHS, validation_data=(x_test, y_test), verbose=0
).history
print(f"{time.perf_counter() - start:.0f} s for {EPOCHS} epochs of {len(x_train)} pictures")

# %%
figure, axis = plt.subplots(figsize=(6, 3), dpi=70)
for key, label in (("accuracy", "training"), ("val_accuracy", "test")):
    axis.plot(range(1, EPOCHS + 1), history[key], marker="o", label=label)
majority = np.bincount(y_test).max() / len(y_test)
axis.axhline(majority, color="grey", linestyle=":", label="always the commonest class")
axis.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1))
axis.legend()
plt.show()
print(f"test accuracy {history['val_accuracy'][-1]:.3f}, commonest class {majority:.3f}")

# %%
few = np.random.default_rng(1).permutation(len(y_test))[:16]
guesses = model.predict(x_test[few], verbose=0).argmax(-1)
right = guesses == y_test[few]
titles = [names[g] if ok else f"({names[g]})" for g, ok in zip(guesses, right, strict=True)]
show(test.images[few], titles)  # wrong ones in brackets

# %% [markdown]
# ## Taps: what the stages see
#
# `extract_features` gives the stem's map and each stage's: the very tensors of the forward pass.
# Here the four channels of each that differ most from place to place.

# %%
features = [keras.ops.convert_to_numpy(f) for f in model.extract_features(x_test[few[:1]])]
titles = ["stem", *(f"stage {i}" for i in range(1, len(features)))]
figure, axes = plt.subplots(len(features), 5, figsize=(7, 1.5 * len(features)), dpi=60)
for row, feature, title in zip(axes, features, titles, strict=True):
    row[0].imshow(test.images[few[0]])
    row[0].set_ylabel(f"{title}\n{feature.shape[1]}x{feature.shape[2]}x{feature.shape[3]}")
    strongest = np.argsort(-feature[0].std((0, 1)))[:4]
    for axis, channel in zip(row[1:], strongest, strict=True):
        axis.imshow(feature[0, :, :, channel])
    for axis in row:
        axis.set(xticks=[], yticks=[])
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Fuse
#
# `reparameterize()` makes one convolution of every block's branches; `fold=True` also folds the
# normalizations and scales that are left. Both are exact up to rounding, and
# `reset_reparameterization()` goes back, so that training can go on. "Change" is the largest
# difference of a logit, over the largest logit.


# %%
def milliseconds(network, pictures, repeats=2 if SMALL else 10):
    """The best time of one batch, in ms a picture."""
    network.predict_on_batch(pictures)  # the first call compiles
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        network.predict_on_batch(pictures)
        times.append(time.perf_counter() - begin)
    return 1000 * min(times) / len(pictures)


batch = x_test[:16]
before, logits = milliseconds(model, batch), model.predict_on_batch(batch)
rows = [("branches", before, model.count_params(), 0.0)]
for label, fold in (("fused", False), ("folded", True)):
    model.reparameterize(fold=fold)
    change = np.abs(model.predict_on_batch(batch) - logits).max() / np.abs(logits).max()
    rows.append((label, milliseconds(model, batch), model.count_params(), float(change)))
for label, duration, parameters, change in rows:
    print(f"{label:9s} {duration:6.2f} ms a picture, {parameters:,} weights, change {change:.0e}")

# %%
figure, axis = plt.subplots(figsize=(5, 1.8), dpi=70)
axis.barh([row[0] for row in rows][::-1], [row[1] for row in rows][::-1])
axis.set_xlabel(f"ms a picture, batch of {len(batch)}, this machine")
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Save and load
#
# A `.keras` file remembers its form: it loads fused, on any backend. The optimizer's state belongs
# to the branches, so the loaded network is not compiled.

# %%
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "nano.keras"
    model.save(file)
    loaded = keras.models.load_model(file, compile=False)
difference = np.abs(loaded.predict_on_batch(batch) - model.predict_on_batch(batch)).max()
print(f"loaded fused: {loaded.reparameterized}, largest difference {difference:.1e}")

# %% [markdown]
# Back to the branches, to train on. The weights of the training form were kept beside the fused
# ones, so nothing is lost.

# %%
model.reset_reparameterization()
back = np.abs(model.predict_on_batch(batch) - logits).max()
print(f"fused: {model.reparameterized}, largest difference to the start {back:.1e}")
