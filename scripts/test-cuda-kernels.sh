#!/usr/bin/env bash
# Runs the kernel tests, and compares a model's steps with the CPU, through burn's CUDA backend without a GPU: LLVM compiles to PTX for an
# H100 as it would there, and the driver of tests/cuda executes that on the CPU, tensor cores and bf16 included.
#
#   scripts/test-cuda-kernels.sh [FEATURES]     default cuda
#
# Needs LLVM (scripts/setup-llvm.sh). libdevice.10.bc comes from the toolkit in CUDA_PATH, or from NVIDIA's package by pip.
# PACKAGES is that of test-gpu-kernels.sh.
# REGISTERS=FILE writes what NVIDIA's assembler makes of the tensor-core kernels there (scripts/gpu/registers.py).
# TRAIN=FILE, a moe-train with the feature `cuda`, is run by the emulator instead of the tests, with what follows FEATURES as its arguments.
. "$(dirname "$0")/lib.sh"
cd "$repo"
features=$(gpu_features "${1:-cuda}")
packages=(${PACKAGES:---package moe-kernels --package moe-train})
shift || true
scratch

# Built before CUDA_PATH is set, since build scripts ask for it.
cargo build --package cuda-emulator
cargo test "${packages[@]}" --features "$features" --no-run --test main --test it
tests=$(cargo test --quiet "${packages[@]}" --features "$features" --no-run --test main --test it --message-format=json | python3 -c '
import json, sys
for message in map(json.loads, sys.stdin):
    is_ours = message.get("manifest_path", "").endswith(("/trainer/Cargo.toml", "/trainer/kernels/Cargo.toml"))
    if is_ours and message.get("executable") and message["profile"]["test"]:
        print(message["executable"])')
kernels=$(grep "/main-" <<< "$tests")
steps=$(grep "/it-" <<< "$tests")

if ! ls "${CUDA_PATH:-/usr/local/cuda}/nvvm/libdevice/libdevice.10.bc" >/dev/null 2>&1; then
    python3 -m pip download --quiet --no-deps --dest "$work" nvidia-cuda-nvcc-cu12==12.9.86
    python3 -m zipfile -e "$work"/nvidia_cuda_nvcc_cu12-*.whl "$work/toolkit"
    export CUDA_PATH=$work/toolkit/nvidia/cuda_nvcc
    chmod +x "$CUDA_PATH"/bin/*
fi
mkdir "$work/driver" "$work/modules"
# Without it the tests would take another GPU.
[ -e "$target/debug/libcuda_emulator.so" ]
ln -s "$target/debug/libcuda_emulator.so" "$work/driver/libcuda.so"
export LD_LIBRARY_PATH="$work/driver"
# What cubecl runs to learn how fast the device is.
export CUDA_EMULATOR_SKIP=memory_direct_throughput,prime_buffer
# The loader of Vulkan, where it is compiled in, looks for a display there, and says so when it is missing.
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-$work}"

if [ -n "${TRAIN:-}" ]; then
    "$TRAIN" "$@"
    exit
fi
if [ -n "${REGISTERS:-}" ]; then
    CUDA_EMULATOR_PTX=$work/modules CUDA_EMULATOR_TRACE=$work/launches "$kernels"
    python3 scripts/gpu/registers.py "$CUDA_PATH/bin/ptxas" "$work/modules" "$work/launches" \
        product_f_bf16 two_products_f_bf16 swiglu_f_bf16 weight_gradient_f_bf16 \
        forward_f_bf16_i backward_queries_f_bf16 backward_keys_f_bf16 cross_entropy_f_bf16 adamw_g_f32 > "$REGISTERS"
else
    "$kernels"
fi
(cd trainer && "$steps" gpu::)

# A kernel that fails must end a run, and say so.
code=0
CUDA_EMULATOR_FAIL=cross_entropy "$target/debug/moe-train" bench --preset smoke --device cuda --seq-len 32 --vocab 64 \
    --steps 1 --repeats 1 > "$work/failed.log" 2>&1 || code=$?
if [ $code != 5 ] || ! grep -q "the device could not compute" "$work/failed.log"; then
    cat "$work/failed.log"
    echo "a failed kernel must end with exit code 5 and say so, not $code" >&2
    exit 1
fi
