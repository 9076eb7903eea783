"""Loads the networks that made the features of a cache, as its provenance names them, and runs them.

Features come from CNNs that read staged clips, with or without the Bi-LSTMs of an encoder on top. Or they
come from an encoder that was trained on vectors of another cache, which other networks made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avel.config import digest
from avel.digests import digest_of
from avel.errors import MissingPathError, StaleError, StoreError
from avel.nn import mask_of
from avel.pipeline.caching.encode import PartEncoder, Work
from avel.pipeline.caching.key import encoder_file_digest
from avel.pipeline.config import BACKBONES, CacheConfig, ExtractConfig
from avel.pipeline.encoders.encoder import Encoder
from avel.pipeline.encoders.header import OF_FOLDER, is_of_folder
from avel.pipeline.encoders.hub import folder_name
from avel.pipeline.encoders.saved import load_encoder
from avel.pipeline.encoders.vectors import VectorsConfig
from avel.stores.documents import typed
from avel.stores.feature_parts import Parts
from avel.stores.features import FeatureCache
from avel.stores.files import sha256_file
from avel.stores.named_features import (
    MAPS,
    MAPS_ENDING,
    OWN_ARRAYS,
    FeatureModality,
    NamedFeatures,
    read_named,
)
from avel.stores.provenance import (
    CACHE_AGAIN,
    NETWORK,
    VECTORS,
    NetworkProvenance,
    Staging,
    VisualPreprocessing,
)
from avel.stores.runs import read_config

Windows = Sequence[Mapping[str, Tensor]]
"""Vectors and maps of W windows: for each `StagedNetworks`, in order of `place`, name -> (W, T, ...)."""


@dataclass(frozen=True)
class Computed:
    """An array of features by its name, and the networks that compute it."""

    source: Source
    name: str


@dataclass(frozen=True, eq=False)
class StagedNetworks:
    """CNNs that read staged clips, of one modality or both, with the Bi-LSTMs on them, if any.

    Attributes:
        place: their index among the networks, and in `Windows`.
        staging: settings that the clips which they read were staged with.
    """

    place: int
    encoder: PartEncoder
    staging: ExtractConfig

    def arrays(
        self, windows: Windows, lengths: Tensor | None, read: Callable[[Computed], Tensor]
    ) -> dict[str, Tensor]:
        """Returns the CNNs' vectors, and f_a and f_v of them, name -> (W, T, ...)."""
        own = windows[self.place]
        return {**own, **self.encoder.temporal(own, lengths)}


@dataclass(frozen=True, eq=False)
class VectorNetworks:
    """An encoder that was trained on vectors of a cache, and the networks that compute these."""

    encoder: Encoder
    audio: tuple[Computed, ...]
    visual: tuple[Computed, ...]

    @torch.inference_mode()
    def arrays(
        self, windows: Windows, lengths: Tensor | None, read: Callable[[Computed], Tensor]
    ) -> dict[str, Tensor]:
        """Returns f_a and f_v, and as cnn_a and cnn_v what the encoder reads, name -> (W, T, ...).

        `read` returns the features of other networks.
        """
        cnn_a, cnn_v = (
            torch.cat([read(array).float() for array in arrays], -1) for arrays in (self.audio, self.visual)
        )
        mask = None if lengths is None else mask_of(lengths, cnn_a.shape[1])
        f_a, f_v = self.encoder.temporal(cnn_a, cnn_v, mask)
        return {"cnn_a": cnn_a, "cnn_v": cnn_v, "f_a": f_a, "f_v": f_v}


Source = StagedNetworks | VectorNetworks
"""Networks that compute several arrays at once."""


@dataclass(frozen=True)
class Origin:
    """Provenance of features.

    Attributes:
        where: names the features, at the beginning of errors.
        provenance: that of a cache, or the copy of it that another cache keeps.
        runs: paths at the time the cache was made: the encoder's run, then that of the encoder whose vectors
            this one reads, and so on.
        again: command that makes the cache again, "" for a copy in another cache.
    """

    where: str
    provenance: Mapping[str, Any]
    runs: tuple[str, ...] = ()
    again: str = ""

    @classmethod
    def of(cls, cache: FeatureCache) -> Origin:
        """Returns the provenance of a cache."""
        return cls(str(cache.path), cache.provenance, cache.inputs.runs, cache.command("--overwrite"))


class Networks:
    """Networks that made the features of a cache; each is loaded once.

    Args:
        encoder: where a run of `pretrain` lies now, if not where the cache says.
        weights: "visual" and "audio" -> files of backbones that the cache knows by their hash only, and
            folders of models that were moved.

    Raises:
        MissingPathError: no such `encoder`, file or folder.
    """

    def __init__(
        self,
        encoder: Path | None = None,
        weights: Mapping[str, Sequence[Path]] | None = None,
        device: str = "cpu",
    ) -> None:
        if encoder is not None and not encoder.exists():
            raise MissingPathError(f"{encoder}: is not there", hint="--encoder RUN says where the encoder is")
        self._encoder, self._device = encoder, device
        self._weights = {
            kind: {name: path for path in paths for name in _names_of(path, kind)}
            for kind, paths in (weights or {}).items()
        }
        self._staged: dict[str, StagedNetworks] = {}
        self._wanted: list[str] = []

    @property
    def staged(self) -> tuple[StagedNetworks, ...]:
        """Lists the CNNs, in the order of their places."""
        return tuple(self._staged.values())

    def find(self, origin: Origin, names: Sequence[str]) -> dict[str, Computed]:
        """Finds the networks that compute the features of these names: name -> its `Computed`.

        Raises:
            StoreError: features that avel's networks did not make.
            MissingPathError: encoder or weights are gone.
            StaleError: encoder, weights or staging are not those of the cache.
        """
        named = read_named(Path(origin.where), origin.provenance)
        maps = any(name == MAPS or name.endswith(MAPS_ENDING) for name in names)
        own: Source | None = None
        array_of: dict[str, Computed] = {}
        for name in names:
            if name in named:
                array_of[name] = self._find_named(origin, name, named[name], maps)
            else:
                own = own or self._find_own(origin, name, maps)
                array_of[name] = Computed(own, name)
        return array_of

    def run_of(self, origin: Origin, wanted: str) -> Path:
        """Returns the run whose encoder has the digest `wanted`: the one given, or the one the cache names.

        Raises:
            MissingPathError: it is not there.
            StaleError: another encoder is.
        """
        self._wanted.append(wanted)
        others: list[str] = []
        for path in [*([] if self._encoder is None else [self._encoder]), *map(Path, origin.runs[:1])]:
            if path.exists():
                digest_there = encoder_file_digest(path)[1]
                if digest_there == wanted:
                    return path
                others.append(f"{path}: is encoder {digest_there}, but {origin.where} was made with {wanted}")
        if others:
            raise StaleError(others[0], hint="name the right run with --encoder")
        where = origin.runs[0] if origin.runs else wanted
        raise MissingPathError(
            f"{where}: the encoder that {origin.where} was made with is not there",
            hint="--encoder RUN says where it is",
        )

    def check_encoder(self, origin: Origin) -> None:
        """Checks that the features were made with the encoder that was given.

        Raises:
            StaleError: they were made with others, or with none.
        """
        if (
            self._encoder is not None
            and (digest := encoder_file_digest(self._encoder)[1]) not in self._wanted
        ):
            wanted = f"encoder {' and '.join(self._wanted)}" if self._wanted else "backbones alone"
            raise StaleError(
                f"{self._encoder}: is encoder {digest}, but {origin.where} was made with {wanted}",
                hint="name the right run with --encoder, or leave --encoder out",
            )

    def _find_named(self, origin: Origin, name: str, about: NamedFeatures, maps: bool) -> Computed:
        if about.made.get("kind") != "backbone":
            raise _not_of_avel(f"{origin.where}: {name!r}")
        if "encoder" not in about.made:
            raise StoreError(
                f"{origin.where}: {name!r} does not say which weights made it",
                hint="add it again with the same avel cache-features command and --overwrite",
            )
        array = MAPS if name.endswith(MAPS_ENDING) else {"audio": "f_a", "visual": "f_v"}[about.modality]
        own = Origin(f"{origin.where}: {name!r}", about.made)
        return Computed(self._cnns(own, [about.modality], maps), array)

    def _find_own(self, origin: Origin, name: str, maps: bool) -> Source:
        if VECTORS in origin.provenance:
            return self._vector_networks(origin)
        if "staging" not in origin.provenance or name not in OWN_ARRAYS:
            raise _not_of_avel(f"{origin.where}: {name!r}")
        return self._cnns(origin, [*BACKBONES], maps)

    def _vector_networks(self, origin: Origin) -> VectorNetworks:
        about = origin.provenance[VECTORS]
        if "provenance" not in about:
            raise StoreError(
                f"{origin.where}: does not say how the vectors that its encoder reads were made",
                hint=CACHE_AGAIN,
            )
        wanted = origin.provenance["encoder"]["digest"]
        encoder = load_encoder(self.run_of(origin, wanted)).to(self._device)
        audio, visual = encoder.spec.audio.backbone, encoder.spec.visual.backbone
        assert isinstance(audio, VectorsConfig)
        assert isinstance(visual, VectorsConfig)
        source = Origin(f"{origin.where}: vectors", about["provenance"], origin.runs[1:])
        array_of = self.find(source, [*audio.names, *visual.names])
        read = (tuple(array_of[name] for name in each.names) for each in (audio, visual))
        return VectorNetworks(encoder, *read)

    def _cnns(self, origin: Origin, modalities: Sequence[FeatureModality], maps: bool) -> StagedNetworks:
        about = typed(NetworkProvenance, origin.provenance, f"{origin.where}: provenance", CACHE_AGAIN)
        key = digest_of([maps, *(origin.provenance[name] for name in NETWORK)])
        if key not in self._staged:
            staging = staging_config(about.staging, origin.where)
            if "visual" in modalities:
                _check_frames(origin, staging.grid().frames_per_segment)
            arrays = ["f_a", "f_v", *([MAPS] if maps else [])]
            encoder = PartEncoder(self._work(origin, about, modalities, arrays), self._device)
            _check_cnns(origin, about.cnn, encoder.cnn_digest)
            self._staged[key] = StagedNetworks(len(self._staged), encoder, staging)
        return self._staged[key]

    def _work(
        self,
        origin: Origin,
        network: NetworkProvenance,
        modalities: Sequence[FeatureModality],
        arrays: list[str],
    ) -> Work:
        """Returns the request from which PartEncoder builds these CNNs."""
        recipe = {**origin.provenance, "arrays": arrays}
        dtype, identity = network.preprocessing.dtype, network.encoder_identity(origin.where)
        if identity.kind == "run":
            path = self.run_of(origin, identity.digest)
            chosen: dict[str, Any] = {
                kind: {"weights": str(self._folder_of(origin, kind, about))}
                for kind in modalities
                if is_of_folder(about := network.encoder[kind])
            }
        else:
            path = None
            chosen = {
                **{kind: self._backbone_of(origin, network, kind) for kind in modalities},
                "untrained": identity.kind == "untrained",
                "seed": network.encoder.get("seed") or 0,
            }
        chosen["dtype"] = dtype
        config = read_config(CacheConfig, "cache-features", chosen, origin.where)
        return Work("", path, config, recipe, Parts(Path()))

    def _backbone_of(self, origin: Origin, network: NetworkProvenance, kind: str) -> dict[str, Any]:
        """Returns a CNN as CacheConfig takes it, with the file of its weights, or the folder of its model."""
        wanted = network.weights(origin.where, kind)
        about: dict[str, Any] = network.encoder[kind]
        if is_of_folder(about):
            name = about["backbone"]
            folder = self._folder_of(origin, kind, about)
            about = about | {name: about[name] | {"model": str(folder)}}
        if len(wanted) != 64:  # not the SHA-256 of a file
            return about
        return about | {"weights": str(self._given(origin, kind, wanted, "FILE"))}

    def _folder_of(self, origin: Origin, kind: str, about: Mapping[str, Any]) -> Path:
        """Returns the folder of a model: the recorded one if the model is still there, else the one given."""
        settings, wanted = about[about["backbone"]], str(about.get("weights"))
        if not wanted.startswith(OF_FOLDER):
            wanted = settings["revision"]  # the folder gives the architecture alone
        recorded = Path(settings["model"])
        if recorded.is_dir() and wanted in _names_of(recorded, kind):
            return recorded
        return self._given(origin, kind, wanted, "FOLDER", f", that were in {recorded}")

    def _given(self, origin: Origin, kind: str, wanted: str, what: str, old_place: str = "") -> Path:
        """Returns the path of weights that were given, by their name in the provenance.

        Raises:
            MissingPathError: none were given.
            StaleError: others were.
        """
        every = self._weights.get(kind, {})
        given = {name: path for name, path in every.items() if path.is_dir() == wanted.startswith(OF_FOLDER)}
        if wanted in given:
            return given[wanted]
        if not given:
            raise MissingPathError(
                f"{origin.where}: was made with {kind} weights of hash {wanted[:16]}{old_place}; "
                "they must be given",
                hint=f"--{kind}-weights {what}",
            )
        other, path = next(iter(given.items()))
        raise StaleError(
            f"{path}: has hash {other[:16]}, but {origin.where} was made with {kind} weights of {wanted[:16]}"
            f"{old_place}",
            hint=f"--{kind}-weights {what}, once for each",
        )


def values_of(arrays: Mapping[str, Computed], windows: Windows, lengths: Tensor | None) -> dict[str, Tensor]:
    """Computes features of windows by name, each network once: (W, T, ...).

    `lengths` (W,) are the segments of each window, where they are fewer than T.
    """
    done: dict[Source, dict[str, Tensor]] = {}

    def read(array: Computed) -> Tensor:
        if array.source not in done:
            done[array.source] = array.source.arrays(windows, lengths, read)
        return done[array.source][array.name]

    return {name: read(array) for name, array in arrays.items()}


def staging_config(staging: Staging, where: str) -> ExtractConfig:
    """Returns the config that clips were staged with.

    Raises:
        StaleError: this version of avel cannot stage in that way.
    """
    with suppress(StoreError):
        config = read_config(ExtractConfig, "extract", staging.settings, where)
        if digest(config) == staging.digest:
            return config
    raise StaleError(
        f"{where}: this version of avel cannot stage clips as its clips were ({staging.digest})",
        hint="stage the clips again with avel extract, then make cache and head again",
    )


def find_encoder(cache: FeatureCache) -> Path:
    """Returns the encoder run that a cache was made with, its digest compared.

    Raises:
        MissingPathError: it is not there.
        StaleError: it holds other weights than the cache was made with.
    """
    return Networks().run_of(Origin.of(cache), cache.typed_provenance.encoder_identity(cache.path).digest)


def _names_of(path: Path, kind: str) -> tuple[str, ...]:
    """Returns the names used in provenance: a file's hash; a folder's digests with and without weights."""
    if path.is_dir():
        return folder_name(path), folder_name(path, weights=False)
    if not path.is_file():
        raise MissingPathError(f"{path}: no such file or folder", hint=f"--{kind}-weights FILE or FOLDER")
    return (sha256_file(path),)


def _check_frames(origin: Origin, frames_per_segment: int) -> None:
    """Checks that a segment of the store has all the frames that the visual CNN reads."""
    where = f"{origin.where}: provenance: preprocessing"
    about = typed(VisualPreprocessing, origin.provenance["preprocessing"], where, CACHE_AGAIN)
    if not about.frames or not all(0 <= frame < frames_per_segment for frame in about.frames):
        raise StoreError(
            f"{where}: names frames {list(about.frames)}, and a segment has {frames_per_segment}",
            hint=CACHE_AGAIN,
        )


def _check_cnns(origin: Origin, made_with: str | None, found: str) -> None:
    """Compares the CNNs by digest, since a published name or a seed may stand for other weights now."""
    if found != made_with:
        again = f"{origin.again} makes the cache again" if origin.again else "make these features again"
        raise StaleError(
            f"{origin.where}: was made with CNNs of weights {made_with}, but their names and seed now give "
            f"{found}",
            hint=f"{again}; then train the head on it again",
        )


def _not_of_avel(what: str) -> StoreError:
    return StoreError(
        f"{what}: avel did not make these features, so it cannot encode a video like them",
        hint="make a cache with avel cache-features, and train the head on that",
    )
