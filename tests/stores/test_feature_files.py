"""Features of others in every form that they come in: all give the same numbers, by id; nothing is run."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from avel.errors import AvelError, ConfigError, MissingPathError, StoreError
from avel.stores.feature_files import open_features
from tests.stores.test_fence import write_crashing

IDS = ("-a", "b_x", "c.d")
CLIPS = {
    name: np.random.default_rng(number).random((4, 6)).astype(np.float32) for number, name in enumerate(IDS)
}


def folder_of(ending: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        made = folder / "made"
        made.mkdir()
        for name, values in CLIPS.items():
            path = made / f"{name}{ending}"
            if ending == ".npy":
                np.save(path, values)
            elif ending == ".npz":
                np.savez(path, fps=np.array(25.0), features=values, timestamps_ms=np.arange(4))
            elif ending == ".h5":
                with h5py.File(path, "w") as file:
                    file["features"], file["fps"] = values, 25.0
            else:
                torch.save(
                    {"clip": torch.from_numpy(values)} if ending == ".pth" else torch.from_numpy(values), path
                )
        return made

    return write


def pattern(folder: Path) -> Path:
    for name, values in CLIPS.items():
        np.save(folder / f"{name}_r21d.npy", values)
        np.save(folder / f"{name}_fps.npy", np.array(25.0))
    return folder / "*_r21d.npy"


def h5_by_id(folder: Path) -> Path:
    with h5py.File(folder / "all.h5", "w") as file:
        for name, values in CLIPS.items():
            file[name] = values
    return folder / "all.h5"


def h5_groups(folder: Path) -> Path:
    with h5py.File(folder / "all.h5", "w") as file:
        for name, values in CLIPS.items():
            file[f"{name}/features"], file[f"{name}/times"] = values, np.arange(4)
    return folder / "all.h5"


def h5_rows(folder: Path) -> Path:
    with h5py.File(folder / "all.h5", "w") as file:
        file["x"], file["video_ids"], file["y"] = np.stack(list(CLIPS.values())), list(IDS), np.arange(3)
    return folder / "all.h5"


def npz_rows(folder: Path) -> Path:
    np.savez(folder / "all.npz", x=np.stack(list(CLIPS.values())), ids=np.array(IDS))
    return folder / "all.npz"


def npz_by_id(folder: Path) -> Path:
    np.savez(folder / "all.npz", **CLIPS)
    return folder / "all.npz"


def torch_by_id(folder: Path) -> Path:
    torch.save({name: torch.from_numpy(values) for name, values in CLIPS.items()}, folder / "all.pt")
    return folder / "all.pt"


def torch_rows(folder: Path) -> Path:
    torch.save({"ids": list(IDS), "x": torch.from_numpy(np.stack(list(CLIPS.values())))}, folder / "all.pt")
    return folder / "all.pt"


def torch_of_autograd(folder: Path) -> Path:
    """As networks give them outside of `torch.no_grad`."""
    clips = {name: torch.from_numpy(values).requires_grad_() * 1 for name, values in CLIPS.items()}
    torch.save(clips, folder / "all.pt")
    return folder / "all.pt"


def torch_groups(folder: Path) -> Path:
    clips = {name: {"x": torch.from_numpy(values).requires_grad_()} for name, values in CLIPS.items()}
    torch.save(clips, folder / "all.pt")
    return folder / "all.pt"


def parquet_clips(folder: Path) -> Path:
    rows = {"video_id": list(IDS), "label": [1, 2, 3], "x": [values.tolist() for values in CLIPS.values()]}
    parquet.write_table(pa.table(rows), folder / "all.parquet")
    return folder / "all.parquet"


def parquet_vectors(folder: Path) -> Path:
    """A row a vector, the clips interleaved, each in its own order."""
    rows = [(name, CLIPS[name][place]) for place in range(4) for name in IDS]
    vectors = pa.FixedSizeListArray.from_arrays(np.concatenate([row for _, row in rows]), 6)
    parquet.write_table(pa.table({"id": [name for name, _ in rows], "x": vectors}), folder / "all.parquet")
    return folder / "all.parquet"


@pytest.mark.parametrize(
    "write",
    [
        *(pytest.param(folder_of(ending), id=ending) for ending in (".npy", ".npz", ".h5", ".pt", ".pth")),
        *(pattern, h5_by_id, h5_groups, h5_rows, npz_rows, npz_by_id, torch_by_id, torch_rows),
        *(torch_of_autograd, torch_groups, parquet_clips, parquet_vectors),
    ],
)
def test_every_form_gives_the_same_clips(write: Callable[[Path], Path], tmp_path: Path) -> None:
    with open_features(write(tmp_path)) as files:
        assert files.ids is not None
        assert set(files.ids) == set(IDS)
        for place, name in enumerate(files.ids):
            np.testing.assert_array_equal(np.asarray(files.read(place), np.float32), CLIPS[name])


def test_rows_without_ids_and_numbers_of_other_types(tmp_path: Path) -> None:
    rows = np.stack(list(CLIPS.values()))
    np.save(tmp_path / "rows.npy", rows.astype(np.float16))
    torch.save(torch.from_numpy(rows).bfloat16(), tmp_path / "rows.pt")
    for name, exact in (("rows.npy", 1e-3), ("rows.pt", 1e-2)):
        with open_features(tmp_path / name) as files:
            assert (files.ids, files.count) == (None, 3)
            np.testing.assert_allclose(files.read(1), rows[1], atol=exact)


def test_ids_that_are_whole_numbers_name_rows_too(tmp_path: Path) -> None:
    """Else the rows would be taken for those of the dataset's samples, in another order."""
    rows, numbers = np.stack(list(CLIPS.values())), np.array([2, 0, 1])
    np.savez(tmp_path / "all.npz", x=rows, video_id=numbers)
    torch.save({"x": torch.from_numpy(rows), "video_id": numbers.tolist()}, tmp_path / "list.pt")
    torch.save({"x": torch.from_numpy(rows), "video_id": torch.from_numpy(numbers)}, tmp_path / "all.pt")
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["x"], file["video_id"] = rows, numbers
    for name in ("all.npz", "list.pt", "all.pt", "all.h5"):
        with open_features(tmp_path / name) as files:
            assert files.ids == ("2", "0", "1"), name


X = pa.array([[[1.0, 2.0]], [[3.0, 4.0]]])


@pytest.mark.parametrize(
    ("columns", "key", "words"),
    [
        ([("id", pa.array(["a", None])), ("x", X)], None, "column id is empty in row 1"),
        ([("id", pa.array([b"a", b"\xff"])), ("x", X)], None, "column id is binary, not text"),
        ([("id", pa.array([{"a": 1}] * 2)), ("x", X)], None, "column id is struct.*, not text"),
        ([("id", pa.array(["a", "b"])), ("id", pa.array(["a", "b"])), ("x", X)], None, "2 columns .* id"),
        ([("id", pa.array(["a", "b"])), ("x", X), ("x", X)], "x", "2 columns are named x"),
    ],
)
def test_a_table_whose_columns_cannot_be_read_is_named(
    columns: list[tuple[str, pa.Array]], key: str | None, words: str, tmp_path: Path
) -> None:
    names, arrays = zip(*columns, strict=True)
    parquet.write_table(pa.table(list(arrays), names=list(names)), tmp_path / "all.parquet")
    with (
        pytest.raises(StoreError, match=rf"all\.parquet: {words}"),
        open_features(tmp_path / "all.parquet", key),
    ):
        pass


def test_ids_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=np.zeros((2, 4, 6)), ids=np.array([b"caf\xe9", b"a"]))
    with pytest.raises(StoreError, match=r"all\.npz: ids is not UTF-8"), open_features(tmp_path / "all.npz"):
        pass


def test_a_key_chooses_among_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", rgb=np.zeros((3, 4, 6)), flow=np.ones((3, 4, 6)))
    with (
        pytest.raises(StoreError, match=r"rgb \(3, 4, 6\), flow .*2 of these(?s:.)*--audio-key"),
        open_features(tmp_path / "all.npz"),
    ):
        pass
    with open_features(tmp_path / "all.npz", "flow") as files:
        assert files.read(0).all()


class Bomb:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("unpickled"),))


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pt", "a.h5", "a.parquet"])
def test_nothing_is_unpickled_and_damage_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, hostile = tmp_path / name, np.array([Bomb()], object)
    contents = [b"", b"no such file", pickle.dumps(Bomb())]
    if name == "a.npy":
        np.save(path, hostile, allow_pickle=True)
        contents.append(path.read_bytes())
        contents.append(path.read_bytes().replace(b"{", b"[", 1))
    elif name == "a.npz":
        np.savez(path, x=hostile)
        contents += [path.read_bytes(), path.read_bytes()[:-40]]
        np.savez_compressed(path, x=np.arange(24.0).reshape(4, 6))
        packed = path.read_bytes()
        at = packed.index(b"x.npy") + 40  # in the packed bytes, and before them how they are packed
        contents += [packed[:at] + bytes(40) + packed[at + 40 :], packed.replace(b"\x08\x00", b"\x63\x00")]
        np.save(tmp_path / "b.npy", np.zeros((4, 6)))
        contents.append((tmp_path / "b.npy").read_bytes())
    elif name == "a.pt":
        torch.save({"x": Bomb()}, path)
        contents += [path.read_bytes(), path.read_bytes()[:-40]]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(AvelError, match=name), open_features(path) as files:
            files.read(0)
    assert not Path("unpickled").exists()


def test_what_is_not_there_or_has_one_id_twice_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path / "*_x.npy", tmp_path):
        with pytest.raises(MissingPathError), open_features(path):
            pass
    np.save(tmp_path / "a.npy", CLIPS["-a"])
    np.savez(tmp_path / "a.npz", CLIPS["-a"])
    with pytest.raises(StoreError, match="has the same id"), open_features(tmp_path):
        pass


def test_a_pattern_has_one_star_and_all_else_stands_for_itself(tmp_path: Path) -> None:
    (tmp_path / "folder_[1].npy").mkdir()
    for name in ("a_[1].npy", "b_1.npy"):
        np.save(tmp_path / name, CLIPS["-a"])
    with open_features(tmp_path / "*_[1].npy") as files:
        assert files.ids == ("a",)
    with pytest.raises(ConfigError, match="several stars"), open_features(tmp_path / "*_*.npy"):
        pass


def test_values_in_other_files_are_not_followed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x/features"] = CLIPS["-a"]
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["a"] = h5py.ExternalLink(tmp_path / "secret.h5", "x")
    with pytest.raises(StoreError, match="not followed"), open_features(tmp_path / "all.h5"):
        pass


def test_a_file_behind_a_link_on_which_hdf5_crashes_is_not_opened(tmp_path: Path) -> None:
    write_crashing(tmp_path / "crashing.h5")
    with h5py.File(h5_rows(tmp_path), "r+") as file:
        del file["video_ids"]
        file["video_ids"] = h5py.ExternalLink("crashing.h5", "array 7")
    if (forked := os.fork()) == 0:
        with pytest.raises(StoreError, match="not followed"), open_features(tmp_path / "all.h5"):
            pass
        os._exit(0)
    assert os.waitpid(forked, 0)[1] == 0


def test_no_module_of_the_working_folder_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of HDF5 are read by another process, which must not take files beside them for its modules."""
    monkeypatch.chdir(tmp_path)
    Path("h5py.py").write_text("open('was_run', 'w')")
    with open_features(h5_rows(tmp_path)) as files:
        assert files.ids == IDS
    assert not Path("was_run").exists()
