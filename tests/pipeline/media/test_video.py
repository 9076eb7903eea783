"""Each slot of the grid shows the picture that is on screen then, whatever the file does with time."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from avel.grid import Grid
from avel.pipeline.media import scan as scan_module
from avel.pipeline.media.reading import open_media
from avel.pipeline.media.refusal import ClipRefused
from avel.stores.jpeg import decode_jpeg, encode_jpeg
from tests.media import Film, compose, number_picture, read_number, remux, steady, turn, uneven, unstamp
from tests.pipeline.media.reading import on_screen, read

NTSC = Fraction(30000, 1001)
FRAME = Fraction(1, 25)
PRIMING = Fraction(2090, 90000)
"""1024 samples of AAC before the sound proper, in MPEG-TS presented, and first: the clip begins there."""

X265 = {"preset": "ultrafast", "x265-params": "log-level=none"}
VPX = {"cpu-used": "8", "deadline": "realtime"}
BASE = Film(steady(25))

CASES: dict[str, tuple[str, Film, Fraction]] = {
    # name: suffix, film, and by how much the container presents the pictures later than composed
    "25 fps": ("mp4", BASE, Fraction(0)),
    "29.97 fps": ("mp4", Film(steady(NTSC)), Fraction(0)),
    "30 fps": ("mp4", Film(steady(30)), Fraction(0)),
    "60 fps": ("mp4", Film(steady(60)), Fraction(0)),
    "slower than the grid": ("mp4", Film(steady(Fraction(15, 2))), Fraction(0)),
    "1 fps": ("mp4", Film(steady(1)), Fraction(0)),
    "variable": ("mp4", Film(uneven()), Fraction(0)),
    "variable, B pyramid": ("mp4", Film(uneven(seed=1), options={"bf": "7", "b_strategy": "2"}), Fraction(0)),
    "many B pictures": ("mp4", replace(BASE, options={"x264-params": "bframes=16:b-adapt=0"}), Fraction(0)),
    "no B pictures": ("mp4", replace(BASE, options={"bf": "0"}), Fraction(0)),
    "open GOPs": ("mp4", replace(BASE, options={"x264-params": "open-gop=1:keyint=20"}), Fraction(0)),
    "interlaced": ("mp4", replace(BASE, options={"x264-params": "interlaced=1"}), Fraction(0)),
    "10 bit": ("mp4", replace(BASE, pixel_format="yuv420p10le"), Fraction(0)),
    "odd size": ("mkv", replace(BASE, width=131, height=77, codec="ffv1"), Fraction(0)),
    "tall": ("mp4", replace(BASE, width=34, height=420), Fraction(0)),
    "late picture": ("mp4", Film(steady(25, start=Fraction(1, 2))), Fraction(0)),
    "late sound": ("mp4", replace(BASE, sound_start=Fraction(1, 2)), Fraction(0)),
    "no sound": ("mp4", replace(BASE, clicks=None), Fraction(0)),
    "longer": ("mp4", Film(steady(25, 14)), Fraction(0)),
    "shorter": ("mp4", Film(steady(25, Fraction(23, 10)), sound_seconds=2.3, clicks=(0.5,)), Fraction(0)),
    "fragments": ("mp4", replace(BASE, form={"movflags": "frag_keyframe+empty_moov"}), 2 * FRAME),
    "no edit list": ("mp4", replace(BASE, form={"use_editlist": "0"}), 2 * FRAME),
    "Matroska": ("mkv", BASE, Fraction(0)),
    "Matroska, late picture": ("mkv", Film(steady(25, start=Fraction(1, 2))), Fraction(0)),
    "MPEG-TS": ("ts", BASE, PRIMING),
    "MPEG-TS without sound": ("ts", replace(BASE, clicks=None), Fraction(0)),
    "FLV": ("flv", BASE, Fraction(23, 1000)),
    "HEVC": ("mp4", replace(BASE, codec="libx265", options=X265), Fraction(0)),
    "VP9": (
        "webm",
        replace(BASE, codec="libvpx-vp9", options=VPX, sound_codec="libopus", hz=48000),
        Fraction(0),
    ),
    "AVI, H.264": ("avi", replace(BASE, tick=FRAME), Fraction(0)),
    "AVI, MPEG-4": (
        "avi",
        replace(BASE, codec="mpeg4", options={"bf": "2"}, tick=FRAME, sound_codec="pcm_s16le"),
        Fraction(0),
    ),
    "Motion JPEG": ("mov", replace(BASE, codec="mjpeg", pixel_format="yuvj420p"), Fraction(0)),
}


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> "dict[str, Path]":
    """The films of CASES, each composed when it is first asked for."""
    folder = tmp_path_factory.mktemp("films")

    class Films(dict):
        def __missing__(self, name: str) -> Path:
            suffix, film, _ = CASES[name]
            self[name] = compose(folder / f"{len(self)}.{suffix}", film)
            return self[name]

    return Films()


@pytest.mark.parametrize("name", CASES)
def test_every_slot_shows_the_picture_on_screen(composed: "dict[str, Path]", name: str) -> None:
    film, later = CASES[name][1:]
    frames, samples, info = read(composed[name])
    assert len(frames) == 160
    assert len(samples) == 160000
    assert [read_number(frame) for frame in frames] == on_screen([time + later for time in film.times])
    assert info.damage == ""


@pytest.mark.parametrize("name", ["25 fps", "variable, B pyramid", "MPEG-TS", "HEVC", "late picture"])
def test_a_film_that_is_read_twice_from_disk_gives_the_same(
    composed: "dict[str, Path]", name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = read(composed[name])
    monkeypatch.setattr(scan_module, "HELD_BYTES", 1000)
    streamed = read(composed[name])
    np.testing.assert_array_equal(held[0], streamed[0])
    np.testing.assert_array_equal(held[1], streamed[1])
    assert held[2] == streamed[2]


def test_frames_come_in_chunks_and_can_be_read_again(composed: "dict[str, Path]") -> None:
    grid = Grid(segments=23, segment_seconds=0.5, size=16)
    with open_media(composed["longer"], grid) as media:
        first = list(media.frames())
        again = list(media.frames(1))
        sound = [len(chunk) for chunk in media.samples()]
    assert [len(chunk) for chunk in first] == [80, 80, 24]
    assert [len(chunk) for chunk in again] == [8] * 23
    assert sound == [80000, 80000, 24000]
    np.testing.assert_array_equal(np.concatenate(first), np.concatenate(again))
    longer = Grid(segments=12, segment_seconds=1.0, size=16)
    whole = read(composed["longer"], longer)[0]
    np.testing.assert_array_equal(np.concatenate(first), whole[:184])


def test_the_end_of_a_short_film_is_held_and_its_length_recorded(composed: "dict[str, Path]") -> None:
    frames, samples, info = read(composed["shorter"])
    assert info.valid_seconds == pytest.approx(2.3, abs=0.03)
    assert (frames[40:] == frames[39]).all()
    assert not samples[int(2.4 * 16000) :].any()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (400, 2)])
def test_pictures_of_any_size_fill_the_square(tmp_path: Path, size: tuple[int, int]) -> None:
    width, height = size
    film = Film(
        steady(25, 1),
        width,
        height,
        pixel_format="yuv444p",
        options={"qp": "0"},
        paint=lambda number, high, wide: np.full((high, wide, 3), 10 * number, np.uint8),
        clicks=None,
    )
    frames = read(compose(tmp_path / "tiny.mp4", film))[0]
    levels = frames.astype(int).reshape(160, -1)
    assert np.ptp(levels, axis=1).max() <= 2
    assert abs(levels[:, 0] - 10 * np.array(on_screen(film.times))).max() <= 2


TURNS = {
    # the matrix, and what undoes it: how the picture must be stored to come out upright
    "quarter turn": ((0, 1, -1, 0), lambda picture: np.rot90(picture, 1)),
    "half turn": ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    "three quarters": ((0, -1, 1, 0), lambda picture: np.rot90(picture, 3)),
    "mirror": ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda picture: picture[::-1]),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
    "no turn at all": ((0, 0, 0, 0), lambda picture: picture),
}


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_the_display_matrix_is_applied(tmp_path: Path, name: str, resize: str) -> None:
    matrix, undo = TURNS[name]
    film = Film(
        steady(25, 2),
        96,
        96,
        paint=lambda number, high, wide: np.ascontiguousarray(undo(number_picture(number, high, wide))),
        clicks=None,
    )
    path = turn(compose(tmp_path / "turned.mp4", film), *matrix)
    frames = read(path, resize=resize)[0]
    assert [read_number(frame) for frame in frames] == on_screen(film.times)


@pytest.mark.parametrize(("width", "height"), [(256, 96), (96, 256), (128, 128)])
def test_crop_keeps_the_middle_square(tmp_path: Path, width: int, height: int) -> None:
    side = min(width, height)
    top, left = (height - side) // 2, (width - side) // 2

    def middle(number: int, high: int, wide: int) -> np.ndarray:
        picture = np.full((high, wide, 3), 128, np.uint8)
        picture[top : top + side, left : left + side] = number_picture(number, side, side)
        return picture

    path = compose(tmp_path / "wide.mp4", Film(steady(25, 2), width, height, paint=middle, clicks=None))
    frames = read(path, resize="crop")[0]
    assert [read_number(frame) for frame in frames] == on_screen(steady(25, 2))
    border = frames[0, 4:12, 2].astype(int)  # the marked corner reaches the very edge
    assert border.min() > 200


MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 2: (0.299, 0.114)}
"""K_r and K_b of BT.709, BT.601, and of what is not tagged, by FFmpeg's number."""


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_follow_the_files_matrix_and_range(tmp_path: Path, matrix: int, full_range: bool) -> None:
    red, green, blue = 200, 60, 40
    k_r, k_b = MATRICES[matrix]
    luma = k_r * red + (1 - k_r - k_b) * green + k_b * blue
    chroma_b, chroma_r = (blue - luma) / (2 - 2 * k_b), (red - luma) / (2 - 2 * k_r)
    scale, offset, spread = (1, 0, 1) if full_range else (219 / 255, 16, 224 / 255)
    levels = [offset + scale * luma, 128 + spread * chroma_b, 128 + spread * chroma_r]
    film = Film(
        steady(25, 1),
        64,
        48,
        pixel_format="yuv444p",
        options={"qp": "0"},
        paint=lambda number, high, wide: np.full((3, high, wide), np.round(levels)[:, None, None], np.uint8),
        paint_format="yuv444p",
        colour=(matrix, 2 if full_range else 1),
        clicks=None,
    )
    frames = read(compose(tmp_path / "colour.mp4", film))[0]
    assert abs(frames[80].astype(int) - [red, green, blue]).max() <= 2


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("red_green_blue", [(200, 60, 40), (255, 255, 255), (0, 0, 0), (20, 30, 220)])
def test_range_and_depth_survive_the_way_to_jpeg(
    tmp_path: Path, full_range: bool, bits: int, red_green_blue: tuple[int, int, int]
) -> None:
    red, green, blue = red_green_blue
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma_b, chroma_r = (blue - luma) / 1.772, (red - luma) / 1.402
    steps = 2 ** (bits - 8)
    if full_range:
        top = 2**bits - 1
        levels = [luma / 255 * top, 128 * steps + chroma_b / 255 * top, 128 * steps + chroma_r / 255 * top]
    else:
        levels = [
            (16 + 219 / 255 * luma) * steps,
            (128 + 224 / 255 * chroma_b) * steps,
            (128 + 224 / 255 * chroma_r) * steps,
        ]

    def flat(number: int, height: int, width: int) -> np.ndarray:
        sizes = height * width, height * width // 4, height * width // 4
        planes = [np.full(size, np.round(level)) for size, level in zip(sizes, levels, strict=True)]
        kind = np.uint8 if bits == 8 else np.uint16
        return np.concatenate(planes).astype(kind).reshape(-1, width)

    form = "yuv420p" if bits == 8 else "yuv420p10le"
    colour = (2, 1 + full_range)
    film = Film(steady(25, 1), 64, 48, pixel_format=form, options={"qp": "0"}, paint=flat, paint_format=form)
    path = compose(tmp_path / "flat.mp4", replace(film, colour=colour, clicks=None))
    with open_media(path, Grid(), for_jpeg=True) as media:
        assert media.colours == "i420"
        picture = decode_jpeg(encode_jpeg(next(media.frames())[4], 96, "i420")).astype(int)
    assert abs(picture - red_green_blue).max() <= 3


SITES = {"left": (0.5, 1), "center": (1, 1), "topleft": (0.5, 0.5), "top": (1, 0.5)}
SITES |= {"bottomleft": (0.5, 1.5), "bottom": (1, 1.5)}
"""Where the first chroma sample of 4:2:0 lies, pixels across and down; in the order of x264's numbers."""


def waves(number: int, height: int, width: int, site: tuple[float, float] = SITES["left"]) -> np.ndarray:
    """Eight waves of blue across and down, as planes of 4:2:0."""
    x, y = 2 * np.arange(width // 2) + site[0], 2 * np.arange(height // 2) + site[1]
    swing = np.sin(2 * np.pi * 8 * x / width) + np.sin(2 * np.pi * 8 * y / height)[:, None]
    planes = np.full((height, width), 128), 128 + 40 * swing, np.full_like(swing, 128)
    return np.concatenate([plane.ravel() for plane in planes]).round().astype(np.uint8).reshape(-1, width)


WAVES = Film(steady(25, 1), 640, 480, paint=waves, paint_format="yuv420p", options={"qp": "0"}, clicks=None)


def blue_is_off_by(path: Path, *, for_jpeg: bool, colours: str) -> float:
    """By how many pixels the waves lie elsewhere than they were painted, the worse of across and down."""
    with open_media(path, Grid(), for_jpeg=for_jpeg) as media:
        assert media.colours == colours
        frame = next(media.frames())[4]
        blue = decode_jpeg(encode_jpeg(frame, 96, media.colours))[:, :, 2].astype(float)
    truth = np.fft.rfft(np.sin(2 * np.pi * 8 * (np.arange(256) + 0.5) / 256))[8]
    angles = [np.angle(np.fft.rfft(blue.mean(side))[8] / truth) for side in (0, 1)]
    return max(abs(angle) / (2 * np.pi * 8) * 256 for angle in angles)


@pytest.mark.parametrize(("for_jpeg", "matrix"), [(False, 1), (False, 2), (True, 1), (True, 2)])
@pytest.mark.parametrize("full_range", [False, True])
def test_colour_lies_where_the_picture_lies(
    tmp_path: Path, for_jpeg: bool, matrix: int, full_range: bool
) -> None:
    path = compose(tmp_path / "waves.mp4", replace(WAVES, colour=(matrix, 1 + full_range)))
    colours = "i420" if for_jpeg and matrix == 2 else "rgb"
    assert blue_is_off_by(path, for_jpeg=for_jpeg, colours=colours) < 0.06


@pytest.mark.parametrize("for_jpeg", [False, True])
@pytest.mark.parametrize("site", SITES)
def test_colour_lies_where_its_tag_says(tmp_path: Path, site: str, for_jpeg: bool) -> None:
    tagged = WAVES.options | {"x264-params": f"chromaloc={list(SITES).index(site)}"}
    film = replace(WAVES, paint=partial(waves, site=SITES[site]), options=tagged)
    path = compose(tmp_path / "waves.mp4", film)
    assert blue_is_off_by(path, for_jpeg=for_jpeg, colours="i420" if for_jpeg else "rgb") < 0.06


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_on_the_way_to_jpeg_pictures_turn_alike(tmp_path: Path, name: str, resize: str) -> None:
    path = turn(compose(tmp_path / "turned.mp4", replace(WAVES, height=360)), *TURNS[name][0])
    shown = []
    for for_jpeg in (False, True):
        with open_media(path, Grid(size=250), resize=resize, for_jpeg=for_jpeg) as media:
            frame = next(media.frames(1))[4]
            shown.append(decode_jpeg(encode_jpeg(frame, 96, media.colours)).astype(float))
    assert abs(shown[0] - shown[1]).mean() < 2


def test_a_stream_may_change_its_size_and_range(tmp_path: Path) -> None:
    parts = [
        replace(WAVES, colour=(2, 1)),
        replace(WAVES, colour=(2, 2), width=320, height=360, times=steady(25, 1, start=Fraction(1))),
    ]
    files = [compose(tmp_path / f"{number}.ts", film).read_bytes() for number, film in enumerate(parts)]
    (tmp_path / "both.ts").write_bytes(b"".join(files))
    shown = []
    for for_jpeg in (False, True):
        with open_media(tmp_path / "both.ts", Grid(), for_jpeg=for_jpeg) as media:
            files = [encode_jpeg(chunk[8], 96, media.colours) for chunk in media.frames(1)][:2]
        shown.append(np.stack([decode_jpeg(file) for file in files]).astype(float))
    reds = shown[1][..., 0].mean((1, 2))  # made of luma alone here, 128 of 16 to 235 and of 0 to 255
    assert reds == pytest.approx([(128 - 16) * 255 / 219, 128], abs=1.5)
    assert abs(shown[0] - shown[1]).mean() < 2


@pytest.mark.parametrize("kept", [lambda n: n != 120, lambda n: n % 2 == 0, lambda n: n % 12 == 0])
def test_pictures_without_a_time_stamp_follow_the_one_before(
    tmp_path: Path, kept: Callable[[int], bool]
) -> None:
    film = replace(BASE, tick=FRAME)  # so that the codec knows the usual step
    path = compose(tmp_path / "whole.ts", film)
    path = unstamp(path, tmp_path / "bare.ts", lambda number: not kept(number))
    frames, _, info = read(path)
    assert [read_number(frame) for frame in frames] == on_screen([time + PRIMING for time in BASE.times])
    bare = sum(not kept(number) for number in range(len(BASE.times)))
    assert info.damage == f"picture packets without a time: {bare}"


def test_pictures_before_an_edit_list_are_decoded_and_not_shown(
    composed: "dict[str, Path]", tmp_path: Path
) -> None:
    cut = remux(composed["25 fps"], tmp_path / "cut.mp4", Fraction(3, 2))
    frames, samples, info = read(cut)
    numbers = np.array([read_number(frame) for frame in frames])
    # picture 37 straddles the cut; libavformat leaves it out and moves the rest by less than one picture
    expected = np.array(on_screen([time - Fraction(3, 2) for time in steady(25)]))
    assert numbers[0] == 38
    assert set((numbers - expected).tolist()) <= {0, 1}
    assert info.valid_seconds == pytest.approx(8.9, abs=0.03)
    assert abs(samples[int(2.5 * 16000) - 8 : int(2.5 * 16000) + 8]).max() > 0.5


def test_a_picture_stream_that_starts_after_the_grid_is_no_video(tmp_path: Path) -> None:
    film = Film(steady(25, 1, start=Fraction(12)))
    path = compose(tmp_path / "after.mp4", film)
    with pytest.raises(ClipRefused, match="the picture starts 12"):
        read(path)
