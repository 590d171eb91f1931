r"""What a server's reply means: an answer, or a failure of one of the kinds of `tinyr1.sampling.requests.Failure`.

    HTTP 200, body --read_body--> choices[0] with a text? --finish reason--> Answer | Failure with what came
                                    \-- no --> Failure with the whole body, in which nothing that was paid for is lost
    other status, body --failure_of--> Failure: passing | own | too_long | refused | fatal, by status, code and wording

Nothing is taken for granted of a body: servers of this API differ in all that its description leaves open.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from tinyr1.core import jsonl
from tinyr1.core.prompts import THINK_CLOSE, THINK_OPEN
from tinyr1.sampling.requests import Answer, Failure, Kind, Request
from tinyr1.sampling.responses import FAILED, UNKNOWN, failure_kind, finish_of

SHOWN = 300  # characters of a server's message that a reason quotes
PASSING = (408, 409, 424, 425, 429)  # HTTP status that another moment may change, as those from 500 on; TGI has 424
FATAL = {
    401: "check the key (engine.api_key_variable)",
    402: "the account has nothing left to pay with",
    403: "the key (engine.api_key_variable) may not use this model",
    404: "check engine.model and engine.base_url",
}  # every request would meet them
# How a refusal to process a question is worded: codes and messages of Azure and OpenAI, DeepSeek's message, Alibaba's
# code, the messages of OpenRouter and xAI.
REFUSALS = ("content_filter", "content_policy_violation", "responsibleaipolicyviolation", "violating our usage policy",
            "content exists risk", "data_inspection_failed", "datainspectionfailed", "sensitivecontentdetected",
            "input was flagged", "violates usage guidelines")  # fmt: skip
# How a prompt that does not fit is worded by OpenAI, vLLM and SGLang (context length, model length), llama.cpp (context
# size), TGI (`inputs`), Google (input token count), Anthropic, Amazon and Cohere (too long, too many tokens), Alibaba
# (range of input length), and by TensorRT-LLM, LMDeploy and TabbyAPI, which name their setting.
TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|(?:prompt|input)\b.{0,60}\bis too long|`inputs` must have less than"
    r"|`inputs` tokens \+ `max_new_tokens`|input token(?:s| count)\b.*\bexceed|maximum model length|too many tokens"
    r"|input prompt\b.*\btoo long|range of input length|\b(?:max_num_tokens|session_len|max_seq_len)\b",
    re.IGNORECASE | re.DOTALL,
)
# How a parameter that the server does not know is worded: OpenAI's code and words, and those of pydantic.
UNSUPPORTED = re.compile(r"unsupported|not supported|unrecognized|unknown|not permitted|unexpected", re.IGNORECASE)
LIMITS = ("max_tokens", "max_completion_tokens")  # the two names of the longest answer
# How a longest answer is refused that is longer than the server's own.
LIMIT_TOO_LARGE = re.compile(r"\bmax_(?:completion_)?tokens\b.{0,40}\b(?:too large|at most)\b", re.IGNORECASE)
LARGEST = 1 << 53  # no number of tokens


# --- refusals -----------------------------------------------------------------------------------------------


def failure_of(status: int, body: bytes, limit_name: str) -> Failure:
    """The failure that an HTTP status other than 200 means, with the body that came with it.

    limit_name: the name by which the longest answer was sent.
    """
    message, code, parameter = told_by(jsonl.parse(body)[0], body)
    return classified(status, message, code, parameter, limit_name)


def told_by(body: object, raw: bytes) -> tuple[str, str, str]:
    """(message, code, name of the parameter at fault) of an error body; the raw body where it has another form."""
    inner = body.get("error", body) if isinstance(body, Mapping) else body
    if not isinstance(inner, Mapping):
        return inner if isinstance(inner, str) else raw.decode("utf-8", "replace"), "", ""
    said = next((inner[name] for name in ("message", "detail", "msg") if inner.get(name)), inner)
    message = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    # Azure names the filter in `code`, llama.cpp the reason in `type`.
    words = (str(inner.get(name) or "") for name in ("code", "type"))
    return message, " ".join(words).strip(), str(inner.get("param") or "")


def classified(status: int, message: str, code: str, parameter: str, limit_name: str) -> Failure:
    """The failure that a status with a message, a code and a parameter means; ("", "") where there are none."""
    reason, words = f"HTTP {status}: {message[:SHOWN]}", f"{message} {code}"
    if any(refusal in words.lower() for refusal in REFUSALS):
        return Failure(reason, "refused", Answer("", 0, "content_filter", None, 0))
    if status not in (*FATAL, 429) and TOO_LONG.search(words):
        return Failure(f"HTTP {status}, too long for the server: {message[:SHOWN]}", "too_long")
    if status in (400, 422) and LIMIT_TOO_LARGE.search(message):
        return Failure(f"{reason}; lower max_tokens of the benchmark (--max-tokens)", "fatal")
    if status in (400, 422) and UNSUPPORTED.search(words):
        other = next(name for name in LIMITS if name != limit_name)
        if parameter == limit_name or re.search(rf"\b{limit_name}\b", message):
            return Failure(f"{reason}; set engine.max_tokens_name: {other} (--max-tokens-name {other})", "fatal")
        if code.startswith("unsupported"):
            return Failure(f"{reason}; the server takes no request with this setting", "fatal")
    if status in FATAL:
        return Failure(f"{reason}; {FATAL[status]}", "fatal")
    if "insufficient_quota" in code:
        return Failure(f"{reason}; {FATAL[402]}", "fatal")
    if "model_not_found" in code:
        return Failure(f"{reason}; {FATAL[404]}", "fatal")
    return Failure(reason, "passing" if status in PASSING or status >= 500 else "own")


# --- replies ------------------------------------------------------------------------------------------------


REASONING = ("thinking", "reasoning", "reasoning_content")  # types of parts, and the names of what they hold


class _NoCompletion(ValueError):
    """Why a body is no completion."""


def read_body(raw: bytes, request: Request, limit_name: str = LIMITS[0]) -> Answer | Failure:
    """The answer in the body of a reply with HTTP status 200, or the reason why it holds none. Never an error.

    A failure has in `sent` what came: the text of the first choice, for one is asked for, or else the whole body.
    """
    body, why = jsonl.parse(raw)
    try:
        if why:
            raise _NoCompletion(why)
        return _read(body, request)
    except _NoCompletion as error:
        kind: Kind = "passing"
        if isinstance(body, Mapping) and (said := _error_in(body)):
            status = said.get("code") if isinstance(said, Mapping) else None
            # An error without a status of its own may pass, unless its words say otherwise.
            status = status if type(status) is int and 400 <= status < 600 else 500
            kind = classified(status, *told_by({"error": said}, raw), limit_name).kind
        came = Answer(raw.decode("utf-8", "replace"), 0, FAILED, request.seed, 0)
        if kind == "refused":
            came = Answer(came.text, 0, "content_filter", request.seed, 0)
        return Failure(f"the reply is no completion: {error}", kind, came)


def _error_in(body: Mapping) -> Any:
    """What a body says of an error; None where it says nothing."""
    return body.get("error") or (body if body.get("object") == "error" else None)


def _read(body: Any, request: Request) -> Answer | Failure:
    """The answer or the failure in a body. _NoCompletion where its first choice has no text that can be read."""
    choice = _first_choice(body)
    message = choice.get("message")
    text = whole_text(message) if isinstance(message, Mapping) else None
    text = choice.get("text") if text is None else text
    if not isinstance(text, str | None):
        raise _NoCompletion(f"its text is a {type(text).__name__}")
    if not isinstance(message, Mapping) and text is None:
        raise _NoCompletion("its choice has no text and no message")
    usage = body.get("usage")
    n_tokens = _count(usage, "completion_tokens")
    finish = _finish(choice.get("finish_reason"), n_tokens, request)
    refusal = _refusal(message) if isinstance(message, Mapping) else None
    kind, told = failure_kind(finish), f"the server ended it with {finish!r}{_why(choice)}"
    if refusal and isinstance(refusal, str):
        text, finish, kind, told = _joined(text, refusal), "content_filter", "refused", "the model refused to answer"
    elif (choice.get("error") or body.get("error")) and not kind:
        finish, kind, told = FAILED, "passing", f"the server broke it off{_why(choice) or _why(body)}"
    elif not text and finish != "length" and not kind and (text is None or finish == UNKNOWN or n_tokens == 0):
        finish, kind, told = FAILED, "passing", "its message has neither content nor reasoning"
    answer = Answer(text or "", n_tokens, finish, request.seed, _count(usage, "prompt_tokens"))
    return Failure(told, kind, answer) if kind else answer


def _first_choice(body: Any) -> Mapping:
    choices = body.get("choices") if isinstance(body, Mapping) else None
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return choices[0]
    said = _error_in(body) if isinstance(body, Mapping) else None
    raise _NoCompletion(f"it says {said!r}"[:SHOWN] if said else "it holds no choice with text or message")


def _finish(reason: object, n_tokens: int | None, request: Request) -> str:
    """The finish reason as it is stored; where the server gives none, it is "length" if the answer is that long."""
    finish = finish_of(reason)
    full = n_tokens is not None and n_tokens >= request.sampling["max_tokens"]
    return "length" if finish == UNKNOWN and full else finish


def _why(place: Mapping) -> str:
    """What OpenRouter says of a generation that failed, in the choice itself or beside it."""
    return f": {place['error']!r}"[:SHOWN] if place.get("error") else ""


def _refusal(message: Mapping) -> object:
    """The text with which a model refused, in a field of its own or as a part of the content."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    refused = (part.get("refusal") for part in parts if isinstance(part, Mapping) and part.get("type") == "refusal")
    return message.get("refusal") or next(refused, None)


def _count(usage: object, name: str) -> int | None:
    """A number of tokens from the usage of a reply; None where the server does not count, or not with whole numbers."""
    value = usage.get(name) if isinstance(usage, Mapping) else None
    return value if type(value) is int and 0 <= value < LARGEST else None


# --- reasoning ----------------------------------------------------------------------------------------------


def whole_text(message: Mapping) -> str | None:
    """All that a model wrote; None where that is nothing. Reasoning that the server cut out is put back before its
    closing tag, or behind the opening one where no answer follows it. _NoCompletion where the content has another form.

    vLLM cuts at the tag and keeps the blanks around it; then the text is the model's own to the letter. Other servers
    strip both parts, and get the line ends that models of this kind write.
    """
    thoughts, content = _parts(message.get("content"))
    apart = [message.get(name) for name in ("reasoning", "reasoning_content")]
    # Some servers send the same reasoning under both names.
    found = dict.fromkeys(text for text in (*apart, thoughts) if text and isinstance(text, str))
    reasoning = "\n".join(found)
    if not reasoning:
        return content
    if not content:
        return f"{THINK_OPEN}\n{reasoning}"
    kept = reasoning[-1].isspace() or content[0].isspace()
    return f"{reasoning}{THINK_CLOSE}{content}" if kept else f"{reasoning}\n{THINK_CLOSE}\n\n{content}"


def _parts(content: Any) -> tuple[str, str | None]:
    """(reasoning, text) of a content: a string, null, or a list of parts, as Mistral's models have it.

    A part is a string, {type: text, text: …} or {type: thinking, thinking: parts}; other servers call the second
    reasoning, with the text under that name or as `text`. A part of another kind is left out if it holds no text, such
    as the numbers of references, or only what nobody can read. _NoCompletion where the content is another thing.
    """
    if not isinstance(content, list):
        if isinstance(content, str | None):
            return "", content
        raise _NoCompletion(f"its text is a {type(content).__name__}")
    thoughts, texts = "", ""
    for part in content:
        if isinstance(part, str):
            texts += part
            continue
        if not isinstance(part, Mapping):
            raise _NoCompletion("a part of the content is neither an object nor a string")
        if part.get("type") in REASONING:
            written = next((part[name] for name in (*REASONING, "text") if part.get(name)), None)
            thoughts += "".join(filter(None, _parts(written)))
        elif part.get("type") in ("redacted_thinking", "refusal"):
            continue
        elif isinstance(part.get("text"), str):
            texts += part["text"]
        elif any(_holds_text(value) for name, value in part.items() if name != "type"):
            raise _NoCompletion(f"a part of the content is of the unknown type {part.get('type')!r}")
    return thoughts, texts or None


def _holds_text(value: object) -> bool:
    """Whether a JSON value holds a string that is not empty."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return bool(value) if isinstance(value, str) else any(_holds_text(one) for one in inner)


def _joined(*texts: str | None) -> str:
    return "\n\n".join(text for text in texts if text)
