"""The scripts of docs/clusters.md run on one machine: with a stand-in for srun, or local clusters."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import LocalCluster

from avel.stores.clips import ClipStore
from avel.stores.features import FeatureCache
from tests.pipeline.staging.small_clips import make_folder

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "clusters.md"
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
"""Runs the program after its options, once, here."""
TINY = [f"--{kind}-{what}" for kind in ("visual", "audio") for what in ("backbone tiny", "weights random")]


def script(beginning: str) -> str:
    """The indented block of the page that begins so."""
    blocks = re.findall(r"^    .+\n(?:(?:    .*)?\n)*", PAGE.read_text(), re.MULTILINE)
    (found,) = [block for block in blocks if block.startswith(f"    {beginning}")]
    return re.sub("^    ", "", found, flags=re.MULTILINE)


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.slow
def test_the_batch_file_stages_and_encodes(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "srun", SRUN)
    for name in ("avel", "dask"):
        program(tmp_path / "bin" / name, f'#!/bin/sh\nexec {sys.executable} -m {name} "$@"\n')
    program(tmp_path / "bin" / "python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    program(tmp_path / "avel" / "bin" / "activate", f'PATH="{tmp_path / "bin"}:$PATH"\n')
    program(tmp_path / "avel.sbatch", script("#!/bin/bash"))
    given = {
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "2",
        "DATASET": str(make_folder(tmp_path / "clips", 3)),
        "STORE": str(tmp_path / "s.zarr"),
        "CACHE": str(tmp_path / "c.h5"),
        "OPTIONS": " ".join([*TINY, "--device cpu"]),
    }
    done = subprocess.run(
        [tmp_path / "avel.sbatch"],
        cwd=tmp_path,
        env=os.environ | given,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert FeatureCache.open(tmp_path / "c.h5").video_ids == ("clip00", "clip01", "clip02")
    assert not list(tmp_path.glob("scheduler-*.json"))


class Local(LocalCluster):
    """A cluster of one thread in this process, where the page starts one of jobs or pods."""

    def __init__(self, **given: Any) -> None:
        self.given = given
        super().__init__(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, memory_limit=0
        )

    def adapt(self, minimum_jobs: int, maximum_jobs: int) -> None:
        assert minimum_jobs <= maximum_jobs


def make_cluster_spec(name: str, image: str, n_workers: int) -> dict[str, Any]:
    """The part of dask-kubernetes' spec that the page changes."""
    pod = {"containers": [{"name": "worker", "image": image}]}
    return {"metadata": {"name": name}, "spec": {"worker": {"replicas": n_workers, "spec": pod}}}


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that are not installed here."""
    pods = SimpleNamespace(KubeCluster=Local, make_cluster_spec=make_cluster_spec)
    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=Local))
    monkeypatch.setitem(sys.modules, "dask_kubernetes", SimpleNamespace(operator=pods))
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", pods)


@pytest.mark.parametrize("module", ["dask_jobqueue", "dask_kubernetes.operator"])
@pytest.mark.usefixtures("stand_ins")
def test_a_cluster_of_jobs_or_pods_stages(module: str, tmp_path: Path) -> None:
    text = script(f"from {module}")
    places = {"/shared/ave.zarr": "s.zarr", "s3://bucket/ave.zarr": "s.zarr"}
    places |= {"/shared/AVE_Dataset": "clips", "/data/AVE_Dataset": "clips"}
    for there, here in places.items():
        text = text.replace(f'"{there}"', repr(str(tmp_path / here)))
    make_folder(tmp_path / "clips", 2)
    exec(compile(text, str(PAGE), "exec"), {})
    assert ClipStore.open(tmp_path / "s.zarr").staged == ("clip00", "clip01")
