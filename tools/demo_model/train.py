"""Trains the shipped model, from raw downloads to the finished preset, with one command.

    python -m tools.demo_model.train --work WORK --clothing clothing.tar --out PRESET

Stages: fetch and draw -> encoder from labels -> with `--read-minutes` smaller print for the encoder
-> projector and decoder on the frozen encoder -> everything together, or with `--frozen` projector
and decoder once more, which sees twice as many records in the same time -> preset (encoder folded,
weights in float16). Each stage keeps backups in WORK, so the same command goes on after a kill
where it was; a finished stage is not run again.
With `--start MODEL` all of them go on from an earlier model instead of from nothing.
On an accelerator (JAX; drawing is then the slow part) the shipped model's six minutes amount to

    --start MODEL --branch --processes 14 --passes 2 --seed 41
    --pretrain-minutes 3 --pretrain-batch 512 --pretrain-pictures 32768 --pretrain-rate 1.5e-3
    --pretrain-mix emoji=0.38,scenes=0.20,words=0.32,clothing=0.05,easy_vqa=0.05
    --language-epochs 0 --together-minutes 2.6 --together-rate 8e-4 --batch 512 --buckets 104
    --records 32768 --mix scenes=0.42,emoji=0.23,words=0.23,easy_vqa=0.06,clothing=0.06

and what followed for smaller print, on two CPU cores that each ran this and shared gradients, to

    --start MODEL --pretrain-epochs 0 --read-minutes 16,22 --language-epochs 0 --short --mean
    --pretrain-mix scenes=0.40,emoji=0.40,easy_vqa=0.08,clothing=0.12
    --together-minutes 33 --together-rate 4e-4 --records 1024 --buckets 40,48,64,104 --seed 71
    --mix words=0.50,emoji=0.28,scenes=0.16,easy_vqa=0.02,clothing=0.04

and, for words of five and six letters, on one core, to

    --start MODEL --pretrain-epochs 0 --read-minutes 20,33 --read-kept 1,4 --read-batch 64
    --long-words 0.5 --early-optimizer muon --read-rates 6e-3,1e-3 --language-epochs 0 --short
    --pretrain-mix scenes=0.40,emoji=0.40,easy_vqa=0.08,clothing=0.12
    --together-minutes 54 --together-rate 4.5e-4 --records 512 --batch 16 --buckets 40,48,64,104
    --mix words=0.42,emoji=0.33,scenes=0.19,easy_vqa=0.02,clothing=0.04 --seed 81 --mean 0.7

The next began with the same stages, `--read-minutes 28,20`, and then showed the projector the map
before the encoder's last one. It ended on two cores that each ran, with a seed of its own,

    --start MODEL --pretrain-epochs 0 --read-minutes 28,20 --read-kept 1,4 --read-batch 64
    --long-words 0.5 --early-optimizer muon --read-rates 6e-3,1e-3 --language-epochs 0 --short
    --pretrain-mix scenes=0.40,emoji=0.40,easy_vqa=0.08,clothing=0.12 --finer 128 --rows-minutes 12
    --together-minutes 42 --together-rate 5e-4 --records 512 --batch 16 --buckets 40,48,64,104
    --mix words=0.50,emoji=0.29,scenes=0.16,easy_vqa=0.02,clothing=0.03

and whose weights were averaged before and after the last stage, at the end by `average`. From its
mean of both cores the next went on with everything together, on two cores that each ran

    --start MODEL --pretrain-epochs 0 --language-epochs 0 --short --long-words 0.6
    --together-minutes 98 --together-rate 6e-4 --records 512 --batch 16
    --buckets 40,42,44,46,50,56,64,104
    --mix words=0.52,emoji=0.27,scenes=0.16,easy_vqa=0.02,clothing=0.03

and from the mean of these two the one after, in the same way but with English words in place of
most of the letters at random: `--together-minutes 100 --long-words 0.65 --common-words 0.72 --mix
words=0.54,emoji=0.24,scenes=0.17,easy_vqa=0.02,clothing=0.03`. What that one shipped was where the
last began, on two newer cores that each saw 166 000 records: `--together-minutes 78 --long-words
0.7 --common-words 0.72 --mix words=0.50,emoji=0.22,scenes=0.24,easy_vqa=0.02,clothing=0.02`. Each
of these three ended with `average`, `--mean 0.8` and what had been shipped before. Captions of
single pictures, unlearned with `--short`, came back with `--others 0.35 --together-minutes 19
--together-rate 4e-4` and otherwise the same, from there; the mean of both runs is what is shipped.

Evaluate with `python -m tools.demo_model.benchmark` and `fastvlm evaluate`.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import keras

from dl_techniques import FastVLM, FastVLMCausalLM
from tools.demo_model import copying, fetch, finetune, grounding, pointing, pretrain, reading
from tools.demo_model.average import finish
from tools.demo_model.branching import branch
from tools.demo_model.deadline import ENDLESS
from tools.demo_model.deepen import deepen
from tools.demo_model.drawn_ahead import Drawing
from tools.demo_model.finer import with_finer_map
from tools.demo_model.legible import make_legible
from tools.demo_model.options import parser
from tools.demo_model.records import DemoData


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    made = parser((__doc__ or "").splitlines()[0])
    options = made.parse_args(arguments)
    end_by_the_clock(options)
    if not options.pretrain_epochs and options.start is None:
        made.error("--pretrain-epochs 0 keeps an earlier encoder: name it with --start")
    if options.rows_minutes is not None and not pretrain.is_whole_model(options.start):
        made.error("--rows-minutes keeps to what a decoder knows: name its model with --start")
    if options.mean is not None and not pretrain.is_whole_model(options.start):
        made.error("--mean is taken with an earlier whole model: name it with --start")
    keras.utils.set_random_seed(options.seed)
    fetch.main(["--work", str(options.work)])
    timed("encoder", lambda: encoder_stage(options))
    if options.read_minutes is not None:
        timed("reading", lambda: reading_stage(options))
    timed("language", lambda: language_stage(options))
    if options.together_epochs:
        timed("together", lambda: together_stage(options))
    model = FastVLMCausalLM.from_preset(str(finished_stage(options) / "preset"), dtype="float32")
    finish(model, options.out, options.start, options.mean)


def end_by_the_clock(options: argparse.Namespace) -> None:
    """Gives stages that last so many minutes epochs enough."""
    for stage in ("pretrain", "language", "together"):
        if getattr(options, f"{stage}_minutes") is not None:
            setattr(options, f"{stage}_epochs", ENDLESS)


def encoder_stage(options: argparse.Namespace) -> None:
    """Stage 1, see `pretrain`."""
    data = DemoData(options.work, options.clothing, options.size, options.pretrain_mix)
    data.load()
    start = None if options.start is None else pretrain.load_encoder(options.start)
    if start is not None and options.branch:
        pictures = pretrain.LabelledPictures(data, 512, 1, seed=2)[0][0]
        branch(start, pretrain.as_floats(pictures))
    pretrain.pretrain(
        data,
        options.work / "pretrain",
        options.pretrain_epochs,
        start,
        options.pretrain_pictures // options.pretrain_batch,
        options.pretrain_batch,
        options.pretrain_rate,
        Drawing(options.processes, options.passes),
        options.pretrain_minutes,
    )


def reading_stage(options: argparse.Namespace) -> None:
    """The encoder learns to read smaller print, see `reading`; the other pictures are kept."""
    data = reading_data(options)
    encoder = FastVLM.from_preset(options.work / "pretrain" / "encoder")
    plan = reading_plan(options, *options.read_minutes)
    reading.read(encoder, data, plan, options.work / "reading", Drawing(options.processes))


def rows_stage(model: FastVLMCausalLM, options: argparse.Namespace) -> None:
    """Encoder and projector learn to make rows that can be read, see `legible`."""
    before = FastVLMCausalLM.from_preset(str(options.start), dtype="float32")
    plan = reading_plan(options, 0.0, options.rows_minutes)
    drawing = Drawing(options.processes)
    make_legible(model, before, reading_data(options), plan, options.work / "reading", drawing)


def reading_data(options: argparse.Namespace) -> DemoData:
    """Words, and the mix of the other pictures, whose maps or rows are kept."""
    kept = {kind: share for kind, share in options.pretrain_mix.items() if kind != "words"}
    data = DemoData(
        options.work,
        options.clothing,
        options.size,
        kept,
        long_words=options.long_words,
        common_words=options.common_words,
    )
    data.load()
    return data


def reading_plan(options: argparse.Namespace, early: float, minutes: float) -> reading.Reading:
    """How the stages train in which words are read without the decoder."""
    (early_rate, rate), (early_kept, kept_later) = options.read_rates, options.read_kept
    return reading.Reading(
        early,
        minutes,
        batch_size=options.read_batch,
        words=options.read_batch * 11 // 16,
        early_rate=early_rate,
        rate=rate,
        early_kept=early_kept,
        kept=kept_later,
        early_optimizer=options.early_optimizer,
    )


def language_stage(options: argparse.Namespace) -> None:
    """Stage 2: the encoder is fused and frozen, projector and decoder learn.

    With a whole model as `--start` they go on from that model's.
    """
    folder = options.work / "language"
    if (folder / "preset").is_dir():
        return
    data = language_data(options)
    read = options.read_minutes is not None
    encoder = FastVLM.from_preset(options.work / ("reading" if read else "pretrain") / "encoder")
    if pretrain.is_whole_model(options.start):
        model = FastVLMCausalLM.from_preset(str(options.start), dtype=options.dtype)
        model.preprocessor.sequence_length = finetune.SEQUENCE_LENGTH
        if options.pretrain_epochs:
            encoder.reparameterize(fold=model.backbone.vision_encoder.folded)
            finetune.exchange_encoder(model, encoder, data, drawing=Drawing(options.processes))
        elif read:
            model.backbone.vision_encoder.set_weights(encoder.get_weights())
    else:
        model = finetune.build_model(data, encoder, options.dtype)
        model.reparameterize()
    if options.finer:
        model = with_finer_map(model, options.finer, data)
    if options.rows_minutes is not None and not pretrain.completed_epochs(folder):
        rows_stage(model, options)
    if options.ground is not None and not pretrain.completed_epochs(folder):
        grounding.raise_embeddings(model, options.ground)
        grounding.name_objects(model, data)
    model = deepen(model, options.layers) if options.layers else model
    if options.point and pretrain.completed_epochs(folder):
        model = copying.with_second_layer(pointing.with_first_layer(model))
    elif options.point:
        model = copying.add_copying_layer(pointing.add_pointing_layer(model, data), data)
    if options.point or options.hold:
        pointing.hold(model)
    model.backbone.vision_encoder.trainable = False
    if options.language_epochs:
        finetune.train_stage(
            model,
            data,
            folder,
            options.language_epochs,
            options.records,
            options.rate,
            options.seed + 1,
            options.batch,
            Drawing(options.processes, options.passes),
            options.buckets,
            options.language_minutes,
        )
    save_finished(model, folder / "preset")


def together_stage(options: argparse.Namespace) -> None:
    """Stage 3: everything learns (unless `--frozen`), the encoder fused, its statistics fixed.

    Batches of this stage are of one group of kinds, so their statistics would mislead BatchNorm.
    """
    folder = options.work / "together"
    if (folder / "preset").is_dir():
        return
    data = language_data(options)
    model = FastVLMCausalLM.from_preset(str(options.work / "language" / "preset"))
    encoder = model.backbone.vision_encoder
    if encoder.folded and not options.frozen:
        encoder.reset_reparameterization()
        encoder.reparameterize()
    encoder.trainable = not options.frozen
    if options.point or options.hold:
        pointing.hold(model)
    finetune.freeze_batch_norms(encoder)
    rate = options.together_rate or (1e-3 if options.frozen else 5e-4)
    finetune.train_stage(
        model,
        data,
        folder,
        options.together_epochs,
        options.records,
        rate,
        options.seed + 2,
        options.batch,
        Drawing(options.processes, options.passes),
        options.buckets,
        options.together_minutes,
    )
    save_finished(model, folder / "preset")


def finished_stage(options: argparse.Namespace) -> Path:
    """The last stage's folder."""
    work: Path = options.work
    return work / ("together" if options.together_epochs else "language")


def save_finished(model: FastVLMCausalLM, folder: Path) -> None:
    """Writes beside the folder and moves: a folder that exists is a finished stage."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_to_preset(partial)
    partial.rename(folder)


def language_data(options: argparse.Namespace) -> DemoData:
    """The pictures and questions of stages 2 and 3; words are answered in capitals."""
    data = DemoData(
        options.work,
        options.clothing,
        options.size,
        options.mix,
        upper_words=True,
        lookups=True,
        short=options.short,
        long_words=options.long_words,
        common_words=options.common_words,
        others=options.others,
    )
    data.load()
    return data


def timed(name: str, stage: Callable[[], None]) -> None:
    """Runs a stage and prints how long it took."""
    start = time.perf_counter()
    stage()
    print(f"stage {name}: {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)


if __name__ == "__main__":
    main()
