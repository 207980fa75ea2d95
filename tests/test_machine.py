"""What the machine is made to do."""

import platform
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone")
def test_freed_memory_serves_the_next_tensors():
    code = """
import resource, sys, torch
from fast_nst import machine, networks
if sys.argv[1] == "keep":
    machine.keep_memory()
network, x = networks.build("slim"), torch.rand(1, 3, 512, 512)
mapped = []  # pages mapped anew; now and then what is kept lies in pieces and grows by one more
for _ in range(9):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    with torch.inference_mode():
        network(x)
    mapped.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(mapped)[4])
"""
    kept, usual = (
        int(subprocess.run([sys.executable, "-c", code, word], env=ENVIRONMENT, capture_output=True, check=True).stdout)
        for word in ("keep", "usual")
    )
    assert kept < usual / 10, (kept, usual)
