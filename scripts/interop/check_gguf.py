"""Reads GGUF files with the package gguf, and opens them with llama.cpp (package xllamacpp, which has it compiled)."""

import json
import subprocess
import sys

import torch


def version():
    import gguf  # has no version of its own
    import importlib.metadata as metadata

    assert gguf.GGUFReader
    return f"gguf {metadata.version('gguf')}, llama.cpp of xllamacpp {metadata.version('xllamacpp')}"


def compare(folder, model, ours):
    """What llama.cpp makes of the files of a folder: whether it goes on with the same tokens from the same text, and how far its
    log-probabilities are from those of transformers."""
    files = [folder / f"{kind}.gguf" for kind in ("f32", "f16", "q8_0")]
    found = [f"{path.stem}: {compare_file(path, model, ours)}" for path in files if path.exists()]
    return "; ".join(found) if found else "refused"


def compare_file(path, model, ours):
    import gguf

    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    embedding = gguf.quants.dequantize(tensors["token_embd.weight"].data, tensors["token_embd.weight"].tensor_type)
    far = abs(embedding - model.get_input_embeddings().weight.numpy()).max()
    most = {"f32": 0.0, "f16": 2e-4, "q8_0": 2e-3}[path.stem]
    assert far <= most, f"the embedding as read by gguf is off by {far}"
    n_prompt = len(ours["tokens"]) - ours["new_tokens"]
    # In a process of its own, which it may end.
    request = {"path": str(path), "prompt": ours["prompt"], "n": ours["new_tokens"]}
    done = subprocess.run([sys.executable, __file__], input=json.dumps(request), capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    if not lines:
        errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        return f"not opened: {errors[0] if errors else done.returncode}"
    steps = json.loads(lines[0].removeprefix("ANSWER "))["choices"][0]["logprobs"]["content"]
    made = [step["id"] for step in steps]
    apart = 0.0
    tokens = ours["tokens"][:n_prompt]
    for step in steps:
        expected = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].log_softmax(-1)
        apart = max([apart] + [abs(expected[top["id"]].item() - top["logprob"]) for top in step["top_logprobs"]])
        tokens = tokens + [step["id"]]
    same = made == ours["tokens"][n_prompt:]
    return f"{'same' if same else 'other'} tokens, {apart:.0e} apart"


def answer(path, prompt, n):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_gpu_layers = 0
    params.n_ctx = 256
    params.warmup = False
    params.cpuparams.n_threads = 1
    # By default keys and values are kept in 16 bits.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    request = {"prompt": prompt, "n_predict": n, "temperature": 0.0, "n_probs": 5, "cache_prompt": False}
    return server.handle_completions(request)


if __name__ == "__main__":
    found = answer(**json.load(sys.stdin))
    print("ANSWER", found if isinstance(found, str) else json.dumps(found), flush=True)
