"""Replies of servers: no body is an error of ours, no text is lost, and each kind of refusal is known by its words."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plans import SAMPLING

from tinyr1.sampling import replies, responses
from tinyr1.sampling.requests import Answer, Failure, Request

ASKED = Request(0, "q", 0, None, SAMPLING | {"seed": 7}, messages=[{"role": "user", "content": "2 + 2?"}])

# --- any body -------------------------------------------------------------------------------------------------

MARKED = st.integers(1, 10**6).map(lambda n: f"text-{n}-")  # found again in whatever is stored
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | MARKED | st.just("") | st.just("stop")
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3)
                      | st.dictionaries(st.sampled_from(["type", "text", "thinking", "message", "code", "error"]),
                                        inner, max_size=3), max_leaves=6)  # fmt: skip
PARTS = st.lists(st.fixed_dictionaries({}, optional={
    "type": st.sampled_from(["text", "thinking", "image"]) | VALUES, "text": VALUES, "thinking": VALUES,
}) | VALUES, max_size=3)  # fmt: skip
MESSAGES = st.fixed_dictionaries({}, optional={
    "content": MARKED | PARTS | VALUES, "reasoning": MARKED | VALUES, "reasoning_content": MARKED | VALUES,
    "refusal": st.none() | VALUES, "role": st.just("assistant"),
})  # fmt: skip
FINISHES = st.sampled_from(["stop", "length", "abort", "error", "content_filter", "tool_calls"]) | VALUES
CHOICES = st.fixed_dictionaries({}, optional={
    "message": MESSAGES | VALUES, "text": MARKED | VALUES, "finish_reason": FINISHES, "error": VALUES,
})  # fmt: skip
USAGES = VALUES | st.fixed_dictionaries({}, optional={"completion_tokens": VALUES, "prompt_tokens": VALUES})
BODIES = st.fixed_dictionaries({}, optional={
    "choices": st.lists(CHOICES, min_size=1, max_size=1) | VALUES, "usage": USAGES, "error": VALUES,
}) | VALUES  # fmt: skip


def texts_in(choice):
    """The texts that a choice holds where texts stand: content, its parts, reasoning, a refusal, a completion."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return [choice["text"]] if isinstance(choice.get("text"), str) else []
    content = message.get("content")
    found = [message.get(name) for name in ("reasoning", "reasoning_content", "refusal")] + [content]
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict):
            found.append(part.get("thinking") if part.get("type") == "thinking" else part.get("text"))
    return [text for text in found if isinstance(text, str)]


@settings(max_examples=400, deadline=None)
@given(BODIES)
@example({"choices": [{"message": {"content": "text-1-", "refusal": "text-2-"}}]})
@example({"choices": [{"message": {"content": None}, "text": "text-1-"}]})
@example({"choices": [{"message": {"content": "text-1-", "reasoning": "text-2-", "reasoning_content": "text-3-"}}]})
@example({"choices": [{"message": {"content": "text-1-"}, "finish_reason": "abort", "error": {"code": 502}}]})
@example({"error": {"code": 10**30, "message": ["text-1-"]}})
@example({"choices": [{"message": {"content": "text-1-"}}], "usage": {"completion_tokens": 10**400}})
def test_no_body_is_an_error_of_ours_and_none_loses_a_text(body):
    raw = json.dumps(body).encode()
    result = replies.read_body(raw, ASKED)
    came = result.sent if isinstance(result, Failure) else result
    if isinstance(result, Failure):
        assert result.kind in (*responses.KINDS, "fatal")
        assert responses.failure_kind(came.finish), "the store never takes it for an answer"
    else:
        assert not responses.failure_kind(came.finish)
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    for text in texts_in(choice) if isinstance(choice, dict) else ():
        assert text in came.text
    if isinstance(result, Failure) and result.reason.startswith("the reply is no completion"):
        assert came.text == raw.decode(), "the whole body is kept"


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(300, 599))
@example(b'{"error": {"message": null, "code": ["x"], "param": {}}}', 400)
@example(b"[" * 100_000, 500)
def test_no_bytes_are_an_error_of_ours(raw, status):
    assert isinstance(replies.read_body(raw, ASKED), Failure)
    assert isinstance(replies.failure_of(status, raw, "max_tokens"), Failure)


# --- kinds of failures ----------------------------------------------------------------------------------------


def error(message, **more):
    return json.dumps({"error": {"message": message, **more}}).encode()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, error("This model's maximum context length is 8192 tokens. However, you requested 9000 tokens.",
                    code="context_length_exceeded", param="messages")),
        (400, error("too much", code="context_length_exceeded")),
        (400, error("Input tokens exceed the configured limit of 272000 tokens.")),
        (400, b'{"object": "error", "message": "The input (30 tokens) is longer than the model\'s context length (20 '
              b'tokens).", "code": 400}'),
        (400, error("Requested token count exceeds the model's maximum context length of 4096 tokens.")),
        (400, error("request (50 tokens) exceeds the available context size (40 tokens), try increasing it", code=400,
                    type="exceed_context_size_error")),
        (500, error("the request exceeds the available context size. try increasing the context size")),
        (422, b'{"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 1500 '
              b'`inputs` tokens and 1000 `max_new_tokens`", "error_type": "validation"}'),
        (422, b'{"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 1500"}'),
        (413, error("prompt is too long: 250000 tokens > 200000 maximum")),
        (400, error("The decoder prompt (length 9000) is longer than the maximum model length of 8192.")),
        (400, error("Input prompt (9000 tokens) is too long and exceeds limit of 8192")),
        (400, error("Range of input length should be [1, 30720]")),
        (400, error("Input is too long for requested model.")),
        (400, error("too many tokens: total number of tokens in the prompt cannot exceed 4081")),
        (400, error("Prompt length (9000) exceeds max_num_tokens (8192)")),
    ],
)  # fmt: skip
def test_a_prompt_that_is_too_long_is_known_by_the_words_of_each_server(status, body):
    found = replies.failure_of(status, body, "max_tokens")
    assert found.kind == "too_long"
    assert found.reason.startswith(f"HTTP {status}, too long for the server: ")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, error("bad temperature"), "own"), (413, b"<html>too large", "own"), (418, b"", "own"),
        *((status, error("busy"), "passing") for status in (408, 409, 425, 429, 500, 502, 503, 504, 529)),
        (429, error("Rate limit reached: context length counts"), "passing"),
        (429, error("You exceeded your current quota", code="insufficient_quota"), "fatal"),
        *((status, error("no"), "fatal") for status in (401, 402, 403, 404)),
        (400, error("no such model", code="model_not_found"), "fatal"),
        (400, error("Content Exists Risk"), "refused"), (400, error("no", code="content_filter"), "refused"),
        (403, error("Your input was flagged"), "refused"), (400, error("x", code="data_inspection_failed"), "refused"),
        (400, error("Invalid prompt: flagged as potentially violating our usage policy"), "refused"),
        (400, error("x", code="DataInspectionFailed"), "refused"),
        (403, error("Content violates usage guidelines"), "refused"),
        (424, b'{"error": "Request failed during generation", "error_type": "generation"}', "passing"),
        (400, error("max_tokens is too large: 32768. This model supports at most 16384 completion tokens"), "fatal"),
    ],
)  # fmt: skip
def test_a_status_says_whether_to_ask_again_later_never_or_nobody(status, body, kind):
    assert replies.failure_of(status, body, "max_tokens").kind == kind


@pytest.mark.parametrize(
    ("sent", "body", "other"),
    [
        ("max_tokens", error("Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                             "'max_completion_tokens' instead.", param="max_tokens", code="unsupported_parameter"),
         "max_completion_tokens"),
        ("max_completion_tokens", error("Unrecognized request argument supplied: max_completion_tokens"), "max_tokens"),
        ("max_completion_tokens", b'{"detail": [{"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"], '
                                  b'"msg": "Extra inputs are not permitted"}]}', "max_tokens"),
    ],
)  # fmt: skip
def test_a_server_that_refuses_the_name_of_the_longest_answer_ends_the_run_with_the_key_to_set(sent, body, other):
    found = replies.failure_of(400, body, sent)
    assert found.kind == "fatal"
    assert f"set engine.max_tokens_name: {other} (--max-tokens-name {other})" in found.reason


def test_a_setting_that_a_server_never_takes_ends_the_run():
    body = error("Unsupported value: 'temperature' does not support 0.6 with this model.", param="temperature",
                 code="unsupported_value")  # fmt: skip
    assert replies.failure_of(400, body, "max_tokens").kind == "fatal"


@pytest.mark.parametrize(
    ("said", "kind"),
    [({"message": "overloaded"}, "passing"), ("overloaded", "passing"), ({"code": 401, "message": "no"}, "fatal"),
     ({"code": 429}, "passing"), ({"code": 400, "message": "odd"}, "own"),
     ({"code": 400, "message": "maximum context length is 5"}, "too_long"),
     ({"message": "x", "code": "content_filter"}, "refused")],
)  # fmt: skip
def test_an_error_that_comes_with_status_200_is_of_the_kind_that_it_says(said, kind):
    found = replies.read_body(json.dumps({"error": said}).encode(), ASKED)
    assert found.kind == kind
    assert "it says" in found.reason


# --- finish reasons and reasoning -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finish", "stored", "kind"),
    [("stop", "stop", None), ("length", "length", None), ("eos", "eos", None), ("model_length", "length", None),
     ("model_context_window_exceeded", "length", None), ("abort", "abort", "passing"), ("error", "error", "passing"),
     ("network_error", "network_error", "passing"), ("content_filter", "content_filter", "refused"),
     ("content_filter: SAFETY", "content_filter: SAFETY", "refused"), ("sensitive", "sensitive", "refused"),
     ("MAX_TOKENS", "length", None), ("max_new_tokens", "length", None), ({"type": "length"}, "length", None),
     ("token-limit", "length", None), ({"type": "abort"}, "abort", "passing"), ("canceled", "canceled", "passing"),
     ("SAFETY", "SAFETY", "refused"), ("content-filter", "content-filter", "refused"),
     ("refusal", "refusal", "refused")],
)  # fmt: skip
def test_a_finish_reason_says_whether_there_is_an_answer(finish, stored, kind):
    body = {"choices": [{"message": {"content": "so 4"}, "finish_reason": finish}]}
    found = replies.read_body(json.dumps(body).encode(), ASKED)
    answer = Answer("so 4", None, stored, 7)
    assert found == answer if kind is None else (found.kind, found.sent) == (kind, answer)


@pytest.mark.parametrize(
    ("choice", "beside", "kind"),
    [
        ({"message": {"content": "so"}, "finish_reason": "stop", "error": {"code": 502}}, {}, "passing"),
        ({"message": {"content": "so"}, "finish_reason": "stop"}, {"error": {"code": 502}}, "passing"),
        ({"message": {"content": ""}}, {}, "passing"),
        ({"message": {"content": ""}, "finish_reason": "stop"}, {"usage": {"completion_tokens": 0}}, "passing"),
        ({"message": {"content": [{"type": "refusal", "refusal": "no"}]}, "finish_reason": "stop"}, {}, "refused"),
    ],
)  # fmt: skip
def test_a_generation_that_was_broken_off_is_no_answer(choice, beside, kind):
    found = replies.read_body(json.dumps({"choices": [choice]} | beside).encode(), ASKED)
    assert (found.kind, bool(responses.failure_kind(found.sent.finish))) == (kind, True)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": "\n\n4", "reasoning": "2 + 2\n"}, "2 + 2\n</think>\n\n4"),
        ({"content": " 4", "reasoning": "2 + 2"}, "2 + 2</think> 4"),
        ({"content": "4", "reasoning": "2 + 2\n"}, "2 + 2\n</think>4"),
        ({"content": "4", "reasoning": "2 + 2", "reasoning_content": "2 + 2"}, "2 + 2\n</think>\n\n4"),
        ({"content": "4", "reasoning": "", "reasoning_content": "2 + 2"}, "2 + 2\n</think>\n\n4"),
        ({"content": "4", "reasoning": None}, "4"), ({"content": "", "reasoning": "2 +"}, "<think>\n2 +"),
        ({"content": [{"type": "text", "text": "4"}, {"type": "reference", "reference_ids": [1]}]}, "4"),
        ({"content": [{"type": "reasoning", "reasoning": "2 +"}, {"type": "text", "text": "4"}]}, "2 +\n</think>\n\n4"),
        ({"content": [{"type": "reasoning", "text": "2 +"}, "4"]}, "2 +\n</think>\n\n4"),
        ({"content": [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "4"}]}, "4"),
    ],
)  # fmt: skip
def test_reasoning_is_put_back_with_the_blanks_that_the_server_left(message, text):
    assert replies.whole_text(message) == text
