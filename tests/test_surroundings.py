"""What a system may lack or do: fork, a home folder, open streams, a steady clock."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, picture, small

from fast_nst.data.shards import Shards

SPAWN = """
import multiprocessing, runpy, sys
if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
CLOCK = """
import time
real, calls = time.time, []
def back():
    calls.append(0)
    return real() - 3600 * len(calls)
time.time = back
"""


@pytest.mark.slow
def test_workers_that_are_spawned_give_the_same_network(trained, workplace):
    (workplace / "spawn.py").write_text(SPAWN)
    words = [*small(workplace), "style.image=my painting.png", "output_dir=spawned", "data.workers=1"]
    command = [sys.executable, "spawn.py", str(ROOT / "scripts" / "train.py"), *words]
    result = subprocess.run(command, cwd=workplace, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    file = workplace / "spawned" / "my painting.safetensors"
    assert file.read_bytes() == (trained[0] / file.name).read_bytes()


def test_closed_streams_no_home_and_a_clock_that_goes_back(trained, workplace):
    (workplace / "clock").mkdir()
    (workplace / "clock" / "sitecustomize.py").write_text(CLOCK)
    words = [*small(workplace), "style.image=my painting.png", "output_dir=alone"]
    command = [
        "bash",
        "-c",
        'exec "$@" <&- >&- 2>&-',
        "bash",
        sys.executable,
        str(ROOT / "scripts" / "train.py"),
        *words,
    ]
    environment = {key: value for key, value in ENVIRONMENT.items() if key not in ("HOME", "XDG_CACHE_HOME", "TERM")}
    environment["PYTHONPATH"] += f":{workplace / 'clock'}"
    assert subprocess.run(command, cwd=workplace, env=environment, check=False).returncode == 0
    file = workplace / "alone" / "my painting.safetensors"
    assert file.read_bytes() == (trained[0] / file.name).read_bytes()


def test_shards_need_no_cache(tmp_path: Path, monkeypatch):
    picture(1).save(tmp_path / "a.png")
    subprocess.run(["tar", "cf", "a.tar", "a.png"], cwd=tmp_path, check=True)
    for home in ("/proc/none", str(tmp_path / "home")):
        monkeypatch.setenv("XDG_CACHE_HOME", home)
        assert len(Shards(tmp_path / "a.tar", 64)) == 1
    (cached,) = (tmp_path / "home").rglob("*.npy")
    for damage in (b"", b"damaged", cached.read_bytes()[:-4]):
        cached.write_bytes(damage)
        assert np.asarray(Shards(tmp_path / "a.tar", 64)[0]).shape[2] == 3
