"""From the keywords of a call to what chooses its tokens: compiled where that is possible."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras_hub
import numpy as np
from keras_hub.samplers import Sampler

from dl_techniques.errors import SamplingError
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_choice import AnswerRow, RowChooser
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import (
    RowSettings,
    check_names,
    sampler_of,
    settings_of,
)
from dl_techniques.models.vlm.fast_vlm.answer.sampler_checks import check_seed
from dl_techniques.models.vlm.fast_vlm.answer.sampling import (
    RowRandom,
    TokenChooser,
    draws,
    get_sampler,
    row_keys,
    seed_of,
)
from dl_techniques.runtime.compile import FunctionCache

Seed = int | Sequence[int] | np.ndarray | None
DRAW = ("temperature", "top_k", "top_p")


@dataclass(frozen=True)
class Choice:
    """How the tokens of a batch are chosen.

    Attributes:
        rows: the settings of every row.
        sampler: what all rows share; None where they draw differently.
        seed: of the rows' random numbers: one for all, or one per row, taken as it is.
    """

    rows: list[RowSettings]
    sampler: Sampler | None
    seed: Seed

    @property
    def on_the_host(self) -> bool:
        """Whether the rows choose for themselves, uncompiled."""
        return self.sampler is None or any(row.on_the_host for row in self.rows)

    @property
    def beams(self) -> bool:
        """Whether it is beam search, which has no chooser."""
        return isinstance(self.sampler, keras_hub.samplers.BeamSampler)

    def chooser(
        self,
        contents: Callable[[], list[list[np.ndarray]]],
        stop_ids: Collection[int],
        functions: FunctionCache,
    ) -> TokenChooser | RowChooser:
        """What turns logits into tokens.

        Args:
            contents: gives the arrays that make up each row, its prompt's tokens first. Called
                only where it is needed: all pixels of a batch are looked at.
            stop_ids: tokens that end an answer.
            functions: where compiled functions are kept.
        """
        if not self.on_the_host:
            assert self.sampler is not None
            drawn = draws(self.sampler)
            randomness = RowRandom(row_keys(self.seed, contents())) if drawn else None
            return TokenChooser(self.sampler, randomness, functions)
        arrays = contents()
        keys = row_keys(self.seed, arrays)
        return RowChooser(
            [
                AnswerRow(settings, row[0], stop_ids, key)
                for settings, row, key in zip(self.rows, arrays, keys, strict=True)
            ]
        )


@dataclass(frozen=True)
class Asked:
    """The keywords of one call that say how to choose, as they came.

    Attributes:
        sampler: name or KerasHub sampler; None for the model's.
        seed: of random samplers, or one per row.
        settings: for all rows, or one per row; None for what the sampler says.
        options: fields of `RowSettings` that are to be others.
    """

    sampler: str | Sampler | None = None
    seed: Seed = None
    settings: RowSettings | Sequence[RowSettings] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Refuses what is wrong with the keywords, whatever the batch will be.

        Raises:
            TypeError: an unknown keyword.
            SamplingError: as `choice`.
        """
        check_names(self.options)
        RowSettings(**self.options)
        if self.sampler is not None:
            get_sampler(self.sampler)
            if self.settings is not None:
                raise SamplingError("settings say how to choose: give them or a sampler, not both")

    def choice(self, number: int, default: Sampler) -> Choice:
        """For a batch of `number` rows.

        Args:
            number: of rows.
            default: the model's own sampler.

        Raises:
            SamplingError: a number that means nothing, another number of settings or seeds than of
                rows, or a sampler beside settings.
        """
        self.check()
        if self.settings is None:
            choice = self._of_sampler(number, default)
        else:
            choice = self._of_settings(number, self.settings)
        return replace(choice, seed=check_seed(choice.seed, number))

    def _of_sampler(self, number: int, default: Sampler) -> Choice:
        sampler = get_sampler(default if self.sampler is None else self.sampler)
        seed = seed_of(sampler) if self.seed is None else self.seed
        drawn = {name: self.options[name] for name in DRAW if name in self.options}
        if drawn:
            base = settings_of(sampler)
            # A limit on a draw that is never made would be an option without an effect.
            warm = 1.0 if base["temperature"] == 0.0 else base["temperature"]
            sampler = sampler_of(RowSettings(**{**base, "temperature": warm, **drawn}))
        others = {k: v for k, v in self.options.items() if k not in DRAW}
        row = RowSettings(**others)
        if row.on_the_host:
            row = replace(row, **settings_of(sampler))
        if row.stop and isinstance(sampler, keras_hub.samplers.BeamSampler):
            raise SamplingError("beam search takes no stop texts; use another sampler")
        return Choice([row] * number, sampler, seed)

    def _of_settings(self, number: int, settings: RowSettings | Sequence[RowSettings]) -> Choice:
        rows = [settings] * number if isinstance(settings, RowSettings) else list(settings)
        if len(rows) != number or not all(isinstance(row, RowSettings) for row in rows):
            raise SamplingError(
                f"settings must be a RowSettings, or one for each of {number} prompts, got "
                f"{settings!r:.100}"
            )
        rows = [replace(row, **self.options) for row in rows]
        seed = self.seed
        if seed is None:
            # Python's generator, which keras.utils.set_random_seed() seeds.
            seed = [random.randrange(2**31) if row.seed is None else row.seed for row in rows]
        ways = {_way(row) for row in rows}
        return Choice(rows, sampler_of(rows[0]) if len(ways) == 1 else None, seed)


def _way(row: RowSettings) -> tuple[Any, ...]:
    """What a row's sampler is made of."""
    return () if row.greedy else tuple(getattr(row, name) for name in DRAW)
