"""The contact sheet shows the clip's own frames, patches and labels, at their times."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from avel.errors import StoreError, UnknownNameError
from avel.pipeline.staging.extract import extract
from avel.pipeline.staging.preview import draw, preview
from avel.stores.clips import ClipStore
from tests.pipeline.staging.small_clips import SMALL, make_clip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ClipStore:
    """Two clips of 2 s on a grid of 3 s; the first carries two events, the second is mute and unlabelled."""
    folder = tmp_path_factory.mktemp("clips")
    make_clip(folder / "-$x_1$.mp4", seed=1)
    make_clip(folder / "mute.mp4", seed=2, sound=False)
    (folder / "events.csv").write_text(
        'video_id,category,start,end\n-$x_1$,Dog & cat,0,1\n-$x_1$,"Male, speech",1,3\n'
    )
    extract(
        folder, folder / "s.zarr", SMALL, annotations=folder / "events.csv", workers=1, segments=3, size=64
    )
    return ClipStore.open(folder / "s.zarr")


def test_a_png_is_written(store: ClipStore, tmp_path: Path) -> None:
    path = preview(store.location.url, "-$x_1$", tmp_path / "deep" / "sheet.png")
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[1] > 400
    assert pixels[..., :3].std() > 0.1


def test_frames_patches_and_labels_stand_at_their_times(store: ClipStore) -> None:
    frames, sound, events = draw(store, "-$x_1$").axes
    assert [image.get_extent()[0] for image in frames.images] == [0, 1, 2]
    middles = store.frames("-$x_1$", [2, 6, 10])
    assert all(
        np.array_equal(image.get_array(), middle)
        for image, middle in zip(frames.images, middles, strict=True)
    )
    assert np.allclose(sound.images[1].get_array(), store.log_mel("-$x_1$")[1].T)
    coloured = [(bar.get_x(), bar.get_y()) for bar in events.patches if bar.get_facecolor()[0] < 0.9]
    assert [x for x, y in coloured if y < 0.5] == [0]
    assert [x for x, y in coloured if y > 0.5] == [1, 2]
    assert [text.get_text() for text in events.texts] == ["Dog & cat, 0-1 s", "Male, speech, 1-3 s"]
    assert [label.get_text() for label in events.get_xticklabels()] == ["0", "1", "2", "3"]
    assert frames.get_shared_x_axes().joined(frames, events)


def test_the_title_says_what_is_padded_and_mute(store: ClipStore) -> None:
    title = draw(store, "mute").get_suptitle()
    assert title.startswith("mute  ·  1.0")
    assert "s padded" in title
    assert title.endswith("no audio in the file")


def test_what_cannot_be_shown_is_an_error(store: ClipStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="a preview is a PNG"):
        preview(store, "mute", tmp_path / "sheet.jpg")
    with pytest.raises(UnknownNameError, match="nobody"):
        preview(store, "nobody", tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())


def test_an_id_is_never_an_option(store: ClipStore, tmp_path: Path) -> None:
    from avel.cli import cli
    from avel.console import DONE, USAGE, run

    sheet = tmp_path / "sheet.png"
    assert run(cli, ["preview", store.location.url, "-$x_1$", str(sheet)]) == DONE
    assert sheet.exists()
    assert run(cli, ["preview", store.location.url, "-0h-vq", str(tmp_path / "x.png")]) == USAGE
    assert run(cli, ["preview", store.location.url, "--help", str(sheet)]) == DONE
