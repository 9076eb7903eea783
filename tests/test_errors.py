"""Every error of avel travels between processes as it is: message, hint and kind."""

import json.decoder
import pickle

import pytest

import avel.pipeline.media.refusal
import avel.pipeline.staging.cluster
import avel.pipeline.staging.isolate  # with the two above, the modules that define errors of their own
from avel.errors import AvelError, ConfigError, UnknownNameError, import_extra


def kinds(base: type[AvelError] = AvelError) -> list[type[AvelError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in kinds(child))]


OF_A_MESSAGE = [kind for kind in kinds() if kind.__init__ is AvelError.__init__]


@pytest.mark.parametrize("kind", OF_A_MESSAGE, ids=lambda kind: kind.__name__)
def test_an_error_unpickles_as_it_was(kind: type[AvelError]) -> None:
    error = pickle.loads(pickle.dumps(kind("store.zarr: what", hint="do this")))
    assert type(error) is kind
    assert (error.message, error.hint, error.args) == ("store.zarr: what", "do this", ("store.zarr: what",))
    assert str(error) == "store.zarr: what\n  next: do this"


def test_an_unknown_name_unpickles_with_its_suggestion() -> None:
    error = pickle.loads(pickle.dumps(UnknownNameError("head", "tacme", ["tacma", "mlp"], where="run")))
    assert isinstance(error, UnknownNameError)
    assert (error.message, error.hint) == ("run: no head named 'tacme'", "did you mean tacma?")


def test_of_many_choices_a_few_are_listed() -> None:
    names = [f"{number:05d}" for number in range(1051)]
    assert UnknownNameError("video", "x", names[:50]).hint == f"choose from {', '.join(names[:50])}"
    assert UnknownNameError("video", "x", names).hint == (
        "choose from 00000, 00001, 00002, 00003, 00004 and 1,046 others"
    )


def test_an_unknown_name_among_none_says_so() -> None:
    assert UnknownNameError("video", "x", []).hint == "there is none"


def test_a_refused_clip_unpickles_with_its_reason() -> None:
    refused = avel.pipeline.media.refusal.ClipRefused("empty", "0 bytes")
    again = pickle.loads(pickle.dumps(refused))
    assert vars(again) == vars(refused)


def test_no_error_is_a_built_in_one_as_well() -> None:
    for kind in kinds():
        others = [base for base in kind.__mro__ if not issubclass(base, AvelError)]
        assert others == [Exception, BaseException, object], kind


def test_every_kind_is_tested() -> None:
    others = {kind.__name__ for kind in kinds()} - {kind.__name__ for kind in OF_A_MESSAGE}
    assert others == {"UnknownNameError", "ClipRefused"}


def test_a_package_of_an_extra_that_is_missing_is_named_with_the_extra() -> None:
    assert import_extra("json.decoder", "plots") is json.decoder
    with pytest.raises(ConfigError, match=r"cannot import no_such\.package") as refused:
        import_extra("no_such.package", "plots")
    assert refused.value.hint == "pip install 'avel[plots]'"
