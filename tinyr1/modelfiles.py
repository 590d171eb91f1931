"""What a checkpoint folder consists of beside its weights, by name: files of the tokenizer, keys of config.json."""

# All that decides how text becomes token ids, chat template included, in the forms that transformers writes and reads.
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "chat_template.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model",
)  # fmt: skip
# A whole checkpoint, as patterns: what is fetched from a hub, and what makes one model another.
CHECKPOINT = ("*.safetensors", "*.json", *TOKENIZER_FILES)
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
# Keys of config.json that say where a checkpoint comes from and how it is run, not what network it is.
PROVENANCE = ("_name_or_path", "transformers_version", "use_cache", "torch_dtype", "dtype")
