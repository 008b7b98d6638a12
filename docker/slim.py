"""Reduction of installed packages to what training and serving use: `slim.py PACKAGES [--stand-ins --torch=FOLDER]`.

Removes unused files and strips debug symbols. With ``--stand-ins``, libraries that torch links but never calls here are
replaced by stubs that export the same symbols and return an error code, which torch raises as a RuntimeError.
Stubs are opt-in because they are not yet tested on a GPU. Needs gcc and binutils.
"""

import argparse
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

REMOVED = {
    "code generation for torch.compile, which is unused": [
        "triton*",
        "cuda",
        "cuda_*",
        "_cuda_bindings_redirector*",
    ],
    "linear solvers on the GPU; those on the CPU are kept": ["torch/lib/libtorch_cuda_linalg.so"],
    "files that only compilers read": [
        "torch/include",
        "torch/share",
        "torch/bin/protoc*",
        "nvidia/*/include",
        "nvidia/**/*.a",
        "nvidia/**/*.bc",
        "openvino/include",
        "openvino/cmake",
        "**/*.pyi",
    ],
    "alternative libraries that nothing links": [
        "nvidia/cuda_nvrtc/lib/*.alt.so*",
        "nvidia/cusolver/lib/libcusolverMg.so*",
        "nvidia/cufft/lib/libcufftw.so*",
        "nvidia/cublas/lib/libnvblas.so*",
        "nvidia/nvshmem/lib/nvshmem_*.so*",
        "nvidia/cufile/lib/libcufile_rdma.so*",
    ],
    "OpenVINO plugins for other devices and model formats": [
        "openvino/libs/libopenvino_intel_[gn]pu_plugin.so",
        "openvino/libs/libopenvino_*onnx_frontend.so*",
        "openvino/libs/libopenvino_tensorflow*_frontend.so*",
        "openvino/libs/libopenvino_paddle_frontend.so*",
        "openvino/libs/libopenvino_gguf_frontend.so*",
        "openvino/libs/libopenvino_jax_frontend.so*",
        "openvino/libs/cache.json",
    ],
    "OpenVINO's telemetry": ["openvino_telemetry*"],
    "tests": ["*/tests", "sympy/**/tests", "networkx/**/tests", "numpy/**/tests"],
}

STAND_INS = {
    "nvidia/cusparse/lib/libcusparse.so.12": "sparse tensors",
    "nvidia/cusparselt/lib/libcusparseLt.so.0": "semi-structured sparse tensors",
    "nvidia/cufft/lib/libcufft.so.11": "Fourier transforms",
    "nvidia/cusolver/lib/libcusolver.so.11": "linear solvers",
    "nvidia/curand/lib/libcurand.so.10": "random numbers; torch has its own generator",
    "nvidia/nvjitlink/lib/libnvJitLink.so.12": "linking of sparse kernels",
    "nvidia/nvshmem/lib/libnvshmem_host.so.3": "symmetric memory across GPUs",
    "nvidia/cufile/lib/libcufile.so.0": "direct reads of files into the GPU",
}

# The libraries' error codes differ, but none of them uses this one for success.
ERROR_CODE = 10
# Prefix of mangled C++ names.
CPP_PREFIX = "_Z"

STRIPPED = ["torch/lib/*.so*", "nvidia/nccl/lib/*.so*"]


def main() -> None:
    """Slim the packages and print the savings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("packages", type=Path)
    parser.add_argument("--stand-ins", action="store_true", help="replace libraries that torch links but never calls")
    parser.add_argument("--torch", type=Path, metavar="FOLDER", help="where torch is installed (default: PACKAGES)")
    options = parser.parse_args()
    packages = options.packages
    before = size_mb(packages)
    for reason, patterns in REMOVED.items():
        removed = remove(packages, patterns)
        if removed:
            print(f"slim: {removed:6.0f} MB  removed: {reason}")
    if options.stand_ins:
        replace_by_stand_ins(packages, undefined_symbols(options.torch or packages))
    print(f"slim: {strip(packages):6.0f} MB  stripped")
    print(f"slim: from {before:.0f} MB to {size_mb(packages):.0f} MB")


def remove(site_packages: Path, patterns: list[str]) -> float:
    """Remove matching files and return their size in MB. Patterns may match nothing, as on arm64."""
    total = 0.0
    for pattern in patterns:
        for path in sorted(site_packages.glob(pattern)):
            total += size_mb(path)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return total


def undefined_symbols(site_packages: Path) -> set[tuple[str, str]]:
    """Return the undefined symbols of torch's libraries as (name, version); the version may be empty."""
    libraries = [*site_packages.glob("torch/lib/*.so*"), *site_packages.glob("torchvision/*.so")]
    return {symbol for library in libraries for symbol in symbols(library, "--undefined-only")}


def symbols(library: Path, which: str) -> set[tuple[str, str]]:
    """Return the dynamic symbols of a library as (name, version); ``which`` is an option of nm."""
    listing = subprocess.run(["nm", "-D", which, library], check=True, capture_output=True, text=True).stdout
    names = (line.split()[-1].replace("@@", "@").partition("@") for line in listing.splitlines())
    return {(name, version) for name, _, version in names}


def replace_by_stand_ins(site_packages: Path, wanted: set[tuple[str, str]]) -> None:
    """Replace the libraries of STAND_INS by stubs that export those of their symbols that are in ``wanted``."""
    for name, reason in STAND_INS.items():
        library = site_packages / name
        if library.exists():
            size = size_mb(library)
            replace_by_stand_in(library, wanted)
            print(f"slim: {size:6.0f} MB  replaced: {library.name}, {reason}")


def replace_by_stand_in(library: Path, wanted: set[tuple[str, str]]) -> None:
    """Replace a library by a stub that exports those of its symbols that are in ``wanted``."""
    own = {name for name, _ in symbols(library, "--defined-only") if not name.startswith(CPP_PREFIX)}
    versions: dict[str, list[str]] = defaultdict(list)
    for name, version in sorted(wanted):
        if name in own:
            versions[version].append(name)
    code = "".join(f"int {name}(void) {{ return {ERROR_CODE}; }}\n" for names in versions.values() for name in names)
    script = "".join(
        f"{version} {{ global: {'; '.join(names)}; }};\n" for version, names in versions.items() if version
    )
    library.unlink()
    script_file = library.with_suffix(".map")
    script_file.write_text(script, encoding="ascii")
    options = [f"-Wl,--version-script={script_file}"] if script else []
    subprocess.run(
        [
            "gcc",
            "-shared",
            "-fPIC",
            "-O1",
            "-s",
            f"-Wl,-soname,{library.name}",
            *options,
            "-x",
            "c",
            "-",
            "-o",
            library,
        ],
        check=True,
        input=code,
        text=True,
    )
    script_file.unlink()


def strip(site_packages: Path) -> float:
    """Strip debug symbols and return the size saved in MB."""
    libraries = [library for pattern in STRIPPED for library in site_packages.glob(pattern)]
    before = sum(map(size_mb, libraries))
    if libraries:
        subprocess.run(["strip", "--strip-unneeded", *libraries], check=True)
    return before - sum(map(size_mb, libraries))


def size_mb(path: Path) -> float:
    """Return the size of a file or folder in MB, without symbolic links."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink()) / 1e6


if __name__ == "__main__":
    main()
