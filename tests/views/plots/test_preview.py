"""`avel preview` shows the clip's own frames, patches and labels, at their times."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from avel.errors import ConfigError, UnknownNameError
from avel.heads.tasks.task import Block
from avel.pipeline.staging.extract import extract
from avel.stores.clips import ClipStore
from avel.views.plots.preview import preview, staged_clip
from avel.views.plots.style import figure
from avel.views.plots.timeline import draw_clip
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
    clip = staged_clip(store, "-$x_1$")
    assert np.array_equal(clip.frames, store.frames("-$x_1$", [2, 6, 10]))
    assert np.array_equal(clip.log_mel, store.log_mel("-$x_1$"))
    assert {bar.name: bar.blocks for bar in clip.bars} == {
        "Dog & cat\n0-1 s": (Block(0, 1, "label", "Dog & cat"), Block(1, 3, "background", "bg")),
        "Male, speech\n1-3 s": (Block(0, 1, "background", "bg"), Block(1, 3, "label", "Male, speech")),
    }


def test_frames_patches_and_labels_are_drawn_at_their_times(store: ClipStore) -> None:
    clip = staged_clip(store, "-$x_1$")
    with figure(9, 4) as fig:
        frames, sound, *bars = draw_clip(fig, clip)
        middles = [sum(image.get_extent()[:2]) / 2 for image in frames.images]
        assert np.allclose(middles, [0.5, 1.5, 2.5])
        assert all(map(np.array_equal, [image.get_array() for image in frames.images], clip.frames))
        assert sound.images[0].get_extent()[:2] == [0, 3]
        assert np.allclose(sound.images[0].get_array(), np.concatenate(clip.log_mel).T)
        drawn = [[(bar.get_x(), bar.get_width()) for bar in axes.patches] for axes in bars]
        assert drawn == [[(0, 1), (1, 2)], [(0, 1), (1, 2)]]
        assert [[text.get_text() for text in axes.texts] for axes in bars] == [
            ["Dog & cat", "bg"],
            ["bg", "Male, speech"],
        ]
        assert frames.get_shared_x_axes().joined(frames, bars[-1])
        assert [label.get_text() for label in bars[-1].get_xticklabels()] == ["0", "1", "2", "3"]


def test_labels_alone_need_no_legend_of_right_and_wrong(store: ClipStore) -> None:
    with figure(9, 4) as fig:
        assert all(axes.get_legend() is None for axes in draw_clip(fig, staged_clip(store, "-$x_1$")))


def test_the_title_says_what_is_padded_and_mute(store: ClipStore) -> None:
    clip = staged_clip(store, "mute")
    assert clip.title.startswith("mute  ·  1.0")
    assert "s padded" in clip.title
    assert clip.title.endswith("no audio in the file  ·  no labels")
    assert not clip.bars


def test_a_clip_with_a_length_of_its_own_ends_where_it_does(tmp_path: Path) -> None:
    make_clip(tmp_path / "short.mp4", seed=3, seconds=2)
    make_clip(tmp_path / "long.mp4", seed=4, seconds=4)
    own = {"longest_seconds": "4"}
    extract(tmp_path, tmp_path / "s.zarr", SMALL, format_settings=own, workers=1, segments=4, size=64)
    clip = staged_clip(ClipStore.open(tmp_path / "s.zarr"), "short")
    assert clip.segments == len(clip.log_mel) == len(clip.frames) == 2


def test_of_hundreds_of_events_the_first_are_drawn(tmp_path: Path) -> None:
    make_clip(tmp_path / "busy.mp4", seed=3)
    rows = [f"busy.mp4,Bark{number},{number % 2},2" for number in range(700)]
    (tmp_path / "events.csv").write_text("\n".join(["video,category,onset,offset", *rows]))
    store = tmp_path / "s.zarr"
    extract(tmp_path, store, SMALL, annotations=tmp_path / "events.csv", workers=1)
    clip = staged_clip(ClipStore.open(store), "busy")
    assert [bar.name for bar in clip.bars] == [f"Bark{k}\n{k % 2}-2 s" for k in range(40)]
    assert clip.title.endswith("the first 40 of 700 events")
    picture = matplotlib.image.imread(preview(store, "busy", tmp_path / "busy.png"))
    assert picture.shape[0] < 2**16


def test_what_cannot_be_shown_is_an_error(store: ClipStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a picture ends in \.png"):
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
