"""Libraries that are not on this machine, as empty shells: what is linked to them loads, and they do nothing.

So a library of NVIDIA's or ONNX Runtime's is asked what it has without the GPU, the driver or the
toolkit that it would need to do it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TOOLS = ("gcc", "nm", "readelf")

CUDA_RUNTIME = """
#include <stdlib.h>
#include <string.h>
int cudaMalloc(void **p, size_t n) { *p = aligned_alloc(256, (n + 511) / 256 * 256); return 0; }
int cudaFree(void *p) { free(p); return 0; }
int cudaMallocHost(void **p, size_t n) { return cudaMalloc(p, n); }
int cudaHostAlloc(void **p, size_t n, unsigned flags) { return cudaMalloc(p, n); }
int cudaFreeHost(void *p) { free(p); return 0; }
int cudaMemGetInfo(size_t *left, size_t *all) { *left = *all = (size_t)8 << 30; return 0; }
int cudaMemcpy(void *to, const void *from, size_t n, int kind) { memcpy(to, from, n); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t n, int k, void *s) { memcpy(to, from, n); return 0; }
int cudaGetDeviceCount(int *n) { *n = 1; return 0; }
int cudaGetDevice(int *n) { *n = 0; return 0; }
int cudaDriverGetVersion(int *n) { *n = 13000; return 0; }
int cudaRuntimeGetVersion(int *n) { *n = 13000; return 0; }
int cudaStreamCreateWithFlags(void **s, unsigned flags) { *s = malloc(64); return 0; }
int cudaEventCreateWithFlags(void **e, unsigned flags) { *e = malloc(64); return 0; }
const char *cudaGetErrorString(int code) { return "none"; }
const char *cudaGetErrorName(int code) { return "none"; }
/* Attributes 75 and 76 are the compute capability. */
int cudaDeviceGetAttribute(int *n, int what, int d) { *n = what == 75 ? 9 : what == 76 ? 0 : 1024; return 0; }
struct head {
  char name[256], uuid[16], luid[8]; unsigned mask; size_t memory, shared; int registers, warp;
  size_t pitch; int threads, block[3], grid[3]; size_t constants; int major, minor;
};
int cudaGetDeviceProperties(void *to, int d) {
  struct head *it = to;
  memset(to, 0, 512);
  strcpy(it->name, "a GPU of memory alone");
  it->memory = (size_t)8 << 30, it->shared = 49152, it->warp = 32, it->threads = 1024, it->major = 9;
  return 0;
}
"""
"""CUDA's runtime on a GPU of compute capability 9.0 that holds memory and copies it, and computes nothing."""


def absent_tools() -> list[str]:
    """Return what is needed to make a shell and is not installed."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def make(binary: Path, folder: Path, libraries: str, loose: str, answers: Mapping[str, str]) -> None:
    """Write into a folder the shells that a binary needs to load.

    Args:
        binary: A shared library.
        folder: Where to; it belongs into `LD_LIBRARY_PATH` then.
        libraries: Pattern of the names of those it needs and has not.
        loose: Pattern of the functions it takes from them without saying of which.
        answers: C source of functions that have to do something, by the library's name.

    """
    linked = re.findall(rf"\[({libraries})\]", _output("readelf", "-d", binary))
    undefined = re.findall(
        r" U (\w+)(?:@(\S+))?$", _output("nm", "-D", "--undefined-only", binary), re.MULTILINE
    )
    versions = folder / "versions"
    for library in linked:
        answer = answers.get(library, "")
        there = set(re.findall(r"^\w[\w ]*[ *](\w+)\(", answer, re.MULTILINE))
        names = {name for name, of in undefined if of == library or (not of and re.fullmatch(loose, name))}
        empty = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in sorted(names - there))
        source = folder / f"{library}.c"
        source.write_text(answer + empty)
        versions.write_text(f"{library} {{ global: *; }};\n")
        options = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{library}", f"-Wl,--version-script={versions}"]
        _output("gcc", *options, "-o", folder / library, source)


def _output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
