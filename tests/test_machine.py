"""Memory settings and out-of-memory detection."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ENVIRONMENT

from fast_nst import machine


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_freed_memory_is_reused():
    code = """
import resource, sys, torch
from fast_nst import machine, networks
if sys.argv[1] == "keep":
    machine.keep_freed_memory()
network, x = networks.build("slim"), torch.rand(1, 3, 640, 640)  # tensors over 32 MiB, which glibc does not keep
mapped = []  # newly mapped pages; fragmentation adds some now and then
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.inference_mode():
        network(x)
    mapped.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(mapped)[1])
"""
    kept, default = (
        int(subprocess.run([sys.executable, "-c", code, word], env=ENVIRONMENT, capture_output=True, check=True).stdout)
        for word in ("keep", "default")
    )
    assert kept < default / 10, (kept, default)


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
@pytest.mark.skipif(not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="no huge pages here")
def test_tensors_use_huge_pages():
    code = """
import torch
from fast_nst import machine
machine.keep_freed_memory()
x = [torch.ones(2**22) for _ in range(4)]  # 64 MiB
lines = open("/proc/self/smaps_rollup").read().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("AnonHugePages")))
"""
    result = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, check=True)
    assert int(result.stdout) > 0.9 * 64 * 1024


def test_out_of_memory_is_distinguished_from_other_errors():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**58)
    assert machine.is_out_of_memory(error.value)
    with pytest.raises(RuntimeError) as error:
        torch.ones(2) @ torch.ones(3)
    assert not machine.is_out_of_memory(error.value)
