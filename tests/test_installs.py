"""Where the package lies and where it may write must not matter: at worst nothing is cached.

`softmax` stands for every kernel: all are compiled, cached and loaded by the same few lines, and it
compiles fastest.
"""

import ctypes
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn

PACKAGE = Path(fastrnn.__file__).parent
posix = pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
CALL = """if True:
    import numpy as np
    import fastrnn
    from fastrnn.kernels.softmax import softmax

    result = fastrnn.softmax(np.zeros((2, 3), np.float32))
    assert result.tolist() == [[0.5] * 3] * 2, result
    (dispatcher,) = softmax.compiled.values()
    print(sum(dispatcher.stats.cache_hits.values()))
"""


DAMAGES = [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"x" * 99]


def obey_permissions():
    """Give up, for this process and its children, that root may read and write anything."""
    if os.geteuid() == 0:
        PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def start(environment, site=PACKAGE.parent, code=CALL):
    environment = {"NUMBA_NUM_THREADS": "1", "PATH": os.environ["PATH"], **environment}
    return subprocess.Popen(
        [sys.executable, "-B", "-c", code],
        env={**environment, "PYTHONPATH": str(site)},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=obey_permissions if os.name == "posix" else None,
    )


def cache_hits(process):
    """How many kernels a process found in its cache; it must have computed."""
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return int(stdout)


def read_only(directory):
    for path in [directory, *directory.rglob("*")]:
        path.chmod(stat.S_IREAD | (stat.S_IEXEC if path.is_dir() else 0))


def entries(cache):
    return sorted(path for path in cache.rglob("*") if path.suffix in (".nbi", ".nbc"))


@pytest.fixture
def read_only_site(tmp_path):
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "fastrnn", ignore=shutil.ignore_patterns("__pycache__"))
    read_only(site)
    write = start({}, code=f"open({str(site / 'file')!r}, 'w')")
    assert "PermissionError" in write.communicate()[1]
    return site


@posix
@pytest.mark.parametrize("kind", ["none", "read-only", "a file", "no parent"])
def test_no_place_to_write_to(read_only_site, tmp_path, kind):
    """Neither beside the package, nor at home, nor in the cache directory that is named."""
    environment = {"HOME": str(read_only_site / "none"), "XDG_CACHE_HOME": "/dev/null"}
    cache = tmp_path / "cache"
    if kind == "read-only":
        cache.mkdir()
        read_only(cache)
    elif kind == "a file":
        cache.write_text("no directory")
    elif kind == "no parent":
        cache = Path("/dev/null/cache")
    if kind != "none":
        environment["NUMBA_CACHE_DIR"] = str(cache)
    assert cache_hits(start(environment, read_only_site)) == 0


def test_corrupt_cache(tmp_path):
    """Empty, cut short, or of other bytes: it is compiled anew, and then cached again."""
    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert cache_hits(start(environment)) == 0
    assert entries(tmp_path)
    assert cache_hits(start(environment)) == 1
    for suffix in (".nbi", ".nbc"):
        for damage in DAMAGES:
            damaged = [path for path in entries(tmp_path) if path.suffix == suffix]
            assert damaged
            for path in damaged:
                path.write_bytes(damage(path.read_bytes()))
            assert cache_hits(start(environment)) == 0
            assert cache_hits(start(environment)) == 1


def test_two_processes_that_compile_at_once(tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    code = "import sys, fastrnn; print(flush=True); sys.stdin.readline()\n" + CALL
    processes = [start(environment, code=code) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [cache_hits(process) for process in processes] == [0, 0]
    assert cache_hits(start(environment)) == 1
