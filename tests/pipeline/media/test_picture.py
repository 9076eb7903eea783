"""A picture comes out upright, whole, and with every colour where it belongs."""

from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from avel.grid import Grid
from avel.pipeline.media.picture import Resize
from avel.pipeline.media.reading import open_media
from avel.stores.jpeg import decode_jpeg, encode_jpeg
from tests.media import Film, compose, number_picture, read_number, steady, turn
from tests.pipeline.media.reading import on_screen, read


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


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_a_stream_may_change_its_size_and_range(tmp_path: Path, resize: Resize) -> None:
    parts = [
        replace(WAVES, colour=(2, 1)),
        replace(WAVES, colour=(2, 2), width=320, height=360, times=steady(25, 1, start=Fraction(1))),
    ]
    files = [compose(tmp_path / f"{number}.ts", film).read_bytes() for number, film in enumerate(parts)]
    (tmp_path / "both.ts").write_bytes(b"".join(files))
    shown = []
    for for_jpeg in (False, True):
        with open_media(tmp_path / "both.ts", Grid(), resize=resize, for_jpeg=for_jpeg) as media:
            files = [encode_jpeg(chunk[8], 96, media.colours) for chunk in media.frames(1)][:2]
        shown.append(np.stack([decode_jpeg(file) for file in files]).astype(float))
    reds = shown[1][..., 0].mean((1, 2))  # made of luma alone here, 128 of 16 to 235 and of 0 to 255
    assert reds == pytest.approx([(128 - 16) * 255 / 219, 128], abs=1.5)
    assert abs(shown[0] - shown[1]).mean() < 2
