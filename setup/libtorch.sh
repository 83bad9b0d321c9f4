#!/usr/bin/env bash
# Fetches libtorch 2.11 (CPU part of the PyPI wheel) into third_party/libtorch, about 510 MB on disk.
# With --cuda the CUDA libraries stay: the full wheel with its dependencies, 3.7 GB.
set -euo pipefail
cd "$(dirname "$0")/.."
version=2.11.0
if [ -n "${LIBTORCH:-}" ]; then # a libtorch of the user's own: torch-sys reads the same variable
    found=$(cat "$LIBTORCH/build-version" 2>/dev/null || true)
    if [ ! -f "$LIBTORCH/lib/libtorch_cpu.so" ] || [ ! -f "$LIBTORCH/include/torch/csrc/api/include/torch/torch.h" ]; then
        echo "setup: LIBTORCH=$LIBTORCH has no libtorch (lib/libtorch_cpu.so and include/). Point it to a libtorch $version, or unset it: then $version is fetched" >&2
        exit 1
    fi
    if [ -n "$found" ] && [ "${found%%+*}" != "$version" ]; then
        echo "setup: LIBTORCH=$LIBTORCH is libtorch $found, and $version is needed. Point it to that version, or unset it: then $version is fetched" >&2
        exit 1
    fi
    exit 0
fi
target=third_party/libtorch
marker=$target/torch/build-version
kind=cpu
[ "${1:-}" = --cuda ] && kind=cuda
here=
[ -f "$marker" ] && [ "$(cat "$marker")" = "$version" ] && here=$(cat $target/kind 2>/dev/null || echo cpu)
# libtorch.so holds nothing and names the parts of libtorch. Models that PyTorch compiled ahead of time ask for it, and it asks for
# the CUDA part, which is not here: one that does not takes its place.
without_cuda() {
    if grep -q libtorch_cuda.so "$1/libtorch.so" && [ ! -e "$1/libtorch_cuda.so" ]; then
        c++ -shared -o "$1/libtorch.so.new" -Wl,-soname,libtorch.so -Wl,--no-as-needed -L"$1" -ltorch_cpu -Wl,--unresolved-symbols=ignore-in-shared-libs
        mv "$1/libtorch.so.new" "$1/libtorch.so"
    fi
}
# The one with CUDA has all that the other has.
if [ "$here" = $kind ] || [ "$here" = cuda ]; then
    without_cuda $target/torch/lib
    exit 0
fi
if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
    echo "setup: libtorch is fetched for Linux x86-64 only; for $(uname -s) $(uname -m) set LIBTORCH to a libtorch $version of yours" >&2
    exit 1
fi
partial=$target.partial
rm -rf "$partial"
mkdir -p "$partial"
trap 'rm -rf "$partial"' EXIT
echo "setup: fetching libtorch $version ($kind)"
failed() {
    echo "setup: libtorch $version could not be fetched from the Python package index (pip's message is above). Give pip an index that it reaches" \
        "(PIP_INDEX_URL), or set LIBTORCH to a libtorch $version that is on this machine" >&2
    exit 1
}
pip=(python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-compile --only-binary=:all: --target "$partial")
if [ $kind = cuda ]; then
    "${pip[@]}" "torch==$version" || failed
else
    # The wheel's libtorch_cpu needs libcudart and libcupti when it is loaded: hence the two small packages.
    "${pip[@]}" --no-deps "torch==$version" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85 || failed
    rm -f "$partial"/torch/lib/libtorch_cuda*.so "$partial"/torch/lib/libtorch_nvshmem.so "$partial"/torch/lib/libc10_cuda.so \
        "$partial"/nvidia/cu13/lib/libnvperf* "$partial"/nvidia/cu13/lib/libcheckpoint.so "$partial"/nvidia/cu13/lib/libpcsampling*
fi
rm -f "$partial"/torch/lib/libtorch_python.so
without_cuda "$partial/torch/lib"
# What Python alone uses.
find "$partial" -mindepth 1 -maxdepth 1 ! -name torch ! -name nvidia ! -name '*.libs' -exec rm -rf {} +
find "$partial/torch" -mindepth 1 -maxdepth 1 ! -name lib ! -name include -exec rm -rf {} +
echo "$version" > "$partial/torch/build-version"
echo $kind > "$partial/kind"
rm -rf "$target"
mv "$partial" "$target"
trap - EXIT
# Programs are linked to what libtorch has: those built before know no GPU, and cargo sees no reason to build them again.
if [ -n "$here" ] && [ -d target ]; then
    cargo clean -q -p torch-sys
    cargo clean -q --release -p torch-sys
fi
