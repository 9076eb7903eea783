"""The page in a real browser: it loads from disk without errors, filters, seeks, and takes no markup."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from avel.heads.evaluation.compare import compare
from avel.heads.evaluation.evaluate import evaluate
from avel.heads.train import sweep, train_head
from avel.views.reading import read_run
from avel.views.report.page import put, report
from tests.chromium import console, phone
from tests.heads.parsing import longhand_labels, random_events, write_parsing_cache
from tests.views.made import CATEGORIES, IDS, Made, T, write_cache

pytestmark = pytest.mark.browser

WAIT_SECONDS = 20.0


@pytest.fixture(scope="module")
def folder(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of both runs, with its videos copied."""
    out = tmp_path_factory.mktemp("page") / "a report & more"
    report(made.runs, out, copy_videos=True, tsne=False)
    return out


@pytest.fixture
def page(driver: Any, folder: Path) -> Any:
    """The driver with the page loaded again."""
    driver.get("about:blank")
    console(driver)
    driver.get((folder / "index.html").as_uri())
    return driver


def until(driver: Any, script: str) -> Any:
    """Waits until a script's value is true, and gives it."""
    end = time.monotonic() + WAIT_SECONDS
    while not (value := driver.execute_script(script)):
        assert time.monotonic() < end, f"never true: {script}"
        time.sleep(0.05)
    return value


def choose(driver: Any, select: str, value: str) -> None:
    script = "const [id, value] = arguments; const s = document.getElementById(id); s.value = value;"
    driver.execute_script(script + "s.dispatchEvent(new Event('change'))", select, value)


def shown_samples(driver: Any) -> list[int]:
    """Numbers of the samples that pass the filters."""
    found: list[int] = driver.execute_script("return list.clips.map((clip) => avel.data.clips.sample[clip])")
    return found


def samples_where(
    made: Made, run: int, test: Callable[[int, int], bool], category: int | None = None
) -> list[int]:
    """Samples of test of which a segment of the first trial passes `test(label, prediction)`."""
    lines = pq.read_table(made.runs[run] / "predictions.parquet").to_pylist()
    own = [line for line in lines if line["trial"] == "seed=0" and line["split"] == "test"]
    of_class = {line["sample"] for line in own if category is None or line["label"] == category}
    own = [line for line in own if line["sample"] in of_class]
    return sorted({line["sample"] for line in own if test(line["label"], line["prediction"])})


def test_loads_from_disk_without_a_word_on_the_console(page: Any) -> None:
    until(page, "return document.querySelectorAll('.tracks .segments').length === 3")
    assert console(page) == []
    text = page.find_element("tag name", "body").text
    assert "2 runs · 8 clips · 4 classes and background" in text
    assert "always background" in text


def test_a_screenshot_shows_each_second_under_its_mark(page: Any) -> None:
    until(page, "return document.querySelectorAll('.tracks .segments').length === 3")
    until(page, "return [...document.images].every((image) => image.complete)")
    shot = Image.open(io.BytesIO(page.find_element("class name", "tracks").screenshot_as_png))
    place = """
        const tracks = document.querySelector('.tracks').getBoundingClientRect();
        const lanes = document.querySelector('.over').getBoundingClientRect();
        return [lanes.left - tracks.left, lanes.width];
    """
    left, width = page.execute_script(place)
    frames = [shot.getpixel((int(left + (second + 0.5) / T * width), 36)) for second in range(T)]
    assert [red for red, *_ in frames] == pytest.approx([40 * second for second in range(T)], abs=12)


def test_two_runs_stand_side_by_side_and_a_clip_they_differ_on_opens(page: Any, made: Made) -> None:
    found = compare(made.runs[1], made.runs[0])  # the page begins with the last run against the first
    rows = [row.text.split("\n") for row in page.find_elements("css selector", ".difference-row")]
    accuracy = found.differences["accuracy"]
    assert rows[0][0] == "segment accuracy"
    assert rows[0][-1].startswith(f"{accuracy.points:+.1f}".replace("-", "\N{MINUS SIGN}"))
    assert rows[0][-1].endswith("level") == accuracy.level
    assert not any("-" in row[-1] for row in rows)  # minus signs are of one kind
    told = page.find_element("css selector", "#compare .note").text
    assert told.endswith(f"it takes {accuracy.needed}." if accuracy.level else "points of accuracy.")
    choose(page, "compare-b", "1")
    assert "Choose two runs" in page.find_element("id", "compare").text
    choose(page, "compare-b", "0")
    most = max(abs(clip.a_percent - clip.b_percent) for clip in found.clips)
    cells = page.find_elements("css selector", "#compare tbody td")
    a, b = (float(cell.text.removesuffix(" %")) for cell in cells[1:3])
    assert abs(a - b) == pytest.approx(most, abs=1.01)  # both are rounded
    page.find_element("css selector", "#compare tbody button").click()
    until(page, "return document.querySelector('#clips h3 small')?.textContent.includes('sample')")


def test_an_address_with_a_clip_opens_it(driver: Any, folder: Path, made: Made) -> None:
    driver.get("about:blank")
    driver.get((folder / "index.html").as_uri() + "#clip=2&second=1")
    until(driver, "return document.querySelector('#clips h3 small')?.textContent.includes('sample 2,')")
    until(driver, "return player.seconds === 1")
    assert not console(driver)


def test_a_link_keeps_run_trial_filters_clip_and_second(page: Any, folder: Path) -> None:
    choose(page, "trial", "1")
    choose(page, "filter-run", "0")
    choose(page, "filter-mistakes", "wrong")
    clip = page.execute_script("selectClip(list.clips[list.clips.length - 1], 2); return list.selected")
    address = page.execute_script("return location.href")
    page.get("about:blank")
    page.get(address)
    shown = "return [avel.state.trial, filters.run, filters.mistakes, list.selected, player.seconds]"
    until(page, f"return player.clip === {clip}")
    assert page.execute_script(shown) == [1, 0, "wrong", clip, 2]
    assert page.find_element("id", "filter-mistakes").get_property("value") == "wrong"
    assert console(page) == []


def test_the_video_of_a_clip_before_does_not_move_the_playhead(page: Any) -> None:
    until(page, "return player.video && player.video.readyState > 1")
    page.execute_script("window.before = player.video; selectClip(list.clips[1], 1)")
    page.execute_script("before.currentTime = 3; before.dispatchEvent(new Event('seeking'))")
    assert page.execute_script("return player.seconds") == 1


def test_a_cell_of_the_confusion_opens_a_clip_at_the_second(page: Any) -> None:
    opened = """
        const cell = document.querySelector('#confusion td button');
        cell.click();
        const clip = list.selected, at = Math.round(player.seconds / avel.data.summary.segment_seconds);
        return [oneClass(avel.data.clips.label[clip][0][at]), oneClass(predicted(filters.run, clip)[0][at])];
    """
    assert page.execute_script(opened) == page.execute_script("return [filters.label, filters.prediction]")


def test_filters_find_where_runs_disagree_and_who_is_best(page: Any) -> None:
    choose(page, "filter-runs", "disagree")
    both = page.execute_script("return list.clips.map((clip) => [0, 1].map((run) => predicted(run, clip)))")
    assert both
    assert all(one != other for one, other in both)
    everywhere = page.execute_script(
        "return clipsOfSplit().map((clip) => [0, 1].map((r) => predicted(r, clip)))"
    )
    assert len(both) == sum(one != other for one, other in everywhere)
    choose(page, "filter-runs", "best-tacma")
    scores = "return list.clips.map((clip) => [0, 1].map((run) => chosenTrial('scores', run, clip)))"
    assert all(mlp < tacma for mlp, tacma in page.execute_script(scores))
    page.execute_script("showClips({ ...NO_FILTERS, text: 'no such clip' })")
    assert "No clip passes these filters" in page.find_element("id", "clips").text


def test_scores_of_classes_are_those_of_the_evaluation_and_sort(page: Any, made: Made) -> None:
    choose(page, "classes-run", "0")
    group = evaluate(made.runs[0]).groups["mlp"]
    row = "return [...document.querySelectorAll('#classes .sorted tbody tr')]"
    row += ".map((row) => [...row.children].map((cell) => cell.innerText))"
    found = {name: recall for name, _, _, recall, _ in page.execute_script(row)}
    recall = {**group.recall_percent, "background": group.background_recall_percent}
    assert found == {name: f"{value:.1f}" for name, value in recall.items()}
    page.execute_script("document.querySelectorAll('#classes .sort')[3].click()")
    recalls = [float(cells[3]) for cells in page.execute_script(row)]
    assert recalls == sorted(recalls, reverse=True)
    for order in (list(recall), list(recall)[::-1]):  # by class means in the order of the dataset
        page.execute_script("document.querySelectorAll('#classes .sort')[0].click()")
        assert [cells[0] for cells in page.execute_script(row)] == order
    events = page.execute_script("return avel.data.summary.runs[0].mistakes.test.events")
    assert events["events"] == 4  # one in each of the four clips of test
    assert f"{events['missed']:g}" in page.find_element("id", "classes").text


def test_a_class_has_one_colour_in_all_runs_of_a_clip(page: Any) -> None:
    until(page, "return document.querySelectorAll('.probability svg').length === 2")
    named = page.execute_script(
        "return [...document.querySelectorAll('.probability .legend span')]"
        ".map(each => [each.textContent, each.firstChild.style.borderTopColor])"
    )
    colour_of = dict(named)
    assert len(named) > len(colour_of) > 1, "no class is drawn of both runs"
    assert all(colour == colour_of[name] for name, colour in named)
    assert len(set(colour_of.values())) == len(colour_of)


def test_a_printed_page_keeps_figures_whole_and_leaves_controls_out(page: Any) -> None:
    until(page, "return document.querySelector('.map-box') !== null")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    style = "return [...document.querySelectorAll(arguments[0])].map(e => getComputedStyle(e)[arguments[1]])"
    try:
        assert set(page.execute_script(style, "nav, .saves, .choices, .list", "display")) == {"none"}
        assert set(page.execute_script(style, "figure, .track", "breakInside")) == {"avoid"}
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_figures_and_tracks_are_files(page: Any) -> None:
    until(page, "return document.querySelector('.probability svg') !== null")
    page.execute_script("window.saved = []; save = (name, text) => saved.push([name, text])")
    page.execute_script("for (const button of document.querySelectorAll('.save')) button.click()")
    saved = dict(page.execute_script("return saved"))
    assert {"confusion.csv", "loss.svg", "accuracy.svg", "difference.svg", "settings.csv"} <= set(saved)
    for name, text in saved.items():
        if name.endswith((".svg", ".eaf")):
            ElementTree.fromstring(text.encode())
    clip = page.execute_script("return avel.data.clips.video_id[avel.data.clips.video[player.clip]]")
    begin, end, name = saved[f"{clip}.txt"].splitlines()[0].split("\t")
    assert (float(begin), float(end)) == (1, 3)
    assert name in CATEGORIES
    assert "00:00:01.000 --> 00:00:03.000" in saved[f"{clip}.vtt"]
    eaf = ElementTree.fromstring(saved[f"{clip}.eaf"].encode())
    assert [tier.get("TIER_ID") for tier in eaf.iter("TIER")] == ["labels", "mlp", "tacma"]
    assert [slot.get("TIME_VALUE") for slot in eaf.iter("TIME_SLOT")][:2] == ["1000", "3000"]
    assert console(page) == []


def test_settings_that_differ_stand_apart(page: Any) -> None:
    section = page.find_element("id", "settings")
    rows = [
        row.text for row in section.find_elements("css selector", "table")[0].find_elements("tag name", "tr")
    ]
    assert rows[1] == "head mlp tacma"
    assert not any(row.startswith("batch_size") for row in rows)
    assert page.execute_script("return avel.data.summary.runs[0].provenance.features")


@pytest.mark.parametrize(
    "words", ["trial=-1&split=test", "trial=9&clip=", "show=constructor&runs=toString&clip=1"]
)
def test_a_link_with_wrong_words_opens_the_page_as_it_begins(page: Any, folder: Path, words: str) -> None:
    page.get("about:blank")
    page.get(f"{(folder / 'index.html').as_uri()}#{words}")
    until(page, "return document.querySelectorAll('.tracks .segments').length === 3")
    assert page.execute_script("return [avel.state.trial, filters.mistakes, filters.runs]") == [
        0,
        "all",
        "all",
    ]
    assert console(page) == []


def test_a_saved_figure_arrives_as_a_file(page: Any, tmp_path: Path) -> None:
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.execute_script("document.querySelector('#accuracy .save:nth-of-type(2)').click()")
    end = time.monotonic() + WAIT_SECONDS
    while not (tmp_path / "accuracy.csv").is_file():
        assert time.monotonic() < end
        time.sleep(0.05)
    lines = (tmp_path / "accuracy.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["run", "mlp", "tacma"]


CONTRASTS = """
const numbers = (text) => {
  const found = text.match(/[\\d.]+/g).map(Number);
  return text.startsWith("color") ? found.slice(0, 3) : found.slice(0, 3).map((value) => value / 255);
};
const luminance = (text) => {
  const linear = numbers(text).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const behind = (element) => {
  const colour = getComputedStyle(element).backgroundColor;
  return colour === "rgba(0, 0, 0, 0)" ? behind(element.parentElement) : colour;
};
const shown = ".bar, .segments b, .confusion button";
return [...document.querySelectorAll(shown)].map((element) => {
  const [one, other] = [luminance(getComputedStyle(element).color), luminance(behind(element))];
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
});
"""


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_on_colour_can_be_read(page: Any, mode: str) -> None:
    """Axe does not judge these, whose background is a gradient or lies under something else."""
    features = [{"name": "prefers-color-scheme", "value": mode}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    until(page, "return document.querySelectorAll('.tracks .segments').length === 3")
    for fraction in (1, 0.5, 0.1):  # as if each cell of the confusion held that fraction of its row
        cells = page.find_elements("css selector", ".confusion td")
        for cell in cells:
            page.execute_script("arguments[0].style.setProperty('--fraction', arguments[1])", cell, fraction)
        contrasts = page.execute_script(CONTRASTS)
        assert len(contrasts) > 10
        assert min(contrasts) >= 4.5


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_what_is_behind_it(page: Any, dark: bool) -> None:
    in_scheme(page, dark)
    script = (Path(__file__).parent / "contrast.js").read_text()
    low, texts = page.execute_script(script, 4.5)
    assert low == []
    assert len(page.execute_script(script, 21.1)[0]) == texts > 100, "the script measures nothing"


def in_scheme(page: Any, dark: bool) -> None:
    """Waits for the page to be drawn in light or dark colours."""
    value = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": value})
    until(page, "return document.querySelector('.probability svg') !== null")


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_serious(page: Any, dark: bool) -> None:
    axe = pytest.importorskip("axe_core_python", reason="no axe-core to check the page with")
    in_scheme(page, dark)
    page.execute_script((Path(axe.__file__).parent / "axe.min.js").read_text())
    found = page.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    serious = [each for each in found["violations"] if each["impact"] in ("serious", "critical")]
    assert [(each["id"], [node["html"][:120] for node in each["nodes"][:3]]) for each in serious] == []


def test_a_sweep_is_drawn_over_its_setting(
    driver: Any, made: Made, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sweep")
    options = {"head": "tacma", "epochs": 1, "seeds": 2, "d_h": 8, "device": "cpu"}
    sweep(made.cache, folder / "run", {"theta": [0, 0.03, 0.3], "routing": ["cross", "printed"]}, **options)
    report([folder / "run"], folder / "page", tsne=False)
    driver.get("about:blank")
    console(driver)
    driver.get((folder / "page" / "index.html").as_uri())
    until(driver, "return document.querySelectorAll('#sweeps svg').length === 2")
    captions = "return [...document.querySelectorAll('#sweeps figcaption')].map((item) => item.textContent)"
    assert driver.execute_script(captions) == [
        "routing: Values that each attention map multiplies",
        "θ: Decay of attention with time difference, Eq. 4",
    ]

    def drawn(chart: int, selector: str) -> list[str]:
        svg = f"document.querySelectorAll('#sweeps svg')[{chart}]"
        script = f"return [...{svg}.querySelectorAll('{selector}')].map((item) => item.textContent)"
        found: list[str] = driver.execute_script(script)
        return found

    assert [len(drawn(chart, "polyline")) for chart in (0, 1)] == [0, 2]
    assert [len(drawn(chart, ".seed")) for chart in (0, 1)] == [12, 12]
    assert drawn(1, ".tick[text-anchor=middle]") == ["0", "0.03", "0.3"]
    assert console(driver) == []


def test_hostile_names_are_shown_as_text(page: Any) -> None:
    until(page, "return document.querySelectorAll('.tracks .segments').length === 3")
    headings = page.execute_script(
        "return [...document.querySelectorAll('.upright')].map((th) => th.textContent)"
    )
    assert headings == [*CATEGORIES, "background"]
    names = page.execute_script("return [...document.querySelectorAll('.row b')].map((b) => b.textContent)")
    assert set(names) <= set(IDS)
    assert page.execute_script("return window.hacked === undefined")
    assert (
        page.execute_script("return document.querySelectorAll('img[onerror], body script:not([src])').length")
        == 0
    )


@pytest.mark.parametrize(
    ("mistakes", "test"),
    [
        ("wrong", lambda label, found: label != found),
        ("missed", lambda label, found: label < 4 and found == 4),
        ("invented", lambda label, found: label == 4 and found < 4),
        ("swapped", lambda label, found: label < 4 and found < 4 and label != found),
    ],
)
def test_filter_of_mistakes(page: Any, made: Made, mistakes: str, test: Callable[[int, int], bool]) -> None:
    choose(page, "filter-run", "0")
    choose(page, "filter-mistakes", mistakes)
    wanted = samples_where(made, 0, test)
    assert sorted(shown_samples(page)) == wanted
    assert page.find_element("class name", "count").text.startswith(f"{len(wanted)} of ")


def test_a_class_lists_its_clips_whatever_was_filtered_before(page: Any, made: Made) -> None:
    page.execute_script(
        "showClips({ text: 'no such video' }); document.querySelectorAll('#classes .link')[1].click()"
    )
    assert sorted(shown_samples(page)) == samples_where(made, 0, lambda label, found: True, category=1)


@pytest.mark.parametrize(("clip", "alike"), [("[0, 1]", True), ("[1, 0]", False)])
def test_tsne_panels_are_called_of_the_same_segments_only_if_they_are(
    page: Any, clip: str, alike: bool
) -> None:
    page.execute_script(f"""
        const one = {{ clip: [0, 1], segment: [0, 1], class: [0, 1], panels: [] }};
        avel.data.summary.clouds = [one, {{ ...one, clip: {clip} }}];
        drawClouds();
    """)
    text = page.execute_script("return document.getElementById('clouds').textContent")
    assert ("The same segments in each panel." in text) == alike


def test_filters_of_class_split_and_text(page: Any, made: Made) -> None:
    choose(page, "filter-category", "1")
    assert sorted(shown_samples(page)) == samples_where(made, 0, lambda label, found: True, category=1)
    choose(page, "filter-category", "")
    choose(page, "split", "val")
    assert shown_samples(page) == [2, 5, 8, 11]
    page.find_element("id", "filter-text").send_keys("DÜNE")
    ids = page.execute_script(
        "return list.clips.map((clip) => avel.data.clips.video_id[avel.data.clips.video[clip]])"
    )
    assert set(ids) == {"düne"}


def test_a_confusion_cell_counts_and_opens_its_clips(page: Any, made: Made) -> None:
    choose(page, "confusion-run", "0")
    lines = pq.read_table(made.runs[0] / "predictions.parquet").to_pylist()
    own = [line for line in lines if line["trial"] == "seed=0" and line["split"] == "test"]
    counts = page.execute_script("return countConfusion(0)")
    for label in range(5):
        for found in range(5):
            segments = [line for line in own if (line["label"], line["prediction"]) == (label, found)]
            assert counts[label][found] == len(segments)
    label, found = next((i, j) for i in range(5) for j in range(5) if counts[i][j])
    cell = page.find_elements("css selector", ".confusion tbody tr")[label].find_elements("tag name", "td")[
        found
    ]
    page.execute_script("arguments[0].querySelector('button').click()", cell)
    wanted = {line["sample"] for line in own if (line["label"], line["prediction"]) == (label, found)}
    assert set(shown_samples(page)) == wanted


def test_a_click_seeks_and_the_playhead_is_in_step(page: Any) -> None:
    until(page, "return player.video && player.video.readyState >= 1")
    click = """
        const lanes = document.querySelector('.over').getBoundingClientRect();
        const at = {bubbles: true, clientX: lanes.left + 0.625 * lanes.width, clientY: lanes.top + 4};
        document.querySelector('.tracks').dispatchEvent(new PointerEvent('pointerdown', at));
    """
    page.execute_script(click)
    assert page.execute_script("return player.video.currentTime") == pytest.approx(0.625 * T, abs=0.02)
    place = """
        const lanes = document.querySelector('.over').getBoundingClientRect();
        const head = document.querySelector('.playhead').getBoundingClientRect();
        return (head.left + head.width / 2 - lanes.left) / lanes.width;
    """
    assert page.execute_script(place) == pytest.approx(0.625, abs=0.01)
    assert until(page, "return document.querySelector('.readout').textContent").startswith("second 2 label")
    page.execute_script("player.video.currentTime = 3.5")
    until(page, "return document.querySelector('.readout').textContent.startsWith('second 3')")
    assert page.execute_script(place) == pytest.approx(3.5 / T, abs=0.01)
    assert console(page) == []


def test_the_playhead_follows_the_playing_video(page: Any) -> None:
    until(page, "return player.video && player.video.readyState >= 1")
    page.execute_script("player.video.muted = true; player.video.play()")
    until(page, "return player.video.currentTime > 0.3")
    at, now = page.execute_script(
        "return [player.head.style.getPropertyValue('--at'), player.video.currentTime]"
    )
    assert float(at) * T == pytest.approx(now, abs=0.3)


def test_attention_maps_of_tacma_mark_the_second_under_the_playhead(page: Any) -> None:
    until(page, "return document.querySelectorAll('.map').length === 2")
    assert (
        page.execute_script("return document.querySelectorAll('.map')[0].querySelectorAll('rect').length")
        == T * T + 1
    )
    page.execute_script("seek(2.2)")
    assert page.execute_script("return document.querySelector('.marked').getAttribute('y')") == "2"


def test_clips_without_labels_show_predictions_that_are_neither_right_nor_wrong(
    driver: Any, tmp_path: Path
) -> None:
    """Of the four test samples 1, 4, 7, 10 two have labels; then none has."""
    write_cache(tmp_path / "c.h5", tuple("abcd"), 12, {}, unknown=(1, 4))
    train_head(tmp_path / "c.h5", tmp_path / "some", head="mlp", epochs=2, device="cpu")
    report([tmp_path / "some"], tmp_path / "page", tsne=False)
    driver.get((tmp_path / "page" / "index.html").as_uri())
    assert driver.execute_script("return countConfusion(0).flat().reduce((sum, n) => sum + n, 0)") == 2 * T
    assert shown_samples(driver) == [1, 4, 7, 10]
    assert "events unknown" in driver.find_element("css selector", ".player h3").text
    assert driver.execute_script("return document.querySelectorAll('.tracks .segments').length") == 1
    assert driver.execute_script("return document.querySelectorAll('.tracks .wrong').length") == 0
    choose(driver, "filter-mistakes", "wrong")
    assert set(shown_samples(driver)) <= {7, 10}
    write_cache(tmp_path / "d.h5", tuple("abcd"), 12, {}, unknown=(1, 4, 7, 10))
    train_head(tmp_path / "d.h5", tmp_path / "none", head="mlp", epochs=2, device="cpu")
    report([tmp_path / "none"], tmp_path / "bare", tsne=False)
    driver.get((tmp_path / "bare" / "index.html").as_uri())
    assert "not evaluated: no labels" in driver.find_element("id", "accuracy").text
    for part in ("classes", "confusion"):
        text = driver.find_element("id", part).text
        assert "No clip of this split has known events." in text
        assert "null" not in text
    assert shown_samples(driver) == [1, 4, 7, 10]
    assert console(driver) == []


def test_tagged_samples_have_columns_of_their_own(page: Any, made: Made) -> None:
    group = evaluate(made.runs[0]).groups["mlp"]
    titles = page.execute_script(
        "return [...document.querySelectorAll('#accuracy th')].map(e => e.innerText)"
    )
    for tag, found in group.by_tag.items():
        assert {f"accuracy, {tag}", f"event F1, {tag}"} <= set(titles)
        assert f"{found.accuracy_percent.mean:.1f}" in page.find_element("id", "accuracy").text
    assert len(group.by_tag) == 3
    assert console(page) == []


def test_two_tracks_show_several_events_at_once(driver: Any, tmp_path: Path) -> None:
    write_parsing_cache(tmp_path / "c.h5", weak_train=False)
    train_head(tmp_path / "c.h5", tmp_path / "mlp", head="mlp", epochs=20, device="cpu")
    report([tmp_path / "mlp"], tmp_path / "page", tsne=False)
    driver.get((tmp_path / "page" / "index.html").as_uri())
    until(driver, "return document.querySelectorAll('.tracks .segments').length === 4")
    names = driver.execute_script("return [...document.querySelectorAll('.track-name')].map((n) => n.title)")
    assert names == ["label, audio", "label, visual", "mlp, audio", "mlp, visual", "p of mlp", "seconds"]
    assert driver.find_element("css selector", "#accuracy h2").text == "Type@AV F1 of segments"
    assert "audio-visual, events" in driver.find_element("id", "accuracy").text
    assert not driver.find_element("id", "confusion").is_displayed()
    labels = longhand_labels(random_events())
    shown = "return avel.data.clips.label.map((tracks) => tracks.map((t) => t.map((held) => held.length)))"
    counts = np.array(driver.execute_script(shown))  # of val and test clips
    numbers = driver.execute_script("return avel.data.clips.sample")
    np.testing.assert_array_equal(counts, labels[numbers].sum(-1).transpose(0, 2, 1))
    clip = int(np.argmax(counts.max((1, 2))))  # two events at once, or more
    driver.execute_script("openClip(arguments[0])", clip)
    lanes = driver.execute_script(
        "return [...document.querySelectorAll('.truth')].map((bar) => +bar.style.getPropertyValue('--lanes'))"
    )
    assert max(lanes) >= counts[clip].max() >= 2
    drawn = "return [...timelineDrawing(sourcesOf(player.clip)).querySelectorAll('rect')]"
    places = ".map((box) => ['y', 'x', 'width'].map((name) => +box.getAttribute(name)))"
    boxes = driver.execute_script(drawn + places)
    pairs = itertools.pairwise(sorted(boxes))
    assert all(one[0] < other[0] or one[1] + one[2] <= other[1] for one, other in pairs), "none hides another"
    own = labels[numbers[clip]][:, 0]
    until(driver, "return document.querySelector('.readout div:nth-child(2)')")
    said = driver.execute_script("seek(0.5); return document.querySelector('.readout div').textContent")
    held = " and ".join(np.array(["bark", "bell", "saw"])[own[0] == 1]) or "background"
    assert f"audio {held}, visual" in said
    choose(driver, "filter-mistakes", "wrong")
    run = read_run(tmp_path / "mlp")
    split = driver.execute_script("return avel.state.split")
    wrong = ~run.task.right(run.prediction[0], run.label).all(1) & (run.split == split)
    assert sorted(shown_samples(driver)) == sorted(run.number[wrong].tolist())
    scores = dict(
        zip(run.number.tolist(), run.task.sample_scores(run.prediction[0], run.label).tolist(), strict=True)
    )
    choose(driver, "filter-order", "wrong")
    in_order = [scores[number] for number in shown_samples(driver)]
    assert in_order == sorted(in_order)
    # Of the classes of a segment, in labels or predictions of either track, those in both
    part = "return rightParts([[[0, 1], []], [[2], []]], [[[1], [2]], [[2], []]])"
    assert driver.execute_script(part) == [pytest.approx(2 / 3), 0]
    assert console(driver) == []


def test_thousands_of_clips_stay_a_few_rows(driver: Any, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    put(tmp_path, "clips", tiled(folder / "data" / "clips.js", 600))
    driver.get((tmp_path / "index.html").as_uri())
    assert driver.execute_script("return list.clips.length") == 2400
    scroll = (
        "list.scroller.scrollTop = arguments[0]; paintList(); return document.querySelectorAll('.row').length"
    )
    began = time.monotonic()
    counts = [driver.execute_script(scroll, top) for top in range(0, 140_000, 7_000)]
    assert max(counts) <= 40
    assert time.monotonic() - began < 10
    first = driver.execute_script("return Number(document.querySelector('.row').dataset.clip)")
    assert first > 2000
    choose(driver, "filter-order", "wrong")
    choose(driver, "filter-mistakes", "wrong")


def tiled(path: Path, times: int) -> dict[str, Any]:
    """The clips of a report, many times over."""
    clips = json.loads(path.read_text().removeprefix('avel.put("clips", ').removesuffix(");\n"))
    for name in ("video", "title", "split", "label"):
        clips[name] *= times
    clips["sample"] = list(range(len(clips["sample"]) * times))
    for name in ("predictions", "scores"):
        clips[name] = [[trial * times for trial in run] for run in clips[name]]
    return clips


def test_a_phone_needs_no_sideways_scrolling(page: Any) -> None:
    phone(page)
    until(page, "return innerWidth === 390")
    assert page.execute_script("return document.documentElement.scrollWidth") <= 390
    until(page, "return player.video && player.video.readyState >= 1")
    lane = page.execute_script("return document.querySelector('.lane').getBoundingClientRect().width")
    assert lane > 340
    drawn = "return document.querySelector('.difference-row .bar-track').getBoundingClientRect().width"
    assert page.execute_script(drawn) > 340
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert console(page) == []


def test_epochs_on_the_axis_of_curves_are_whole_numbers(page: Any) -> None:
    ticks = "[...document.querySelectorAll('#curves .tick[text-anchor=middle]')].map(e => e.textContent)"
    assert page.execute_script(f"return {ticks}") == ["1", "2", "3"] * 3
