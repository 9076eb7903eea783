"""`evaluate_checkpoint`: evaluates weights in a file without training, `avel evaluate FILE --cache CACHE`."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from avel.config import resolve
from avel.device import choose_device
from avel.errors import StoreError
from avel.heads.config import TrainConfig
from avel.heads.evaluation.evaluate import predict_split
from avel.heads.evaluation.score import Score, score_predictions
from avel.heads.tasks.results import Decoder
from avel.heads.training.data import read_data
from avel.heads.training.fit import make_model
from avel.heads.training.start import start_from
from avel.heads.training.trials import Trial
from avel.progress import note
from avel.stores.features import FeatureCache


def evaluate_checkpoint(
    file: Path | str,
    cache: Path | str,
    config: TrainConfig | None = None,
    split: Literal["val", "test"] = "test",
    *,
    decoder: Decoder | None = None,
    onset_tolerance: float = 1,
    offset_tolerance: float = 1,
    **options: Any,
) -> Score:
    """Evaluates weights in a file, of a head's published network or of avel's own, on one split of a cache.

    The cache must hold features like those that the weights were trained on, and the same classes in order.

    >>> evaluate_checkpoint("psp.pt", "ave.h5", head="psp", supervision="weak")  # doctest: +SKIP

    Args:
        config: the head and its settings; `options` are single settings, which replace those of `config`.

    Raises:
        WeightsError, MissingPathError, StoreError: `file` or `cache` is missing or damaged; the cache has no
            train samples to standardise by where the file holds no mean and std.
        TrainingError: the cache has no samples of the split, or not the features that the head reads.
        ConfigError: the weights are not those of the head.
    """
    config = resolve(TrainConfig, "train-head", base=config, options=options)
    opened, device = FeatureCache.open(cache), choose_device(config.device)
    with_statistics = config.standardise and "train" in opened.samples.split
    data = read_data(opened, config, device, (split, "train") if with_statistics else (split,))
    decoder = data.task.find_decoder(decoder)
    trial = Trial("checkpoint", replace(config, init=""))  # the weights of `file` take its place
    model = make_model(trial, data)
    note(f"{file}: weights of {start_from(model, file)}")
    if model.standard_a is not None and not model.standard_a.is_set:
        raise StoreError(
            f"{cache}: no train samples to standardise by, and {file} holds no mean and std",
            hint="name a cache that holds the train samples of these weights",
        )
    predicted = predict_split(model.to(device).eval(), trial, data, split)
    return score_predictions(
        [predicted],
        data.task,
        decoder,
        (onset_tolerance, offset_tolerance),
        predictions=(str(file),),
        dataset=str(cache),
    )
