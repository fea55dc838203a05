"""The mean of models that were trained apart from one start, as a finished preset.

python -m recipes.demo.stages.average --out PRESET MODEL MODEL... --start MODEL --mean 0.7

Runs of the recipe on cores of their own, with seeds of their own, that went on from the same
weights stay near enough to each other for their mean to be better than each (Wortsman et al.,
"Model soups", arXiv:2203.05482).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dl_techniques import FastVLMCausalLM
from dl_techniques.training.averaging import set_mean
from recipes.demo.stages import finetune
from recipes.demo.stages.finer import widened_like

__all__ = ["average_with_start", "finish", "mean_of"]


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("models", type=Path, nargs="+", help="whole models of the same shapes")
    made.add_argument("--out", type=Path, required=True, help="folder of the finished preset")
    made.add_argument("--start", type=Path, help="an earlier model")
    made.add_argument("--mean", type=float, default=0.5, help="share of the trained weights")
    options = made.parse_args(arguments)
    finish(mean_of(options.models), options.out, options.start, options.mean)


def mean_of(folders: list[Path]) -> FastVLMCausalLM:
    """The first model with the mean of all weights.

    Raises:
        TrainingError: the models' weights differ in number or shape.
    """
    models = [FastVLMCausalLM.from_preset(str(folder), dtype="float32") for folder in folders]
    set_mean(models[0], models[1:])
    return models[0]


def finish(model: FastVLMCausalLM, out: Path, start: Path | None, share: float | None) -> None:
    """Folds a trained model and writes it, its weights in float16.

    Args:
        model: what was trained; it is changed.
        out: folder of the preset.
        start: the preset that it went on from, for a mean.
        share: of the trained weights in that mean; None for no mean.
    """
    model.reparameterize(fold=True)
    if start is not None and share is not None:
        average_with_start(model, start, share)
    finetune.widen_context(model)
    model.save_to_preset(out, weights_dtype="float16")
    print(f"wrote {out}: {model.count_params():,} parameters")


def average_with_start(model: FastVLMCausalLM, start: Path, share: float = 0.5) -> None:
    """Gives a folded model a mean of its weights and those of the model that it went on from.

    What the start knew and training unlearned comes back, and most of what is new stays
    (Wortsman et al., "Robust fine-tuning of zero-shot models", arXiv:2109.01903).

    Args:
        model: what was trained; it is changed.
        start: the preset that it went on from.
        share: of the trained weights, 0 to 1.
    """
    earlier = FastVLMCausalLM.from_preset(str(start), dtype="float32")
    earlier.reparameterize(fold=True)
    earlier = widened_like(earlier, model)
    set_mean(model, [earlier], (share, 1 - share))


if __name__ == "__main__":
    main()
