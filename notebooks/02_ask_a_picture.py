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
# # Ask a picture
#
# The model that comes with the package, on the pictures in `examples/`: descriptions, questions,
# text as it is written, several turns, and what it cannot do. It is small, and was made for six
# things: what a photograph is of, single emoji-style drawings, scenes composed of drawings and
# shapes, short printed words, easy-VQA's shapes, and photos of clothes. `examples/README.md` says
# of each picture whether the model has seen anything like it.
#
# `DL_NOTEBOOK_PRESET` names another model: a folder that `save_to_preset` wrote.

# %%
import os
import time
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras_hub.samplers import TopPSampler
from PIL import Image

from dl_techniques import Chat, FastVLMCausalLM

SMALL = os.environ.get("DL_NOTEBOOK_SMALL") == "1"  # the tests' setting: short answers
PRESET = os.environ.get("DL_NOTEBOOK_PRESET", "demo")
EXAMPLES = (Path.cwd().parent if Path.cwd().name == "notebooks" else Path.cwd()) / "examples"
MOST = 3 if SMALL else 24  # tokens of an answer

model = FastVLMCausalLM.from_preset(PRESET)
model.reparameterize(fold=True)  # the same answers, sooner
print(f"Keras {keras.__version__} on {keras.backend.backend()}")
print(f"{model.count_params():,} parameters, {model.context_length} tokens of context")


def show(names, texts, columns=4):
    """Draws pictures in rows, each with a text below."""
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.2 * columns, 3.3 * rows), dpi=55)
    for axis in np.ravel(axes):
        axis.axis("off")
    for axis, name, text in zip(np.ravel(axes), names, texts, strict=False):
        axis.imshow(Image.open(EXAMPLES / name).resize((256, 256)))
        axis.set_title(text, fontsize=11, y=-0.02, va="top", wrap=True, parse_math=False)
    figure.tight_layout()
    plt.show()


# %% [markdown]
# ## Describe
#
# One call, a batch of prompts: each has its own picture, and no answer depends on its neighbours.

# %%
known = ["scene.png", "shapes.png", "emoji.png", "word.png", "dress.jpg"]
question = "describe the picture."
answers = model.generate(
    {"prompts": [question] * len(known), "images": [EXAMPLES / name for name in known]},
    max_new_tokens=MOST,
)
show(known, answers, columns=3)

# %% [markdown]
# ## Ask

# %%
asked = [
    ("scene.png", "how many cats are there?"),
    ("scene.png", "what color is the circle?"),
    ("shapes.png", "how many objects are there?"),
    ("emoji.png", "what kind of thing is this?"),
    ("word.png", "what word is this?"),
    ("dress.jpg", "what clothing is this?"),
]
answers = model.generate(
    {"prompts": [q for _, q in asked], "images": [EXAMPLES / name for name, _ in asked]},
    max_new_tokens=MOST,
)
show(
    [name for name, _ in asked], [f"{q}\n{a}" for (_, q), a in zip(asked, answers, strict=True)], 3
)

# %% [markdown]
# ## As it is written
#
# `stream` yields pieces of text. The second run shows the times of a warm model; the first one
# compiles.


# %%
def timed_stream(inputs):
    """The pieces of one answer, and when each came, in seconds."""
    begin = time.perf_counter()
    pieces, times = [], []
    for piece in model.stream(inputs, max_new_tokens=MOST):
        pieces.append(piece)
        times.append(time.perf_counter() - begin)
    return pieces, times


inputs = {"prompts": "describe the picture.", "images": EXAMPLES / "scene.png"}
timed_stream(inputs)
pieces, times = timed_stream(inputs)
print(" | ".join(pieces))

# %%
figure, axis = plt.subplots(figsize=(7, 1.8), dpi=70)
axis.step(np.multiply(times, 1000), np.arange(1, len(times) + 1), where="post")
axis.set(xlabel="ms after the question", ylabel="pieces of text", xlim=(0, None), ylim=(0, None))
figure.tight_layout()
plt.show()

# %% [markdown]
# ## How sure is it?
#
# `generate` stands on three phases that can be called by themselves: `encode_images`, `prefill` and
# `decode_step`. After `prefill` the logits of the answer's first token are there.


# %%
def first_tokens(name, question, number=5):
    """The likeliest first tokens of an answer, and their probabilities."""
    batch = model.preprocessor.generate_preprocess({"prompts": question, "images": EXAMPLES / name})
    logits, _ = model.prefill(batch, model.encode_images(batch["images"]))
    chances = keras.ops.convert_to_numpy(keras.ops.softmax(logits))[0]
    best = np.argsort(-chances)[:number]
    return model.preprocessor.tokenizer.detokenize(best[:, None].tolist()), chances[best]


figure, axes = plt.subplots(1, 3, figsize=(10, 2.2), dpi=65)
for axis, (name, question) in zip(axes, [asked[0], asked[1], asked[5]], strict=True):
    tokens, chances = first_tokens(name, question)
    axis.barh([repr(token) for token in tokens][::-1], chances[::-1])
    axis.set_title(f"{name}: {question}", fontsize=9)
    axis.set_xlim(0, 1)
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Several turns
#
# A `Chat` keeps the picture's features and the cache of the earlier turns: the second question
# encodes neither again.

# %%
chat = Chat(model, max_new_tokens=MOST)
questions = ["what is in the picture?", "where is the camera?", "is there a dog?"]
for number, question in enumerate(questions):
    pieces = chat.ask(question, images=EXAMPLES / "scene.png" if number == 0 else None)
    print(f"you   {question}\nmodel {''.join(pieces)}")

# %% [markdown]
# ## Other ways of choosing
#
# Greedy choice is the default. With a sampler, and a seed, answers vary, and can be repeated.

# %%
for seed in range(3):
    sampler = TopPSampler(p=0.9, k=50, temperature=1.0)
    print(seed, model.generate(inputs, max_new_tokens=MOST, sampler=sampler, seed=seed))

# %% [markdown]
# ## Photographs
#
# Its second tower knows what a photograph is of, among some seven hundred everyday names, and how
# sure that is: from a probability of 0.7 on the answer is plain, from 0.4 on it "may be", and below
# the model says that it is not sure. `return_certainty=True` gives the number.

# %%
photographs = ["bear.jpg", "coffee.jpg", "traffic_light.jpg", "kitchen.jpg", "astronaut.jpg"]
answers = model.generate(
    {
        "prompts": ["describe the photo."] * len(photographs),
        "images": [EXAMPLES / name for name in photographs],
    },
    max_new_tokens=MOST,
    return_certainty=True,
)
show(photographs, [f"{answer.text}\n{answer.certainty:.2f}" for answer in answers], columns=3)

# %% [markdown]
# ## What it cannot do
#
# It does not reason, and was never shown a question without a picture, or one that no picture
# answers. Asked such things it says something all the same.

# %%
beyond = [
    ("word.png", "what is the capital of france?"),
    ("scene.png", "why are the cats yellow?"),
    ("shapes.png", "what is two plus three?"),
]
for name, question in beyond:
    answer = model.generate({"prompts": question, "images": EXAMPLES / name}, max_new_tokens=MOST)
    print(f"{name}: {question}\n    {answer}")
print("no picture: what is this?\n   ", model.generate("what is this?", max_new_tokens=MOST))
