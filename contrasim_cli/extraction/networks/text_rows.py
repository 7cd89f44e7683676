"""What of a text becomes a row, by the options: its tokens pooled, all or those of a span, each of them, or its words."""

from collections.abc import Mapping

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.networks.network import ModelOptions, choose_pool
from contrasim_cli.extraction.networks.tokenization import KEEP, NO_SPECIAL, POOL_WITHOUT, SPECIAL_TOKENS
from contrasim_cli.extraction.pooling import SUBWORDS, TEXT_POOLS

POSITION = "position"
SPAN_POOLS = {"mean": "span-mean", "first": "span-first", "last": "span-last", "max": "span-max"}


def text_pooling(options: ModelOptions) -> str:
    """What is done with the states of a text's tokens.

    Raises:
        UsageError: the options do not go together.
    """
    special = choose_pool(options.special_tokens, SPECIAL_TOKENS, KEEP, "special tokens", "--special-tokens")
    _check_template(options, special)
    if options.position or options.span is not None:
        return _part_pool(options, special)
    if options.unit == "word":
        if special == POOL_WITHOUT:
            raise UsageError("--special-tokens pool-without: no word has special tokens; leave it out")
        return _subword_pool(options)
    pool = choose_pool(options.pool, TEXT_POOLS, "mean", "text")
    if special != KEEP and pool == "cls":
        raise UsageError(
            f"--pool cls takes a special token, which --special-tokens {special} leaves out; give --pool first"
        )
    return pool


def _check_template(options: ModelOptions, special: str) -> None:
    if options.template is None:
        if options.generation_prompt:
            raise UsageError("--generation-prompt is for --template chat; give both, or leave it out")
        return
    if special == NO_SPECIAL:
        raise UsageError("--special-tokens none: a chat has those that its template writes; leave it out")
    if options.unit == "word":
        raise UsageError("--unit word: a chat template is not a sequence of words; leave out one of the two")


def _part_pool(options: ModelOptions, special: str) -> str:
    """The pooling where a row is a part of its text."""
    option = "--span" if options.span is not None else "--position"
    others: Mapping[str, bool] = {
        "--position": bool(options.position) and options.span is not None,
        "--unit word": options.unit == "word",
        "--pool": options.pool is not None and options.span is None,
        "--special-tokens pool-without": special == POOL_WITHOUT,
    }
    for other in (other for other, is_given in others.items() if is_given):
        raise UsageError(f"{option} says which tokens make a row; {other} does not go with it, leave it out")
    names = options.position or ()
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--position names {twice} twice")
    if options.span is None:
        return POSITION
    return SPAN_POOLS[choose_pool(options.pool, tuple(SPAN_POOLS), "mean", "spans")]


def _subword_pool(options: ModelOptions) -> str:
    if options.pool is not None:
        raise UsageError("--pool does not go with --unit word; --subword says how a word's tokens become its row")
    choose_pool(options.subword, SUBWORDS, "mean", "sub-words", "--subword")
    return f"subword-{options.subword}"
