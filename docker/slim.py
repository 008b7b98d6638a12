"""Takes out of an environment what neither training nor serving uses: `slim.py SITE_PACKAGES [--stand-ins]`.

Files are removed, and symbols for debuggers are stripped. With ``--stand-ins``, libraries that torch links but whose
functions are never called here are replaced by ones that export the same names and answer each call with an error code,
which torch raises as a RuntimeError; not yet proven on a GPU, and so only when asked for. Needs gcc and binutils.
"""

import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

REMOVED = {
    "code generation for torch.compile, which is not used": [
        "triton*",
        "cuda",
        "cuda_*",
        "_cuda_bindings_redirector*",
    ],
    "linear solvers on the GPU; on the CPU they stay": ["torch/lib/libtorch_cuda_linalg.so"],
    "what only a compiler reads": [
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
    "alternatives that nothing links": [
        "nvidia/cuda_nvrtc/lib/*.alt.so*",
        "nvidia/cusolver/lib/libcusolverMg.so*",
        "nvidia/cufft/lib/libcufftw.so*",
        "nvidia/cublas/lib/libnvblas.so*",
        "nvidia/nvshmem/lib/nvshmem_*.so*",
        "nvidia/cufile/lib/libcufile_rdma.so*",
    ],
    "OpenVINO's other devices, and readers of other formats": [
        "openvino/libs/libopenvino_intel_[gn]pu_plugin.so",
        "openvino/libs/libopenvino_*onnx_frontend.so*",
        "openvino/libs/libopenvino_tensorflow*_frontend.so*",
        "openvino/libs/libopenvino_paddle_frontend.so*",
        "openvino/libs/libopenvino_gguf_frontend.so*",
        "openvino/libs/libopenvino_jax_frontend.so*",
        "openvino/libs/cache.json",
    ],
    "reports to OpenVINO's makers on how it is used": ["openvino_telemetry*"],
    "PDF fonts; the plots are PNG": ["fontTools", "fonttools-*"],
    "tests": ["*/tests", "sympy/**/tests", "networkx/**/tests", "numpy/**/tests"],
    "installers": ["pip", "pip-*"],
}

STAND_INS = {
    "nvidia/cusparse/lib/libcusparse.so.12": "sparse tensors",
    "nvidia/cusparselt/lib/libcusparseLt.so.0": "semi-structured sparse tensors",
    "nvidia/cufft/lib/libcufft.so.11": "Fourier transforms",
    "nvidia/cusolver/lib/libcusolver.so.11": "linear solvers",
    "nvidia/curand/lib/libcurand.so.10": "random numbers; torch has its own",
    "nvidia/nvjitlink/lib/libnvJitLink.so.12": "linking of sparse kernels",
    "nvidia/nvshmem/lib/libnvshmem_host.so.3": "symmetric memory of several GPUs",
    "nvidia/cufile/lib/libcufile.so.0": "files read straight into the GPU",
}

# The libraries' own codes differ; in none of them does this one say success.
ERROR_CODE = 10
# What the C++ library has given every one of them.
CPP_PREFIX = "_Z"

STRIPPED = ["torch/lib/*.so*", "nvidia/nccl/lib/*.so*"]


def main() -> None:
    site_packages = Path(sys.argv[1])
    before = size_mb(site_packages)
    for reason, patterns in REMOVED.items():
        removed = remove(site_packages, patterns)
        print(f"slim: {removed:6.0f} MB  removed: {reason}")
    wanted = undefined_symbols(site_packages)
    for name, reason in STAND_INS.items() if "--stand-ins" in sys.argv[2:] else ():
        library = site_packages / name
        if library.exists():
            whole = size_mb(library)
            replace_by_stand_in(library, wanted)
            print(f"slim: {whole:6.0f} MB  replaced: {library.name}, {reason}")
    print(f"slim: {strip(site_packages):6.0f} MB  stripped")
    print(f"slim: from {before:.0f} MB to {size_mb(site_packages):.0f} MB")


def remove(site_packages: Path, patterns: list[str]) -> float:
    """Remove what matches, and return the megabytes that it took. On other machines than x86-64 less is there."""
    total = 0.0
    for pattern in patterns:
        for path in sorted(site_packages.glob(pattern)):
            total += size_mb(path)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return total


def undefined_symbols(site_packages: Path) -> set[tuple[str, str]]:
    """The names that torch's libraries look for in others, each with its version or an empty string."""
    libraries = [*site_packages.glob("torch/lib/*.so*"), *site_packages.glob("torchvision/*.so")]
    return {symbol for library in libraries for symbol in symbols(library, "--undefined-only")}


def symbols(library: Path, which: str) -> set[tuple[str, str]]:
    listing = subprocess.run(["nm", "-D", which, library], check=True, capture_output=True, text=True).stdout
    names = (line.split()[-1].replace("@@", "@").partition("@") for line in listing.splitlines())
    return {(name, version) for name, _, version in names}


def replace_by_stand_in(library: Path, wanted: set[tuple[str, str]]) -> None:
    """Put a library in the place of ``library`` that exports those of its names that are ``wanted``."""
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
    """Strip what only a debugger reads, and return the megabytes that it took."""
    libraries = [library for pattern in STRIPPED for library in site_packages.glob(pattern)]
    before = sum(map(size_mb, libraries))
    subprocess.run(["strip", "--strip-unneeded", *libraries], check=True)
    return before - sum(map(size_mb, libraries))


def size_mb(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink()) / 1e6


if __name__ == "__main__":
    main()
