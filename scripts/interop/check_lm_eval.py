"""Compares `moe-train eval --tasks` with lm-eval on the same model.

Called by lm-eval.sh. Arguments: the folder of `moe-train export --to hf`, the JSON of `moe-train eval --json` and its
`--answers`, and optionally a file for the numbers of lm-eval. Each argument after `--` is a task: NAME=DEFINITION=FILES, where
DEFINITION is a key of TASKS and FILES a pattern.
"""

import glob
import json
import math
import sys

CHOICE = ["acc", "acc_norm", "acc_bytes"]
# The fields of lm-eval's own task files, for data sets that lie on the disk.
TASKS = {
    "arc_easy": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{query}}\nAnswer:",
        "doc_to_target": "gold",
        "doc_to_choice": "choices",
    },
    "ai2_arc": {
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{choices.label.index(answerKey)}}",
        "doc_to_choice": "{{choices.text}}",
    },
    "question": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices.label.index(answerKey)}}",
        "doc_to_choice": "{{choices.text}}",
    },
    "blimp": {
        "output_type": "multiple_choice",
        "doc_to_text": "",
        "doc_to_target": 0,
        "doc_to_choice": "{{[sentence_good, sentence_bad]}}",
    },
    "pairs": {
        "output_type": "multiple_choice",
        "doc_to_text": "",
        "doc_to_target": 0,
        "doc_to_choice": "{{[good, bad]}}",
    },
    "last_word": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{FIELD.split(' ')[:-1]|join(' ')}}",
        "doc_to_target": "{{' '+FIELD.split(' ')[-1]}}",
    },
    "whole": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{FIELD}}"},
}
METRICS = {
    "multiple_choice": [(name, "mean") for name in CHOICE],
    "loglikelihood": [("perplexity", "perplexity"), ("acc", "mean")],
    "loglikelihood_rolling": [
        ("word_perplexity", "weighted_perplexity"),
        ("byte_perplexity", "weighted_perplexity"),
        ("bits_per_byte", "bits_per_byte"),
    ],
}


def configuration(name, definition, files):
    """A task of lm-eval; DEFINITION:N has N examples, the first ones, and DEFINITION/FIELD names a field."""
    definition, _, shots = definition.partition(":")
    definition, _, field = definition.partition("/")
    task = {key: value.replace("FIELD", field) if isinstance(value, str) else value for key, value in TASKS[definition].items()}
    metrics = METRICS[task["output_type"]]
    task |= {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": sorted(glob.glob(files))}},
        "test_split": "test",
        "num_fewshot": int(shots or 0),
        "metric_list": [
            {"metric": metric, "aggregation": aggregation, "higher_is_better": True} for metric, aggregation in metrics
        ],
    }
    if shots:
        task["fewshot_split"] = "test"
        task["fewshot_config"] = {"sampler": "first_n"}
    return task


def main():
    import lm_eval
    import torch
    from lm_eval.models.huggingface import HFLM

    own, tasks = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    torch.set_num_threads(2)
    tasks = [task.split("=", 2) for task in tasks]
    model = HFLM(pretrained=own[0], dtype="float32", device="cpu", batch_size=64, add_bos_token=False)
    configurations = [configuration(*task) for task in tasks]
    found = lm_eval.simple_evaluate(model=model, tasks=configurations, bootstrap_iters=1000, log_samples=True)
    ours = json.load(open(own[1]))["tasks"]
    answers = {}
    for line in open(own[2]):
        answer = json.loads(line)
        answers.setdefault(answer["task"], []).append(answer["log_likelihoods"])

    print("| task | questions | number | moe-train | lm-eval | standard errors | largest log-likelihood difference |")
    print("| --- | ---: | --- | ---: | ---: | --- | ---: |")
    numbers, is_equal = {}, True
    for name, _, _ in tasks:
        samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
        theirs = [[value if isinstance(value, float) else value[0] for value in flat(sample["resps"])] for sample in samples]
        apart = max(abs(a - b) for x, y in zip(answers[name], theirs, strict=True) for a, b in zip(x, y, strict=True))
        metrics = {}
        for key, value in found["results"][name].items():
            metric, _, filtered = key.partition(",")
            if not filtered or metric.endswith("_stderr"):
                continue
            metrics[metric] = value
            mine = ours[name][metric]
            errors = [ours[name].get(metric + "_stderr"), found["results"][name].get(f"{metric}_stderr,{filtered}")]
            errors = ", ".join(digits(error) if isinstance(error, float) else "none" for error in errors)
            print(f"| {name} | {len(samples)} | {metric} | {digits(mine)} | {digits(value)} | {errors} | {apart:.0e} |")
            is_equal &= math.isclose(mine, value, rel_tol=5e-5, abs_tol=5e-5)
        numbers[name] = {"metrics": metrics, "log_likelihoods": theirs}
    if len(own) > 3:
        json.dump(numbers, open(own[3], "w"), indent=1)
    if not is_equal:
        sys.exit("the numbers differ")


def digits(number):
    return f"{number:.4f}" if abs(number) < 1e6 else f"{number:.4e}"


def flat(responses):
    """The responses of a question, which lm-eval nests by request and repetition."""
    for response in responses:
        yield response[0] if isinstance(response, list) else response


if __name__ == "__main__":
    main()
