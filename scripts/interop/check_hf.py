"""Compares an exported model with transformers and, where there is a GGUF file, with llama.cpp. Without arguments: the head of the table.

Usage: check_hf.py [NAME FOLDER]   (FOLDER: as scripts/interop/hf.sh leaves it)
"""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent))
import check_gguf

CLOSE = 1e-4


def logits_apart(model, read):
    """Largest difference of two logits, where documents are packed and where each is alone."""
    tokens, positions, segments = (read[name].long() for name in ("tokens", "positions", "segments"))
    packed = alone = 0.0
    n = 0
    for sample in range(len(tokens)):
        ours, real = read["logits"][sample], segments[sample] >= 0
        theirs = model(tokens[sample : sample + 1], position_ids=positions[sample : sample + 1], use_cache=False)
        packed = max(packed, (theirs.logits[0] - ours)[real].abs().max().item())
        for segment in segments[sample][real].unique():
            own = segments[sample] == segment
            theirs = model(tokens[sample][own][None], use_cache=False)
            alone = max(alone, (theirs.logits[0] - ours[own]).abs().max().item())
            n += 1
    return packed, alone, n


def greedy(model, tokenizer, ours):
    """Whether tokens of the prompt, of what follows it, and the text are the same."""
    prompt = tokenizer(ours["prompt"], return_tensors="pt").input_ids
    made = model.generate(prompt, max_new_tokens=ours["new_tokens"], do_sample=False)[0]
    return made.tolist() == ours["tokens"] and tokenizer.decode(made) == ours["text"]


@torch.no_grad()
def main(name, folder):
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "hf")
    packed, alone, n = logits_apart(model, load_file(folder / "logits.safetensors"))
    ours = json.loads((folder / "greedy.json").read_text())
    same = greedy(model, tokenizer, ours)
    model.save_pretrained(folder / "saved")
    tokenizer.save_pretrained(folder / "saved")
    gguf = check_gguf.compare(folder, model, ours)
    said = "yes" if same else "NO"
    print(f"| {name} | {type(model).__name__} | {packed:.1e} | {alone:.1e} ({n}) | {said} | {gguf} |", flush=True)
    if not same or max(packed, alone) > CLOSE:
        sys.exit(f"{name}: not the same model")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        main(sys.argv[1], Path(sys.argv[2]))
    else:
        print(f"transformers {transformers.__version__}, torch {torch.__version__}, {check_gguf.version()}\n")
        print("| model | class | logit difference, packed | separately (documents) | same greedy text | llama.cpp |")
        print("| --- | --- | --- | --- | --- | --- |")
