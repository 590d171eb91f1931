"""Packed sequences: which samples share one, what a forward pass is given, and the loss of unpacked training."""

import math
from random import Random

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from tinyr1.branch import attention, causal_lm, packing, ranks, sequences
from tinyr1.core.prompts import Encoded
from tinyr1.data.tokens import RowWriter, read_tokens

LENGTHS = [7, 1, 12, 5, 30, 2, 9]
SAMPLES = [
    Encoded([Random(i).randrange(60) for _ in range(n)], max(1, n // 3)) for i, n in enumerate(LENGTHS)
]


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small lose more to waiting for a second thread than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_model(name, attention):
    """The same tiny random network at every call, but for its attention."""
    shape = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}  # fmt: skip
    settings = {"llama": LlamaConfig, "qwen2": Qwen2Config}[name](
        **shape, tie_word_embeddings=name == "llama"
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(settings, dtype=torch.float32, attn_implementation=attention)
    for name, weight in model.named_parameters():  # Qwen2's biases start at zero, which would hide errors
        if name.endswith("bias"):
            torch.nn.init.normal_(weight)
    return model


def gradients(model):
    return {name: p.grad for name, p in model.named_parameters()}


def unpacked_loss(model, samples):
    """Summed target loss of the samples one by one, without anything of tinyr1."""
    total = torch.zeros(())
    for sample in samples:
        logits = model(input_ids=torch.tensor([sample.ids]), use_cache=False).logits[0]
        targets = torch.tensor(sample.ids[sample.n_prompt :], dtype=torch.long)
        total = total + F.cross_entropy(logits[sample.n_prompt - 1 : -1], targets, reduction="sum")
    return total


def test_bins_of_the_documented_example():
    assert sequences.bins([5, 3, 2, 4], 7) == [[0, 2], [1, 3]]


@pytest.mark.parametrize("seed", range(20))
def test_bins_hold_every_sample_once_and_never_more_than_the_capacity(seed):
    rng = Random(seed)
    capacity = rng.randrange(8, 200)
    lengths = [rng.randint(1, capacity) for _ in range(rng.randrange(1, 80))]
    groups = sequences.bins(lengths, capacity)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(0 < sum(lengths[i] for i in group) <= capacity for group in groups)
    # Best fit leaves no two bins that would fit into one, so that it needs less than twice the optimum.
    sums = sorted(sum(lengths[i] for i in group) for group in groups)
    assert len(sums) < 2 or sums[0] + sums[1] > capacity


def test_no_samples_make_no_bins():
    assert sequences.bins([], 7) == []


def test_a_sample_longer_than_the_sequence_is_refused():
    with pytest.raises(ValueError, match="sample 1 has 8 tokens, the packed sequence only 7"):
        sequences.bins([3, 8], 7)


def stored(folder, samples=SAMPLES):
    """The samples as a folder of rows."""
    folder.mkdir(exist_ok=True)
    with RowWriter(folder) as writer:
        for sample in samples:
            writer.write({}, sample)
    return read_tokens(folder)


def pack(folder, parts, capacity, seed):
    """(packed sequences, counts)"""
    facts = packing.write_layout(folder / "layout.safetensors", parts, capacity, seed)
    return packing.PackedSequences(folder / "layout.safetensors", parts), facts


@pytest.fixture
def packed(tmp_path):
    return pack(tmp_path, [stored(tmp_path / "rows")], 32, seed=3)


def test_the_layout_of_a_seed_stays():
    """Another order of samples would make other checkpoints."""
    assert sequences.layout(LENGTHS, 32, 3) == [[1, 4], [5, 6, 3, 2], [0]]
    lengths = [Random(i).randint(1, 60) for i in range(40)]
    assert sequences.layout(lengths, 64, 42) == [
        [7, 1, 17], [15, 14, 8], [6, 18], [5, 16], [27, 39, 31], [38, 36], [0], [2, 28], [33, 25], [19, 13], [29],
        [37, 4], [20], [22, 32], [26, 21], [35], [34, 11], [12, 9], [23], [30], [24, 3], [10],
    ]  # fmt: skip
    lengths = [Random(i).randint(1, 60) for i in range(200)]  # more than ROUNDS
    assert sequences.layout(lengths, 64, 42)[:4] == [[6, 28, 190], [163, 7, 164], [189, 50, 31], [62, 57, 139]]


@pytest.mark.parametrize(("median", "spread"), [(3600, 0.8), (4900, 0.7)])
def test_sequences_of_as_many_rows_as_the_paper_has_are_full(median, spread):
    rng, capacity = Random(0), 16_384
    lengths = [min(capacity, max(200, round(rng.lognormvariate(math.log(median), spread)))) for _ in range(58_000)]
    groups = sequences.layout(lengths, capacity, 42)
    assert sorted(i for group in groups for i in group) == list(range(58_000))
    assert sum(lengths) / (len(groups) * capacity) >= 0.995


def test_samples_of_two_kinds_share_sequences():
    """Math is short and code is long; a step of one sequence sees both."""
    lengths = [60 + i % 20 for i in range(300)] + [140 + i % 40 for i in range(300)]
    groups = sequences.layout(lengths, 512, 1)
    both = [group for group in groups if min(group) < 300 <= max(group)]
    assert len(both) > 0.6 * len(groups)


def items(data):
    return [data[i] for i in range(len(data))]


def tensors(item):
    """The arguments of the model."""
    return {name: value for name, value in item.items() if name != "index"}


def forward(model, item):
    return model(**tensors(item))


def split(item):
    """(ids, labels, positions) of each sample in a packed sequence."""
    lengths = item["cu_seq_lens"].diff().tolist()
    parts = (item[name][0].split(lengths) for name in ("input_ids", "labels", "position_ids"))
    return [tuple(t.tolist() for t in sample) for sample in zip(*parts, strict=True)]


def test_every_sample_comes_back_once_with_its_own_positions_and_labels(packed):
    data, _ = packed
    found = [sample for item in items(data) for sample in split(item)]
    assert sorted(ids for ids, _, _ in found) == sorted(s.ids for s in SAMPLES)
    prompts = {tuple(s.ids): s.n_prompt for s in SAMPLES}
    for ids, labels, positions in found:
        n = prompts[tuple(ids)]
        assert positions == list(range(len(ids)))
        assert labels == [packing.IGNORED] * n + ids[n:]


def test_the_counts_of_a_packed_file_are_those_of_its_samples(packed):
    data, facts = packed
    assert facts["samples"] == len(SAMPLES)
    assert facts["tokens"] == sum(LENGTHS)
    assert facts["target_tokens"] == sum(len(s.ids) - s.n_prompt for s in SAMPLES)
    assert facts["sequences"] == len(data) == 3
    assert facts["fill"] == pytest.approx(sum(LENGTHS) / (3 * 32))
    assert sum(len(causal_lm.shifted_targets(data[i]["labels"])[0]) for i in range(3)) == facts["target_tokens"]


def test_the_order_of_packed_sequences_follows_the_seed(tmp_path):
    parts = [stored(tmp_path / "rows")]

    def order(seed):
        data, _ = pack(tmp_path, parts, 32, seed)
        return [i for item in items(data) for i in item["input_ids"][0].tolist()]

    assert order(3) == order(3)
    assert len({tuple(order(seed)) for seed in range(6)}) > 1


def test_rows_of_several_folders_and_slices_of_them_are_packed_as_if_they_were_one(tmp_path):
    samples = [Encoded([Random(i).randrange(60) for _ in range(1 + i % 9)], 1) for i in range(30)]
    one, other, third = (stored(tmp_path / name, samples[i : i + 10]) for name, i in (("a", 0), ("b", 10), ("c", 20)))
    parts = [one.part(slice(4, None)), other.part(slice(0, 0)), other.part(slice(None, 3)), third]
    expected = [*samples[4:10], *samples[10:13], *samples[20:]]
    data, facts = pack(tmp_path, parts, 16, seed=1)
    (tmp_path / "all").mkdir()
    whole, counts = pack(tmp_path / "all", [stored(tmp_path / "all" / "rows", expected)], 16, seed=1)
    assert facts == counts
    assert facts["samples"] == len(expected)
    assert data.tokens == whole.tokens == facts["tokens"] == sum(len(s.ids) for s in expected)
    assert len(data) == len(whole)
    for item, same in zip(items(data), items(whole), strict=True):
        assert item.keys() == same.keys()
        assert all(torch.equal(item[name], same[name]) for name in tensors(item))


def test_the_arguments_of_a_forward_pass_have_the_documented_shapes_and_types(packed):
    item = packed[0][0]
    n = item["input_ids"].shape[1]
    assert {name: (t.dtype, tuple(t.shape)) for name, t in tensors(item).items()} == {
        "input_ids": (torch.int64, (1, n)), "labels": (torch.int64, (1, n)), "position_ids": (torch.int64, (1, n)),
        "cu_seq_lens": (torch.int32, (len(split(item)) + 1,)),
    }  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_ranks_share_every_sequence_once_and_are_idle_where_none_is_left(count):
    even = ranks.EvenSampler([4, 2, 0, 3, 1], count)
    order = list(even)
    assert len(order) == len(even)
    assert len(order) % count == 0
    assert order[:5] == [4, 2, 0, 3, 1]
    assert order[5:] == [packing.IDLE] * (-5 % count)


def test_an_idle_rank_has_a_token_without_loss_and_no_gradient(packed):
    data, _ = packed
    item = data[packing.IDLE]
    assert {name: (t.dtype, t.dim()) for name, t in tensors(item).items()} == {
        name: (t.dtype, t.dim()) for name, t in tensors(data[0]).items()
    }
    assert not len(causal_lm.shifted_targets(item["labels"])[0])
    model = causal_lm.PackedCausalLM(make_model("qwen2", attention.ATTENTION))
    loss = forward(model, item)
    loss.backward()
    assert loss.item() == 0
    for name, gradient in gradients(model.model).items():  # every one is there, as the other ranks wait for it
        assert not gradient.any(), name


def test_targets_are_the_next_tokens():
    labels = torch.tensor([[-100, -100, 5, 6, -100, -100, 7]])
    positions, targets = causal_lm.shifted_targets(labels)
    assert positions.tolist() == [1, 2, 5]
    assert targets.tolist() == [5, 6, 7]


@pytest.mark.parametrize("limit", [attention.PADDED_LIMIT, 0], ids=["padded", "one by one"])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_packed_attention_is_the_causal_attention_of_each_sample(monkeypatch, limit, kv_heads):
    monkeypatch.setattr(attention, "PADDED_LIMIT", limit)
    generator = torch.Generator().manual_seed(1)
    tokens, heads, dim = sum(LENGTHS), 6, 8
    query, key, value = (
        torch.randn(1, n, tokens, dim, generator=generator) for n in (heads, kv_heads, kv_heads)
    )
    ends = torch.tensor([0, *LENGTHS]).cumsum(0).int()
    out, _ = attention.packed_attention(
        torch.nn.Identity(), query, key, value, None, 0.3, cu_seq_lens_q=ends, max_length_q=max(LENGTHS)
    )
    assert out.shape == (1, tokens, heads, dim)
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        q, k, v = query[0, :, start:end], key[0, :, start:end], value[0, :, start:end]
        k, v = (t.repeat_interleave(heads // kv_heads, dim=0) for t in (k, v))
        future = torch.full((end - start, end - start), -torch.inf).triu(1)
        expected = ((q @ k.transpose(1, 2)) * 0.3 + future).softmax(-1) @ v
        torch.testing.assert_close(out[0, start:end].transpose(0, 1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("limit", [attention.PADDED_LIMIT, 0], ids=["padded", "one by one"])
@pytest.mark.parametrize("chunk", [causal_lm.LOSS_CHUNK, 5], ids=["whole loss", "chunked loss"])
@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_packed_training_has_the_loss_and_gradients_of_unpacked_training(
    tmp_path, monkeypatch, name, chunk, limit
):
    monkeypatch.setattr(attention, "PADDED_LIMIT", limit)
    monkeypatch.setattr(causal_lm, "LOSS_CHUNK", chunk)
    plain = make_model(name, "sdpa")
    expected = unpacked_loss(plain, SAMPLES)
    expected.backward()

    data, _ = pack(tmp_path, [stored(tmp_path / "rows")], sum(LENGTHS), seed=0)  # all in one sequence
    assert len(data) == 1
    item = data[0]
    model = causal_lm.PackedCausalLM(make_model(name, attention.ATTENTION))
    loss = forward(model, item)
    loss.backward()

    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    wanted, found = gradients(plain), gradients(model.model)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert value.abs().max() > 0, key
        torch.testing.assert_close(
            found[key], value, rtol=1e-4, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}"
        )


def test_the_logits_of_no_more_targets_than_a_chunk_exist_at_the_same_time(monkeypatch):
    monkeypatch.setattr(causal_lm, "LOSS_CHUNK", 5)
    seen, cross_entropy = [], F.cross_entropy

    def watched(logits, *args, **kwargs):
        seen.append(len(logits))
        return cross_entropy(logits, *args, **kwargs)

    monkeypatch.setattr(F, "cross_entropy", watched)
    head = causal_lm.LossHead(torch.nn.Linear(8, 60))
    head(torch.randn(12, 8, requires_grad=True), torch.arange(12)).backward()
    assert seen[:3] == [5, 5, 2]
    assert sorted(seen[3:]) == [2, 5, 5]  # once more in the backward pass


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_the_head_with_the_loss_leaves_the_tensors_of_the_checkpoint_as_they_are(name):
    plain = make_model(name, "sdpa")
    inner = causal_lm.PackedCausalLM(make_model(name, attention.ATTENTION)).model
    assert list(inner.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in inner.named_parameters()] == [n for n, _ in plain.named_parameters()]
    tied = inner.get_output_embeddings().weight is inner.get_input_embeddings().weight
    assert tied == (name == "llama")


def test_contaminated_packing_is_one_sample_to_the_model_with_the_labels_of_all(tmp_path):
    rows = [stored(tmp_path / "rows")]
    packing.write_layout(tmp_path / "layout", rows, sum(LENGTHS), 0, "contaminated")
    (apart,), (mixed,) = (
        items(packing.PackedSequences(tmp_path / "layout", rows, kind)) for kind in ("neat", "contaminated")
    )
    n = sum(LENGTHS)
    assert mixed["cu_seq_lens"].tolist() == [0, n]
    assert mixed["position_ids"].tolist() == [list(range(n))]
    assert {name: (t.dtype, t.dim()) for name, t in tensors(mixed).items()} == {
        name: (t.dtype, t.dim()) for name, t in tensors(apart).items()
    }
    assert torch.equal(mixed["input_ids"], apart["input_ids"])
    assert torch.equal(mixed["labels"], apart["labels"])
    plain = make_model("llama", "sdpa")
    logits = plain(input_ids=mixed["input_ids"], use_cache=False).logits[0]
    positions, targets = causal_lm.shifted_targets(mixed["labels"])
    expected = F.cross_entropy(logits[positions], targets, reduction="sum")
    expected.backward()
    model = causal_lm.PackedCausalLM(make_model("llama", attention.ATTENTION))
    loss = forward(model, mixed)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for key, value in gradients(plain).items():
        torch.testing.assert_close(gradients(model.model)[key], value, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert abs(float(forward(model, mixed) - forward(model, apart))) > 1e-3


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_unpacked_training_has_the_loss_and_gradients_of_neat_packing(tmp_path, name):
    rows, results = [stored(tmp_path / "rows")], []
    for kind in ("none", "neat"):
        facts = packing.write_layout(tmp_path / kind, rows, sum(LENGTHS), 0, kind)
        assert facts["sequences"] == (len(LENGTHS) if kind == "none" else 1)
        model = causal_lm.PackedCausalLM(make_model(name, attention.ATTENTION))
        loss = sum(forward(model, item) for item in items(packing.PackedSequences(tmp_path / kind, rows, kind)))
        loss.backward()
        results.append((loss, gradients(model.model)))
    (unpacked, own), (neat, same) = results
    torch.testing.assert_close(unpacked, neat, rtol=1e-5, atol=0)
    for key, value in same.items():
        torch.testing.assert_close(own[key], value, rtol=1e-5, atol=1e-5)


def test_the_rows_of_a_sequence_are_named_by_their_folder_and_number(tmp_path):
    one, other = stored(tmp_path / "one", SAMPLES[:4]), stored(tmp_path / "other", SAMPLES[4:])
    parts = [one.part(slice(1, None)), other]
    data, _ = pack(tmp_path, parts, 32, seed=0)
    named = [data.rows_of(i) for i in range(len(data))]
    assert sorted(place for places in named for place in places) == [
        *((tmp_path / "one", i) for i in (1, 2, 3)), *((tmp_path / "other", i) for i in (0, 1, 2)),
    ]  # fmt: skip
    texts = {tmp_path / "one": SAMPLES[:4], tmp_path / "other": SAMPLES[4:]}
    for number, (item, places) in enumerate(zip(items(data), named, strict=True)):
        assert item["index"] == number
        assert [ids for ids, _, _ in split(item)] == [texts[folder][i].ids for folder, i in places]


def test_a_sample_is_blind_to_the_others_of_its_sequence(tmp_path):
    """What the comparison above would miss if samples agreed by chance: without resets the loss differs."""
    data, _ = pack(tmp_path, [stored(tmp_path / "rows")], sum(LENGTHS), seed=0)
    assert len(data) == 1
    item = data[0]
    model = causal_lm.PackedCausalLM(make_model("llama", attention.ATTENTION))
    tokens = item["input_ids"].shape[1]
    leaky = item | {"cu_seq_lens": torch.tensor([0, tokens], dtype=torch.int32)}
    with torch.no_grad():
        assert abs(float(forward(model, item) - forward(model, leaky))) > 1e-3
