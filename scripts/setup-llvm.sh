#!/usr/bin/env bash
# Makes `cargo build --features cuda` possible where the LLVM bundle of burn's CUDA compiler cannot be
# downloaded: uses Debian's LLVM 22 instead. Does nothing if the bundle is already there,
# or if it can be downloaded (the build then does so itself). The default build does not need this.
. "$(dirname "$0")/lib.sh"

bundle=tracel-llvm-23.1.0-4
home="${XDG_DATA_HOME:-$HOME/.local/share}/tracel/$bundle"

if [ -e "$home/.tracel-llvm-installed" ]; then
    echo "setup-llvm: $home exists, nothing to do"
    exit 0
fi
if curl --silent --fail --head --location --max-time 10 --output /dev/null \
    https://github.com/tracel-ai/tracel-llvm/releases; then
    echo "setup-llvm: the build will download its LLVM itself, nothing to do"
    exit 0
fi

llvm=/usr/lib/llvm-22
if [ ! -x "$llvm/bin/llvm-config" ]; then
    debian g++ llvm-22-dev libzstd-dev libz3-dev libxml2-dev zlib1g-dev libcurl4-openssl-dev
fi

mkdir -p "$home/bin"
ln -sfn "$llvm/lib" "$home/lib"
ln -sfn "$llvm/include" "$home/include"
# The build only asks llvm-config. Debian ships no static Polly, and names libz3 by its path.
cat >"$home/bin/llvm-config" <<'SH'
#!/bin/sh
out=$(/usr/lib/llvm-22/bin/llvm-config "$@") || exit $?
printf '%s\n' "$out" | sed -E 's/-lPolly(ISL)?( |$)/ /g; s#/usr/lib/[^ ]*/libz3\.so#-lz3#g'
SH
chmod +x "$home/bin/llvm-config"
touch "$home/.tracel-llvm-installed"
echo "setup-llvm: $home now uses Debian's LLVM $("$home/bin/llvm-config" --version)"
