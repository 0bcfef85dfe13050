#!/usr/bin/env bash
# Compares the GPU kernels with their plain forms, and a model's steps on a GPU with those on the CPU, through Vulkan. Without a GPU it
# installs a software GPU, Mesa's lavapipe (Debian: mesa-vulkan-drivers), and uses that.
#
#   scripts/test-gpu-kernels.sh [FEATURES]      default wgpu
#
# PACKAGES=--workspace compiles with what `cargo test --workspace` has compiled already, instead of only what these tests need.
. "$(dirname "$0")/lib.sh"
cd "$repo"
if ! ls /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json >/dev/null 2>&1; then
    debian mesa-vulkan-drivers libvulkan1
fi
if ! ls /dev/dri/renderD* >/dev/null 2>&1; then
    export CUBECL_WGPU_DEFAULT_DEVICE=Cpu
fi
# The loader of Vulkan looks for a display there, and says so when it is missing.
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-$(mktemp -d)}"
tests="cargo test ${PACKAGES:---package moe-kernels --package moe-train} --features $(gpu_features "${1:-wgpu}")"
$tests --test main
$tests --test it gpu::
