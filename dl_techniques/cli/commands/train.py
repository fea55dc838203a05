"""`fastvlm train DATA --output MODEL`, or `fastvlm train RECIPE.yaml`: learn from own pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_techniques.cli.notes import note
from dl_techniques.cli.options import PRESET_HELP

if TYPE_CHECKING:
    from dl_techniques.training.fine_tune import FineTune

RECIPES = (".yaml", ".yml")
WITH_VALUE = (
    ("--output", "--output_dir", "output", "FOLDER", "where the trained model is written"),
    ("--preset", "--model", "preset", "PRESET", f"to begin with: {PRESET_HELP} (default: demo)"),
    ("--lora", "--lora_rank", "lora_rank", "RANK", "train small matrices beside the decoder's"),
    ("--epochs", "--num_epochs", "epochs", "N", "times through the data (default: 3)"),
    ("--minutes", None, "minutes", "M", "train so long instead"),
    ("--batch-size", "--batch_size", "batch_size", "N", "rows of a batch (default: 16)"),
    ("--learning-rate", "--learning_rate", "learning_rate", "R", "the highest"),
    ("--accumulate", "--gradient_accumulation_steps", "accumulate", "N", "batches of an update"),
    ("--skip-bad", None, "skip_bad", "N", "leave out up to so many bad records"),
    ("--seed", None, "seed", "N", "of order and fresh weights"),
)
"""Option, the name other trainers have for it, the recipe's key, what stands for a value, help."""
PLAIN_TEXTS = ("output", "preset")
"""Keys whose values are no YAML: a folder may be called 2026."""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "train",
        help="teach a model your own pictures and answers",
        description=(
            "Trains a vision-language model. The data are JSON lines or a table with image, "
            "question and answer, conversations as LLaVA writes them, or a folder with a folder of "
            "pictures for each class. The same command goes on where a killed one was."
        ),
    )
    parser.add_argument(
        "data", nargs="*", metavar="DATA", help="files and folders to learn from, or a recipe.yaml"
    )
    parser.add_argument(
        "--train_data", nargs="+", action="extend", default=[], metavar="DATA", help="as DATA"
    )
    parser.add_argument(
        "--val-data", "--val_data", nargs="+", action="extend", metavar="DATA",
        help="answered between steps; the weights that answer most of it right are kept",
    )  # fmt: skip
    parser.add_argument("--config", metavar="YAML", help="as a recipe.yaml in DATA")
    for option, other, key, metavar, told in WITH_VALUE:
        names = [option] if other is None else [option, other]
        parser.add_argument(*names, dest=key, metavar=metavar, help=told)
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="any other key of a recipe, such as train=[tower,projector,decoder]",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be trained, after a few steps"
    )
    parser.add_argument("--force", action="store_true", help="replace the output if it exists")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Trains, or looks ahead."""
    settings = settings_of(options)
    from dl_techniques.training.fine_tune import fine_tune, look_ahead

    if options.dry_run:
        for line in look_ahead(settings, note):
            print(line)
        return 0
    tuned = fine_tune(settings, note, options.force)
    print(f"wrote {tuned.output} after {tuned.outcome.steps} steps{_validated(tuned)}")
    print(f'try   fastvlm ask --preset {tuned.output} photo.jpg "..."')
    return 0


def _validated(tuned: Any) -> str:
    if tuned.exact_match is None:
        return ""
    return (
        f"; the weights of step {tuned.best_step}, which answer {100 * tuned.exact_match:.1f} % of "
        "the validation right"
    )


def settings_of(options: argparse.Namespace) -> FineTune:
    """The settings that the options, and a recipe among them, ask for.

    Raises:
        TrainingError: an unknown key, a wrong value, or several recipes.
    """
    from dl_techniques.errors import TrainingError
    from dl_techniques.training.fine_tune.fine_tune_settings import (
        assignments,
        from_file,
        from_values,
    )

    named = [*options.data, *options.train_data]
    recipes = [path for path in named if Path(path).suffix.lower() in RECIPES]
    recipes += [options.config] if options.config else []
    data = [path for path in named if path not in recipes]
    given = {key: getattr(options, key) for *_, key, _, _ in WITH_VALUE}
    given = {key: value for key, value in given.items() if value is not None}
    names = {key: given.pop(key) for key in PLAIN_TEXTS if key in given}
    changes = assignments([*options.set, *(f"{key}={value}" for key, value in given.items())])
    changes.update(names)
    if data:
        changes["data"] = data
    if options.val_data:
        changes["val_data"] = options.val_data
    if len(recipes) > 1:
        raise TrainingError(f"one recipe at a time, got {', '.join(recipes)}")
    return from_file(recipes[0], changes) if recipes else from_values(changes)
