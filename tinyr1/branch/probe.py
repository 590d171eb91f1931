"""How fast this machine trains: some seconds with layers of the run's model; `make plan ARGS=--probe` starts it.

    shape as JSON --random network of some MOST weights, bf16--> passes for SECONDS, there and back --> {"flops": ...}

The operations are those that the plan counts, so that the rate of the whole network follows from its own. What the
optimizer takes is not in it.
"""

import argparse
import json
import time

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from tinyr1.branch import products
from tinyr1.branch.attention import ATTENTION
from tinyr1.branch.causal_lm import PackedCausalLM
from tinyr1.branch.monitor import operations
from tinyr1.core import launch

MOST, SECONDS = 5e8, 10.0  # weights of the layers, of which there is one at least
SAMPLES = 4  # in a packed sequence


def measure(shape: dict, tokens: int, seconds: float = SECONDS) -> float:
    """Operations of the model in a second, in FLOP/s, on one device. tokens: of a packed sequence, all with loss."""
    heads = 2 * (shape["heads"] + shape["kv_heads"]) * shape["head_dim"]
    layers = max(1, min(shape["layers"], int(MOST / shape["width"] / (heads + 3 * shape["intermediate"]))))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = Qwen2Config(
        vocab_size=shape["vocabulary"], hidden_size=shape["width"], intermediate_size=shape["intermediate"],
        num_hidden_layers=layers, num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"], tie_word_embeddings=True, max_position_embeddings=tokens,
    )  # fmt: skip
    made = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation=ATTENTION).to(device)
    each = tokens // SAMPLES
    done = operations(made, [each] * SAMPLES) * each * SAMPLES
    model = PackedCausalLM(made)
    ids = torch.randint(shape["vocabulary"], (1, each * SAMPLES), device=device)
    ends = torch.arange(0, each * SAMPLES + 1, each, dtype=torch.int32, device=device)
    given = {"input_ids": ids, "labels": ids, "position_ids": torch.arange(each, device=device).repeat(SAMPLES)[None]}
    best, until = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < until:
        started = time.perf_counter()
        with products.of_this_processor():
            model(**given, cu_seq_lens=ends).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return done / best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("shape", type=json.loads, help="JSON of a tinyr1.plan.shapes.Shape")
    parser.add_argument("tokens", type=int, help="of a packed sequence")
    given = parser.parse_args()
    launch.die_with_parent()
    print(json.dumps({"flops": measure(given.shape, given.tokens)}))


if __name__ == "__main__":
    main()
