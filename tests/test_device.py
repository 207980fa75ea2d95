"""What the machine is made to do."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ENVIRONMENT

from fast_nst import device


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone")
def test_freed_memory_serves_the_next_tensors():
    code = """
import resource, sys, torch
from fast_nst import device, networks
if sys.argv[1] == "keep":
    device.keep_memory()
network, x = networks.build("slim"), torch.rand(1, 3, 1024, 1024)  # tensors over 32 MiB, of which glibc keeps none
mapped = []  # pages mapped anew; now and then what is kept lies in pieces and grows by one more
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.inference_mode():
        network(x)
    mapped.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(mapped)[2])
"""
    kept, usual = (
        int(subprocess.run([sys.executable, "-c", code, word], env=ENVIRONMENT, capture_output=True, check=True).stdout)
        for word in ("keep", "usual")
    )
    assert kept < usual / 10, (kept, usual)


LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone")
@pytest.mark.skipif(not LARGE_PAGES.exists() or "[never]" in LARGE_PAGES.read_text(), reason="no large pages here")
def test_tensors_lie_on_large_pages():
    code = """
import torch
from fast_nst import device
device.keep_memory()
x = [torch.ones(2**22) for _ in range(4)]  # 64 MiB
lines = open("/proc/self/smaps_rollup").read().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("AnonHugePages")))
"""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, check=True)
    assert int(done.stdout) > 0.9 * 64 * 1024


def test_want_of_memory_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as found:
        torch.empty(2**58)
    assert device.is_out_of_memory(found.value)
    with pytest.raises(RuntimeError) as found:
        torch.ones(2) @ torch.ones(3)
    assert not device.is_out_of_memory(found.value)
