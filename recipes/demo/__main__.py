"""Trains a model as the recipe says, and writes it folded, its weights in float16.

    python -m recipes.demo --work WORK --clothing clothing.tar --out PRESET

The same command goes on after a kill; a finished stage is not run again. Evaluate with
`python -m recipes.demo.benchmark` and `fastvlm evaluate`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dl_techniques.training import Recipe
from recipes.demo.draw import fetch
from recipes.demo.makers import Demo, is_whole_model, load_model
from recipes.demo.photo_makers import PhotoDemo
from recipes.demo.stages.average import finish

RECIPE = Path(__file__).with_name("recipe.yaml")


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--work", type=Path, required=True, help="folder of downloads and stages")
    made.add_argument("--clothing", type=Path, help="tar of the clothing photos")
    made.add_argument("--photos", type=Path, help="folder of photographs, for photographs.yaml")
    made.add_argument("--labels", type=Path, help="what recipes.demo.photos.nanodet wrote of them")
    made.add_argument("--out", type=Path, required=True, help="folder of the finished preset")
    made.add_argument("--recipe", type=Path, default=RECIPE, help="the stages, a YAML file")
    made.add_argument("--start", type=Path, help="an earlier encoder, or model, to go on from")
    made.add_argument(
        "--mean",
        type=float,
        metavar="SHARE",
        help="end with a mean of the weights, so much of them, and `--start`'s",
    )
    options = made.parse_args(arguments)
    if options.mean is not None and not is_whole_model(options.start):
        made.error("--mean is taken with an earlier whole model: name it with --start")
    photos = options.photos is not None
    if photos and (options.labels is None or options.start is None or options.mean is not None):
        made.error("--photos is taken with --labels and --start, and without --mean")
    recipe = Recipe.from_file(options.recipe)
    fetch.main(["--work", str(options.work)])
    folder = options.work / options.recipe.stem
    last = list(recipe.stages)[-1]
    if photos:
        photo = PhotoDemo(options.work, options.photos, options.labels, options.start)
        recipe.run(folder, photo.makers())
        load_model(folder / last / "preset").save_to_preset(options.out, weights_dtype="float16")
        return
    recipe.run(folder, Demo(options.work, options.clothing, options.start).makers())
    finish(load_model(folder / last / "preset"), options.out, options.start, options.mean)


if __name__ == "__main__":
    main()
