"""A tiny network that knows three answers by heart, one of them without an end to its reasoning."""

from pathlib import Path

import pytest

from tinyr1.core import prompts

KNOWN = {
    "What is 2 + 2": "Two and two\nmake four.\n</think>\n\nIt is \\boxed{4}.",
    "What is 3 + 4": "Three, four:</think>so \\boxed{7}!",
    "Count for ever": "one " * 30,
}


def byte_tokenizer():
    """A token for each byte, the tags of the template, and think tags that are no special tokens, as R1's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=letters, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|im_end|>")
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    made.add_tokens([prompts.THINK_OPEN, prompts.THINK_CLOSE])
    made.chat_template = prompts.R1_TEMPLATE
    return made


def train(folder: Path) -> None:
    """Trains the network, which takes some seconds, and stores it in `folder`."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, Qwen2Config

    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    end = tokenizer.eos_token_id
    model = AutoModelForCausalLM.from_config(Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=1024, bos_token_id=end, eos_token_id=end,
        pad_token_id=end,
    ), dtype=torch.float32)  # fmt: skip
    asked = [prompts.encode_prompt(tokenizer, f"{question}?") for question in KNOWN]
    answers = [tokenizer.encode(answer) + [end] for answer in KNOWN.values()]
    width = max(len(a) + len(b) for a, b in zip(asked, answers, strict=True))
    rows = [a + b + [end] * (width - len(a + b)) for a, b in zip(asked, answers, strict=True)]
    marks = [[-100] * len(a) + b + [-100] * (width - len(a + b)) for a, b in zip(asked, answers, strict=True)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(500):
        loss = model(input_ids=torch.tensor(rows), labels=torch.tensor(marks)).loss
        if loss < 0.005:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.05, "the model knows its answers"
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
