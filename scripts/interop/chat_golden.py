"""Writes what transformers makes of the chat templates of the tests: pipeline/tests/chat/golden.json and tokenizer.json.

    python3 -m venv venv && venv/bin/pip install transformers jinja2
    venv/bin/python scripts/interop/chat_golden.py                     # write the files of the tests
    venv/bin/python scripts/interop/chat_golden.py --templates DIR OUT # the same of every *.jinja in DIR, into OUT

PyTorch is not needed. The tests read the files; run this again when a template or a conversation changes.
"""

import argparse
import datetime
import json
import pathlib

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

ROOT = pathlib.Path(__file__).resolve().parents[2] / "pipeline/tests/chat"
DATE = "2024-07-26"
BOS, EOS = "<s>", "</s>"
# Those of all templates of the tests.
SPECIALS = [
    "<|endoftext|>", BOS, EOS, "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "[INST]", "[/INST]",
]


class Today(datetime.datetime):
    """The day that is written into the golden file."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(DATE)


chat_template_utils.datetime = Today


def message(role, content, **more):
    return {"role": role, "content": content, **more}


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Zürich \"<&>\\\n\t", "days": 2, "exact": 0.5, "units": None}}}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather's forecast — by day",
        "parameters": {"type": "object", "required": ["place"], "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
CONVERSATIONS = {
    "one turn": [message("user", "What is 2 + 2?"), message("assistant", "2 + 2 is 4.")],
    "two turns": [
        message("system", "Be brief."),
        message("user", "  Name a river.\n"),
        message("assistant", "\n The Rhine. "),
        message("user", "Naïve 😀 \"quotes\" <b> & 'more'\\n?"),
        message("assistant", "Fünf:\n\n1. a\n2. b"),
    ],
    "no system, two turns": [
        message("user", "Hi"),
        message("assistant", "Hello!"),
        message("user", "Bye"),
        message("assistant", "See you."),
    ],
    "a question": [message("user", "And now?")],
    "tools": [
        message("user", "Weather?"),
        message("assistant", "", tool_calls=[CALL]),
        message("tool", "{\"degrees\": 21}", name="weather"),
        message("assistant", "It is 21 degrees."),
    ],
    "reasoning": [
        message("user", "First?"),
        message("assistant", "<think>\nshort\n</think>\n\nOne."),
        message("user", "Second?"),
        message("assistant", "<think>\n\nlonger\n\n</think>\n\nTwo."),
    ],
    "two questions": [message("user", "a"), message("user", "b"), message("assistant", "c")],
    "begun by the assistant": [message("assistant", "Welcome."), message("user", "Hi"), message("assistant", "Yes?")],
    "no content": [message("user", "a"), {"role": "assistant", "content": None, "tool_calls": [CALL]}],
}


def make_tokenizer():
    """A byte-level BPE of 700 tokens with the special tokens of all templates."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = [part["content"] or "" for messages in CONVERSATIONS.values() for part in messages]
    tokenizer.train_from_iterator(text + [json.dumps(TOOL)] + ["system\nuser\nassistant\n"] * 3, trainer)
    return tokenizer


def rendered(fast, template, messages, prompt, tools):
    """Text, stretches of the assistant where the template marks them, or why there is none."""
    case = {"messages": messages, "tools": tools, "prompt": prompt}
    options = {"chat_template": template, "tools": tools, "add_generation_prompt": prompt}
    try:
        case["text"] = fast.apply_chat_template(messages, tokenize=False, **options)
    except Exception as error:  # What a template does wrong has any class.
        return case | {"error": str(error)}
    if "generation" in template and "endgeneration" in template:
        plain = chat_template_utils._normalize_chat_messages(messages)
        _, spans = chat_template_utils.render_jinja_template(
            [plain], tools=tools, chat_template=template, return_assistant_tokens_mask=True,
            add_generation_prompt=prompt, **fast.special_tokens_map,
        )
        # Of characters; the test counts in bytes.
        case["generated"] = [[len(case["text"][:at].encode()) for at in span] for span in spans[0]]
        both = fast.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **options
        )
        case["ids"] = both["input_ids"]
        case["mask"] = both["assistant_masks"]
    return case


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--templates", nargs=2, metavar=("DIR", "OUT"))
    given = arguments.parse_args().templates
    folder, out = map(pathlib.Path, given) if given else (ROOT / "templates", ROOT / "golden.json")
    tokenizer = make_tokenizer()
    if not given:
        tokenizer.save(str(ROOT / "tokenizer.json"), pretty=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS)
    golden = {"date": DATE, "variables": fast.special_tokens_map, "specials": SPECIALS, "templates": {}}
    for path in sorted(folder.glob("*.jinja")):
        template = path.read_text()
        cases = []
        for name, messages in CONVERSATIONS.items():
            prompts = [False, True] if name in ("a question", "no system, two turns") else [False]
            tools = [TOOL] if name == "tools" else None
            cases += [{"name": name} | rendered(fast, template, messages, prompt, tools) for prompt in prompts]
        golden["templates"][path.stem] = cases
    out.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
    n = sum(len(cases) for cases in golden["templates"].values())
    print(f"{out}: {len(golden['templates'])} templates, {n} cases")


main()
