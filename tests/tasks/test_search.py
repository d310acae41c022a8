"""Greedy and beam search against loops over one sentence, and over every sentence there is."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support import wiring
from unrolled.models import EncoderDecoder, Memory
from unrolled.tasks._search import Hypothesis, beam, greedy

BEGIN, END, V = 0, 1, 4
LENGTHS = torch.tensor([3, 6, 1, 4, 2])
T, N = 6, len(LENGTHS)
CLOSE = 1e-12  # sums of some ten log probabilities, in another order

OPTIONS: list[dict[str, Any]] = [
    {},
    {"cell": "LSTM", "num_layers": 2, "bidirectional": True},
    {"attention": False},
    {"cell": "CoRNN"},
]


def new_model(options: dict[str, Any], seed: int = 0) -> EncoderDecoder:
    """Large numbers, so that what it says depends on what it read and wrote."""
    model = EncoderDecoder(V, V, hidden_size=5, embedding_size=3, **options)
    return wiring.drawn(model, 1.5, seed)


def sources() -> Tensor:
    return torch.randint(V, (T, N))


def score_of(model: EncoderDecoder, source: Tensor, tokens: list[int], has_end: bool) -> float:
    """The sum of log probabilities of a target for a source [T], by teacher forcing."""
    written = [*tokens, END] if has_end else tokens
    logits = model(source[:, None], torch.tensor([[BEGIN, *written[:-1]]]).t())
    chances = torch.log_softmax(logits[:, 0], -1)
    return sum(chances[t, token].item() for t, token in enumerate(written))


def argmax(model: EncoderDecoder, source: Tensor, limit: int) -> Hypothesis:
    """Greedy search that runs the decoder on the whole target at each step."""
    tokens: list[int] = []
    while len(tokens) < limit:
        logits = model(source[:, None], torch.tensor([[BEGIN, *tokens]]).t())
        token = logits[-1, 0].argmax().item()
        if token == END:
            return Hypothesis(tokens, score_of(model, source, tokens, True))
        tokens.append(token)
    return Hypothesis(tokens, score_of(model, source, tokens, False))


def every(model: EncoderDecoder, source: Tensor, limit: int, penalty: float) -> list[Hypothesis]:
    """All targets of at most so many tokens, the end among them, the best first."""
    actual = []
    for length in range(1, limit + 1):
        inner_tokens = [token for token in range(V) if token != END]
        for tokens in product(inner_tokens, repeat=length - 1):
            score = score_of(model, source, list(tokens), True)
            actual.append((score / length**penalty, Hypothesis(list(tokens), score)))
    for tokens in product(inner_tokens, repeat=limit):
        score = score_of(model, source, list(tokens), False)
        actual.append((score / limit**penalty, Hypothesis(list(tokens), score)))
    return [hypothesis for _, hypothesis in sorted(actual, key=lambda ranked: -ranked[0])]


def agree(mine: list[Hypothesis], theirs: list[Hypothesis]) -> None:
    assert [h.tokens for h in mine] == [h.tokens for h in theirs]
    assert [h.score for h in mine] == pytest.approx([h.score for h in theirs], abs=CLOSE, rel=CLOSE)


class Chain:
    """A model whose next token depends on the last one alone; its chances are a table, or one for
    each step, which are counted in the state.
    """

    def __init__(self, *tables: list[list[float]]) -> None:
        self.logits = torch.tensor(tables, dtype=torch.float64).log()

    def encode(self, source: Tensor, lengths: Any = None) -> tuple[Memory, Tensor]:
        N = source.shape[1]
        return Memory(torch.zeros(1, N, 1), torch.ones(1, N) > 0), torch.zeros(
            1, N, dtype=torch.int64
        )

    def decode(self, target: Tensor, state: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        assert target.shape[1] == state.shape[1] == memory.outputs.shape[1]
        return self.logits[state.clamp(max=len(self.logits) - 1), target], state + 1


def search(chain: Chain, **options: Any) -> list[tuple[list[int], float]]:
    """Beam search by a chain, with probabilities for scores."""
    model: Any = chain
    actual = beam(model, torch.tensor([0]), begin=BEGIN, end=END, **options)
    return [(h.tokens, round(math.exp(h.score), 9)) for h in actual]


# Greedy


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_greedy_is_the_argmax_of_each_sentence_alone(options: dict[str, Any]) -> None:
    lengths_of_targets = set()
    for seed in range(8):
        model, source = new_model(options, seed), sources()
        actual = greedy(model, source, LENGTHS, begin=BEGIN, end=END, limit=7)
        expected = [argmax(model, source[:length, n], 7) for n, length in enumerate(LENGTHS)]
        agree(actual, expected)
        lengths_of_targets |= {len(h.tokens) for h in actual}
    assert 7 in lengths_of_targets  # what reached the limit
    assert len(lengths_of_targets) > 2  # and what did not


def test_neither_the_batch_nor_padding_matters_to_greedy() -> None:
    model, source = new_model({"num_layers": 2}), sources()
    actual = greedy(model, source, LENGTHS, begin=BEGIN, end=END, limit=9)
    order = torch.tensor([4, 2, 0, 1, 3])
    padded = torch.where(torch.arange(T)[:, None] < LENGTHS, source, 3)
    padded = torch.cat([padded, padded[:2]])[:, order]
    shuffled = greedy(model, padded, LENGTHS[order], begin=BEGIN, end=END, limit=9)
    agree(shuffled, [actual[n] for n in order])
    agree(
        greedy(model, source, begin=BEGIN, end=END),
        [greedy(model, source[:, n : n + 1], begin=BEGIN, end=END)[0] for n in range(N)],
    )


def test_greedy_by_hand() -> None:
    model: Any = Chain([[0, 0.1, 0.5, 0.4], [0.25] * 4, [0, 0.2, 0.2, 0.6], [0, 0.7, 0.2, 0.1]])
    source = torch.zeros(1, 2, dtype=torch.int64)
    for limit, tokens, chance in ((1, [2], 0.5), (2, [2, 3], 0.3), (3, [2, 3], 0.21)):
        actual = greedy(model, source, begin=BEGIN, end=END, limit=limit)
        assert [h.tokens for h in actual] == [tokens] * 2
        assert actual[0].score == pytest.approx(math.log(chance), abs=CLOSE)


# Beam


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_beam_of_one_is_greedy(options: dict[str, Any], penalty: float) -> None:
    for seed in range(6):
        model, source = new_model(options, seed), sources()
        greedily = greedy(model, source, begin=BEGIN, end=END, limit=8)
        for n in range(N):
            search_options = {"width": 1, "limit": 8, "penalty": penalty}
            agree(beam(model, source[:, n], begin=BEGIN, end=END, **search_options), [greedily[n]])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("limit", [1, 2, 4])
@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
def test_a_beam_of_all_finds_all(options: dict[str, Any], limit: int, penalty: float) -> None:
    model, source = new_model(options, limit), torch.tensor([2, 0, 3])
    expected = every(model, source, limit, penalty)
    search_options = {"limit": limit, "penalty": penalty}
    agree(
        beam(model, source, begin=BEGIN, end=END, width=len(expected), **search_options), expected
    )


@pytest.mark.parametrize("seed", range(5))
def test_without_a_penalty_what_covers_all_prefixes_finds_the_best(seed: int) -> None:
    """The beam may stop early: what is kept only loses. So it is never worse than greedy."""
    model, source = new_model({}, seed), torch.tensor([2, 0, 3])
    expected = every(model, source, 3, 0.0)
    for width in (9, 10, 20):  # 9 prefixes of two tokens go into the last step
        search_options = {"limit": 3, "penalty": 0.0, "width": width}
        actual = beam(model, source, begin=BEGIN, end=END, **search_options)
        agree(actual, expected[:width])
        greedily = greedy(model, source[:, None], begin=BEGIN, end=END, limit=3)[0]
        assert actual[0].score >= greedily.score - CLOSE


@pytest.mark.parametrize("width", [2, 3, 5, 40])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_what_a_beam_finds_is_what_the_model_says(width: int, penalty: float) -> None:
    for seed in range(4):
        model, source = new_model({"cell": "LSTM"}, seed), torch.randint(V, (5,))
        actual = beam(model, source, begin=BEGIN, end=END, width=width, limit=6, penalty=penalty)
        assert 0 < len(actual) <= width
        assert len({tuple(h.tokens) for h in actual}) == len(actual)
        for h in actual:
            expected = score_of(model, source, h.tokens, len(h.tokens) < 6)
            assert h.score == pytest.approx(expected, abs=CLOSE, rel=CLOSE)
        ranks = [h.score / min(len(h.tokens) + 1, 6) ** penalty for h in actual]
        assert ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_a_beam_is_a_plain_loop_that_never_stops_early(width: int) -> None:
    """Of twice so many steps onwards as are kept, ends are put aside and the best others kept."""
    for _ in range(20):
        tables = torch.softmax(2 * torch.randn(5, 6, 6, dtype=torch.float64), -1).tolist()
        live: list[tuple[float, list[int]]] = [(1.0, [])]
        completed = []
        for table in tables:
            continuations = [
                (chance * table[(tokens or [BEGIN])[-1]][token], [*tokens, token])
                for chance, tokens in live
                for token in range(6)
            ]
            continuations = sorted(continuations, reverse=True)[: 2 * width]
            completed += [
                (chance, tokens[:-1]) for chance, tokens in continuations if tokens[-1] == END
            ]
            live = [continuation for continuation in continuations if continuation[1][-1] != END][
                :width
            ]
        expected = sorted(completed + live, reverse=True)[:width]
        actual = search(Chain(*tables), width=width, limit=5, penalty=0.0)
        assert actual == [(tokens, round(chance, 9)) for chance, tokens in expected]


def test_poor_ends_do_not_stop_a_beam() -> None:
    """Two have ended after two steps, by 0.1 and 0.27; that of 0.5292 is still on its way."""
    chain = Chain([[0, 0.1, 0.6, 0.3], [0.25] * 4, [0, 0.01, 0.01, 0.98], [0.04, 0.9, 0.03, 0.03]])
    assert search(chain, width=2, penalty=0.0) == [([2, 3], 0.5292), ([3], 0.27)]
    assert search(chain, width=1) == [([2, 3], 0.5292)]
    assert search(chain, width=2, penalty=1.0)[0] == ([2, 3], 0.5292)


def test_a_beam_looks_further_than_greedy() -> None:
    """The first token of the best target is not the most likely one."""
    chain = Chain([[0, 0, 0.6, 0.4], [0.25] * 4, [0.25, 0.3, 0.25, 0.2], [0, 1, 0, 0]])
    assert search(chain, width=1, limit=2)[0] == ([2], 0.18)
    assert search(chain, width=2, limit=2, penalty=0.0) == [([3], 0.4), ([2], 0.18)]


def test_the_penalty_decides_between_short_and_long() -> None:
    """0.3 in one token, the end, or 0.7 · 0.4 = 0.28 in two: 0.28 ** (1 / 2) is more than 0.3."""
    chain = Chain([[0, 0.3, 0.7, 0], [0.25] * 4, [0.2, 0.4, 0.2, 0.2], [0.25] * 4])
    options = {"width": 2, "limit": 2}
    assert search(chain, penalty=0.0, **options)[0] == ([], 0.3)
    assert search(chain, penalty=1.0, **options)[0] == ([2], 0.28)


def test_a_limit_returns_unfinished_hypotheses() -> None:
    chain = Chain([[0, 0, 0.8, 0.2], [0.25] * 4, [0, 0, 0.75, 0.25], [0, 0.2, 0.2, 0.6]])
    assert search(chain, width=2, limit=2, penalty=0.0) == [([2, 2], 0.6), ([2, 3], 0.2)]
    assert search(chain, width=2, limit=3, penalty=0.0) == [([2, 2, 2], 0.45), ([2, 2, 3], 0.15)]


def test_a_search_leaves_no_graph_behind() -> None:
    model, source = new_model({}), sources()
    previous = {name: p.clone() for name, p in model.named_parameters()}
    assert isinstance(greedy(model, source, begin=BEGIN, end=END, limit=3)[0].score, float)
    assert isinstance(beam(model, source[:, 0], begin=BEGIN, end=END, limit=3)[0].score, float)
    assert all(p.grad is None and torch.equal(p, previous[n]) for n, p in model.named_parameters())


@pytest.mark.parametrize("name", ["width", "limit"])
@pytest.mark.parametrize("value", [0, -3])
def test_a_wrong_argument_is_named(name: str, value: int) -> None:
    model, options = new_model({}), {name: value}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
        beam(model, torch.tensor([2]), begin=BEGIN, end=END, **options)
    if name == "limit":
        with pytest.raises(ValueError, match=f"limit must be at least 1, got {value}"):
            greedy(model, torch.tensor([[2]]), begin=BEGIN, end=END, limit=value)
