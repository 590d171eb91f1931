"""The chat template of a merge where it is not that of the tokenizer: `chat_template` of a recipe file.

Jinja text is taken as it is, `chatml` is the template of that name, and `auto` the one that most models have.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tinyr1.core.checkpoints import read_object
from tinyr1.core.errors import UserError
from tinyr1.merge.beside import NAMED_TEMPLATES

FILE = "chat_template.jinja"
OF_PROCESSOR = "chat_template.json"
AUTO = "auto"
TEMPLATES = {
    "chatml": "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
}


def resolve(wanted: str, folders: Iterable[Path]) -> str:
    """The Jinja text for `chat_template`. UserError for an unknown name, and for `auto` where no model has one."""
    if wanted in TEMPLATES:
        return TEMPLATES[wanted]
    if wanted == AUTO:
        found = Counter(text for folder in folders if (text := of_model(folder)) is not None)
        if not found:
            raise UserError("chat_template: auto takes that of most models, and none has one; leave it out")
        return found.most_common(1)[0][0]
    if "{" not in wanted:
        known = ", ".join([*TEMPLATES, AUTO])
        raise UserError(f"chat_template: {wanted!r} is neither {known} nor Jinja text; write the template itself")
    return wanted


def of_model(folder: Path) -> str | None:
    """The default chat template of a checkpoint, None where it has none."""
    if (folder / FILE).is_file():
        return (folder / FILE).read_text(encoding="utf-8")
    said = (read_object(folder / "tokenizer_config.json") or {}).get("chat_template")
    if isinstance(said, list):  # named ones
        named = {one.get("name"): one.get("template") for one in said if isinstance(one, dict)}
        said = named.get("default")
    if not isinstance(said, str):  # of a processor, in older releases of transformers
        said = (read_object(folder / OF_PROCESSOR) or {}).get("chat_template")
    return said if isinstance(said, str) else None


def write(text: str, out: Path) -> None:
    """Make a text the default chat template of the tokenizer in `out`; templates with other names stay."""
    (out / FILE).write_text(text, encoding="utf-8")
    (out / OF_PROCESSOR).unlink(missing_ok=True)
    config = read_object(out / "tokenizer_config.json")
    said = config.pop("chat_template", None) if config is not None else None
    for one in said if isinstance(said, list) else ():
        name, template = (one.get("name"), one.get("template")) if isinstance(one, dict) else (None, None)
        if isinstance(name, str) and isinstance(template, str) and name != "default" and "/" not in name:
            file = out / NAMED_TEMPLATES / f"{name}.jinja"
            file.parent.mkdir(exist_ok=True)
            file.write_text(template, encoding="utf-8")
    if said is not None:
        content = json.dumps(config, indent=2, ensure_ascii=False)
        (out / "tokenizer_config.json").write_text(content + "\n", encoding="utf-8")
