"""A clip that crashes, hangs or swells its decoder takes down itself only."""

import ctypes
import errno
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from avel.errors import StaleError
from avel.pipeline.config import ExtractConfig
from avel.pipeline.staging.isolate import Isolated, IsolationError
from avel.pipeline.staging.plan import RestageOptions, make_plan
from avel.stores.clip_writer import prepare_store
from avel.stores.datasets.dataset import Dataset
from avel.stores.datasets.sample import Samples, Video, Videos
from avel.stores.location import locate
from avel.stores.manifest import Entry, Manifest, to_table
from tests.pipeline.staging.small_clips import SMALL, make_clip, make_folder

NONE = Manifest(to_table(()))
NO_ROWS = pa.array([], pa.string())
FAULTS = Path(__file__).parent / "faults"
CONFIG = replace(SMALL, time_limit=60.0, memory_limit=400)
HASTY = replace(CONFIG, time_limit=2.0)
PR_CAPBSET_DROP, CAP_SYS_RESOURCE = 24, 24

Staging = Callable[..., list[Entry]]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Staging:
    """Stages clips of the given names one after another in one child: entries in that order."""
    monkeypatch.setenv("PYTHONPATH", str(FAULTS), prepend=os.pathsep)

    def run(*names: str, config: ExtractConfig = CONFIG) -> list[Entry]:
        videos = tuple(Video(name, str(make_clip(tmp_path / f"{name}.mp4"))) for name in names)
        plan = make_plan(
            Dataset("test", str(tmp_path), (), Samples.of(()), Videos.of(videos)),
            config,
            None,
            NO_ROWS,
            NONE,
            RestageOptions(),
        )
        prepare_store(locate(tmp_path / "store"), plan.attributes, plan.video_ids)
        with Isolated(str(tmp_path / "store"), config) as child:
            return [child.stage(entry) for entry in plan.todo.values()]

    return run


@pytest.mark.parametrize(
    ("fault", "reason", "detail"),
    [
        ("segfault", "crashed", "SIGSEGV"),
        ("exit", "crashed", "exit status 7"),
        ("hang", "timeout", "for 2 s"),
        ("swell", "memory", ""),
        ("burst", "memory", "could not allocate"),
        ("surprise", "crashed", "ZeroDivisionError: a decoder's own bug"),
    ],
)
def test_a_fault_costs_its_own_clip_only(
    stage: Staging, tmp_path: Path, fault: str, reason: str, detail: str
) -> None:
    before, broken, after = stage("before", fault, "after", config=HASTY if fault == "hang" else CONFIG)
    assert (before.state, after.state) == ("staged", "staged")
    assert (broken.state, broken.reason) == ("failed", reason)
    assert detail in broken.detail
    assert broken.source_bytes == (tmp_path / f"{fault}.mp4").stat().st_size
    rows = {int(path.parts[-2]) for path in (tmp_path / "store/frames/c").glob("*/0")}
    assert rows == {before.row, after.row}


def test_a_kill_from_outside_is_not_the_clips_fault(stage: Staging) -> None:
    assert [entry.state for entry in stage("killed-once", "after")] == ["staged", "staged"]


def test_a_child_killed_before_it_is_ready_is_replaced(tmp_path: Path, stage: Staging) -> None:
    (good,) = stage("good")
    with Isolated(str(tmp_path / "store"), CONFIG) as child:
        child.launch()
        assert child._process
        child._process.kill()
        assert child.stage(good).state == "staged"


def test_a_clip_is_not_blamed_for_what_an_earlier_one_broke(stage: Staging) -> None:
    assert [entry.state for entry in stage("poison", "innocent")] == ["staged", "staged"]


def test_close_from_another_thread_ends_a_clip_in_work(tmp_path: Path, stage: Staging) -> None:
    stage("good")
    child = Isolated(str(tmp_path / "store"), CONFIG)
    threading.Timer(1.5, child.close).start()
    hanging = Entry("hang", 0, source_path=str(make_clip(tmp_path / "hang.mp4")))
    with pytest.raises(IsolationError, match="closed"):
        child.stage(hanging)


def test_a_stopped_child_is_replaced(tmp_path: Path, stage: Staging) -> None:
    (good,) = stage("good")
    with Isolated(str(tmp_path / "store"), HASTY) as child:
        child.stage(good)
        pid = child._process.pid if child._process else 0
        os.kill(pid, signal.SIGSTOP)
        assert child.stage(good).reason == "timeout"
        assert child.stage(good).state == "staged"


def test_time_for_which_the_run_was_stopped_is_not_the_clips(tmp_path: Path, stage: Staging) -> None:
    (good,) = stage("good")
    slow = replace(good, source_path=str(make_clip(tmp_path / "slow.mp4")))
    reader, writer = os.pipe()
    parent = os.fork()
    if not parent:
        child = Isolated(str(tmp_path / "store"), HASTY)
        child.stage(good)
        os.write(writer, str(child._process.pid if child._process else 0).encode())
        os.write(writer, child.stage(slow).state.encode())
        os._exit(0)
    pid = int(os.read(reader, 20))
    time.sleep(0.3)
    for each in (parent, pid):  # as Ctrl-Z does to the whole group
        os.kill(each, signal.SIGSTOP)
    time.sleep(HASTY.time_limit + 0.5)
    os.kill(parent, signal.SIGCONT)
    time.sleep(0.2)
    os.kill(pid, signal.SIGCONT)
    assert os.read(reader, 20) == b"staged"
    os.waitpid(parent, 0)


def test_a_clip_that_goes_on_for_ever_is_ended(tmp_path: Path, stage: Staging) -> None:
    """Signs of life every 0.2 s do not help it: ten segments have their time, and so has the clip."""
    endless, after = stage("endless", "after", config=HASTY)
    assert (endless.state, endless.reason) == ("failed", "timeout")
    assert "not done after 2 s" in endless.detail
    assert 1.9 < endless.decode_seconds < 4  # what it cost counts in a forecast
    assert after.state == "staged"


def test_a_long_file_may_be_hashed_for_as_long_as_it_takes(stage: Staging) -> None:
    (entry,) = stage("hashed-slowly", config=HASTY)
    assert entry.state == "staged"


def test_the_child_dies_with_its_parent(tmp_path: Path, stage: Staging) -> None:
    (good,) = stage("good")
    reader, writer = os.pipe()
    parent = os.fork()
    if not parent:
        child = Isolated(str(tmp_path / "store"), CONFIG)
        child.stage(good)
        os.write(writer, str(child._process.pid if child._process else 0).encode())
        time.sleep(60)
    pid = int(os.read(reader, 20))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 10
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _runs(pid)


def test_a_hard_limit_of_memory_is_kept_by_who_may_not_raise_it(tmp_path: Path) -> None:
    def limit_like_a_queue() -> None:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_RESOURCE)  # root itself may raise a hard limit
        resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))

    make_folder(tmp_path / "clips", 1)
    code = (
        "import sys\n"
        "from avel.pipeline.staging.extract import extract\n"
        "from tests.pipeline.staging.small_clips import SMALL\n"
        "print(extract(sys.argv[1], sys.argv[2], SMALL, workers=1).staged)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "clips"), str(tmp_path / "s.zarr")]
    done = subprocess.run(command, preexec_fn=limit_like_a_queue, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_a_machine_that_takes_no_more_processes_is_an_error_of_avel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refused)
    with (
        Isolated(str(tmp_path / "store"), CONFIG) as child,
        pytest.raises(IsolationError, match=r"cannot be started: .* unavailable\n.*lower --workers"),
    ):
        child.launch()


def test_a_store_with_other_settings_is_refused(tmp_path: Path, stage: Staging) -> None:
    (good,) = stage("good")
    with (
        Isolated(str(tmp_path / "store"), replace(CONFIG, jpeg_quality=50)) as child,
        pytest.raises(StaleError, match="another run"),
    ):
        child.stage(good)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
