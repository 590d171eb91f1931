"""The rules of the authors' evaluation scripts as data, one block for each kind of benchmark (docs/fidelity.md §4).

`RELEASED[kind]` holds every field of `tinyr1.evaluate.protocol.Protocol` that the params file does not give. The faults
of the scripts are repeated on purpose; `known_faults` names them, and `not_reproduced` names what this kit does
otherwise. Both are remarks: no score depends on their words.
"""

_LCB_TASK = (
    "You will be given a question (problem specification) and will generate a correct Python program that matches the "
    "specification and passes all tests.\n\nQuestion: ${question}\n\n"
)
_TEMPLATE_DECIDES = "whether the prompt opens the think tag depends on the revision of the tokenizer's template"
_WHOLE = "the thinking and texts cut off at the token limit are searched for an answer too"
# Three sets of versions are documented: one of AIME's scripts, and the two of docs/fidelity.md C19.
_VERSIONS = "the scripts' own versions: {} (docs/fidelity.md C19); this kit pins one set for all benchmarks"

RELEASED: dict[str, dict] = {
    # docs/fidelity.md §4.2
    "aime": {
        "system": None,
        "prompt": "<｜begin▁of▁sentence｜>Please reason step by step, and put your final answer within \\boxed{}."
                  "<｜User｜>${question}<｜Assistant｜>",
        "prompt_with_starter": None, "chat_template": False, "open_think": False,
        "first_seed": 0, "stop": ("</s>",), "stop_token_ids": (), "option_order": None, "option_layout": None,
        "reads": "whole", "truncated_counts": True, "extraction": "released_math", "grader": "math_equal",
        "known_faults": (
            "the prompt is DeepSeek's format whatever the model's own template, and does not open the think tag",
            "the text holds a BOS and the tokenizer adds one: two where it adds any",
            "seed i of run i is the same for every question",
            "stop words depend on the words deepseek and qwen in the model's path; these are for a path with neither",
            _WHOLE,
            "without a box the last number of the text is the answer",
            "the text after the word boxed is read even where no brace follows",
            "words of units and the variables m, a, t, h, c, l, o, s, g and d are removed before the comparison, so "
            "that m+n=204 and a+b=204 are right and p+q=204 is wrong",
            "a text with a number word in it is that number: 204 for the two points is 2",
            "\\textbf{204}, \\mathrm{204} and \\displaystyle 204 are wrong",
            "numbers are equal within 1e-4 relative, and as a hundredth or a hundredfold: 5 = 500, 204.01 = 204",
            "a comparison that takes longer than 3 s counts as wrong in the scripts; here its outcome is timeout",
        ),
        "not_reproduced": (
            "a limit of 32,768 tokens on prompt and answer together; here on the answer",
            "output that ends in a code fence is run as Python and generation goes on",
            "rounding of each run's accuracy to 0.1 before averaging",
            "symbolic comparison by three parsers, for expressions of numbers; Math-Verify here",
            "their parsers stop at what they cannot read: 204,x is 204 there and wrong here",
            _VERSIONS.format("vLLM 0.5.1 and transformers 4.42.3"),
        ),
    },
    # docs/fidelity.md §4.3
    "gpqa": {
        "system": "You are a helpful and harmless assistant. You should think step-by-step.",
        "prompt": "Return your final response within \\boxed{{}} and only include the letter choice (A, B, C, or D) as "
                  "your final response. ${question}\n${options}",
        "prompt_with_starter": None, "chat_template": True, "open_think": False,
        "first_seed": 0, "stop": ("<|im_end|>", "<|endoftext|>"), "stop_token_ids": (151645, 151643),
        "option_order": "shuffled", "option_layout": "one_line",
        "reads": "whole", "truncated_counts": True, "extraction": "last_letter", "grader": "option",
        "known_faults": (
            "the prompt shows \\boxed{{}} with double braces",
            "options are shuffled without a seed in the scripts, anew for each run; seeded here, so that models can be "
            "compared in pairs, but not balanced",
            "the last bare A, B, C or D of the upper-cased text is the answer: the article a is A, vitamin D is D",
            _WHOLE,
            "seed i of run i is the same for every question",
            _TEMPLATE_DECIDES,
            "the stop ids are those of Qwen's vocabulary, and the scripts choose them by the model's name",
        ),
        "not_reproduced": (
            "a failed run counts -1 in the scripts' mean",
            _VERSIONS.format("vLLM 0.6.3.post1 and transformers 4.45.2 by their README, 0.6.6.post1 and 4.49.0 by "
                             "their requirements"),
        ),
    },
    # docs/fidelity.md §4.4
    "livecodebench": {
        "system": None,
        "prompt": _LCB_TASK + "Read the inputs from stdin solve the problem and write the answer to stdout (do not "
                  "directly test on the sample inputs). Enclose your code within delimiters as follows.\n"
                  "```python\n# YOUR CODE HERE\n```\n\n",
        "prompt_with_starter": _LCB_TASK + "You will use the following starter code to write the solution to the "
                               "problem and enclose your code within delimiters.\n```python\n${starter_code}\n```\n\n",
        "chat_template": True, "open_think": False, "first_seed": 10008,
        "stop": ("<｜end▁of▁sentence｜>",), "stop_token_ids": (), "option_order": None, "option_layout": None,
        "reads": "whole", "truncated_counts": True, "extraction": "last_fence", "grader": "program",
        "known_faults": (
            "the scripts draw every sample with seed 10008 and differ in k (1, 2, 16; paper 4); here sample i has "
            "seed 10008 + i",
            _TEMPLATE_DECIDES,
            _WHOLE,
        ),
        "not_reproduced": (
            "a second BOS before the rendered template",
            "18 s of wall clock for a test and 60 s for all tests of a problem",
            "output compared with a tolerance that lets some wrong answers pass (docs/evaluation.md §1.3); the "
            "official comparison here",
            "the release latest on the day; params pin one",
            _VERSIONS.format("vLLM 0.6.3.post1 and transformers 4.45.2"),
        ),
    },
}  # fmt: skip
