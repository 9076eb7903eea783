"""Several labels a segment: targets, losses, points and blocks against what is written out by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from avel.heads.tasks.choose import choose_task
from avel.heads.tasks.multi_label import MultiLabel
from avel.heads.tasks.task import Block
from avel.stores.features import FeatureCache
from tests.heads.parsing import SAMPLES, C, T, longhand_labels, random_events, write_parsing_cache
from tests.heads.synthetic import write_cache

TASK = MultiLabel(("bark", "bell"), ("audio", "visual"))


def test_targets_are_those_of_the_events_or_of_the_classes_that_are_known(tmp_path: Path) -> None:
    events = random_events()
    cache = FeatureCache.open(write_parsing_cache(tmp_path / "c.h5", events=events))
    task = choose_task(cache, "auto")
    assert (task.name, task.tracks, task.outputs) == ("multi_label", ("audio", "visual"), 2 * C)
    targets = task.targets(cache, cache.samples)
    labels = longhand_labels(events)
    assert targets.labels[36:].tolist() == labels[36:].reshape(-1, T, 2 * C).tolist()
    assert (targets.labels[:36] == -1).all()
    held = [[int((events.category[events.sample == r] == c).any()) for c in range(C)] for r in range(SAMPLES)]
    assert targets.video_labels.tolist() == held
    assert targets.has_video_label.all()
    some = cache.samples.take(np.array([50, 3]))
    assert task.targets(cache, some).video_labels.tolist() == [held[50], held[3]]


def test_events_of_both_modalities_have_one_track(tmp_path: Path) -> None:
    cache = FeatureCache.open(write_cache(tmp_path / "c.h5"))
    assert choose_task(cache, "auto").name == "single_label"
    task = choose_task(cache, "multi_label")
    assert (task.tracks, task.outputs) == (("",), 3)
    labels = cache.labels()
    targets = task.targets(cache, cache.samples)
    assert targets.labels.tolist() == np.eye(4, dtype=int)[labels][..., :3].tolist()


def test_losses_are_binary_cross_entropies_written_out() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, generator=random, dtype=torch.float64)
    labels = torch.randint(0, 2, (2, 3, 4), generator=random)
    p, total = torch.sigmoid(logits).numpy(), 0.0
    for index, wanted in np.ndenumerate(labels.numpy()):
        total -= np.log(p[index]) if wanted else np.log(1 - p[index])
    assert TASK.loss(logits, labels).item() == pytest.approx(total / 24)
    video_labels, total = torch.tensor([[1, 0], [1, 1]]), 0.0
    for clip in range(2):
        for number in range(2):
            said = [p[clip, t, track * 2 + number] for t in range(3) for track in range(2)]
            pooled = sum(value**2 for value in said) / sum(said)
            total -= np.log(pooled if video_labels[clip, number] else 1 - pooled)
    assert TASK.video_loss(logits, video_labels).item() == pytest.approx(total / 4)


def test_points_are_type_f1_of_what_the_threshold_gives() -> None:
    random = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 5, 6, 4, generator=random)  # of 3 trials
    labels = torch.randint(0, 2, (5, 6, 4), generator=random)
    decoded = TASK.decode(TASK.probabilities(logits).flatten(0, 1).numpy()).reshape(3, 5, 6, 4)
    for trial in range(3):
        wanted = TASK.sample_scores(decoded[trial], labels.numpy())
        assert TASK.points(logits, labels)[trial].tolist() == pytest.approx(wanted.tolist())
        assert wanted.tolist() == TASK.f1_by_type(decoded[trial], labels.numpy())[0]["Type@AV"].tolist()
    perfect = (labels.double() - 0.5) * 10
    assert TASK.points(perfect, labels).tolist() == [1.0] * 5


def test_each_track_has_blocks_that_lie_in_lanes_where_events_overlap() -> None:
    audio = [[1, 0], [1, 1], [0, 1], [0, 0]]
    visual = [[0, 0], [0, 1], [0, 1], [0, 0]]
    labels = np.concatenate([audio, visual], axis=1)
    assert TASK.blocks(labels) == [
        (Block(0, 2, "label", "bark"), Block(1, 3, "label", "bell", 1), Block(3, 4, "background", "bg")),
        (Block(0, 1, "background", "bg"), Block(1, 3, "label", "bell"), Block(3, 4, "background", "bg")),
    ]
    predicted = np.array([[1, 0, 1, 0], [1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    blocks_a, blocks_v = TASK.blocks(predicted, labels)
    assert blocks_a == (
        Block(0, 2, "right", "bark"),
        Block(2, 3, "wrong", "bark"),
        Block(2, 3, "right", "bell", 1),
        Block(3, 4, "background", "bg"),
    )
    assert blocks_v == (
        Block(0, 1, "wrong", "bark"),
        Block(1, 2, "right", "bell"),
        Block(2, 3, "wrong", "bg"),
        Block(3, 4, "background", "bg"),
    )
    assert TASK.title(labels) == "bark, bell"
    assert TASK.blocks(np.full((4, 4), -1)) == [(), ()]
    assert TASK.shown_classes(labels[None]).tolist() == [[0, 0, 1, 2]]


def test_baselines_say_nothing_or_the_clips_classes_everywhere() -> None:
    labels = np.zeros((2, 4, 4), int)
    labels[0, :2, 0] = 1  # one bark, heard in half of the clip; the other clip is empty
    found = TASK.trivial_baselines(labels)
    assert found["never any event"] == pytest.approx((2 / 3 + 1) / 2)
    # audio: 2 of 4 found, 2/3; visual and both: invented
    assert found["right classes, always and everywhere"] == pytest.approx(((2 / 3) / 3 + 1) / 2)


def test_labels_that_teach_nothing_are_named() -> None:
    some = torch.tensor([[1, 0], [0, 0]])
    assert TASK.obstacle(some) == ""
    assert TASK.obstacle(some * 0) == "no event"
    assert TASK.obstacle(some * 0 + 1) == "every class everywhere"


def test_a_video_scores_how_likely_its_classes_are() -> None:
    """By hand for each clip: p^2 summed over p summed, in both tracks and all segments."""
    logits = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = torch.tensor([[1, 0], [1, 1], [0, 0]])
    found = TASK.video_points(logits, wanted)
    for clip in range(3):
        likely = 1.0
        for number in range(2):
            p = [
                1 / (1 + np.exp(-logits[clip, t, track * 2 + number].item()))
                for t in range(4)
                for track in (0, 1)
            ]
            held = sum(each**2 for each in p) / sum(p)
            likely *= float(held if wanted[clip, number] else 1 - held)
        assert found[clip].item() == pytest.approx(likely**0.5, rel=1e-5)
    stacked = TASK.video_points(torch.stack((logits, logits.roll(1, 0))), wanted)
    torch.testing.assert_close(stacked[0], found)
