"""What of a text becomes a row, by the options: all of its tokens pooled, each of them, or its words."""

from contrasim_cli.errors import UsageError
from contrasim_cli.extraction.networks.network import ModelOptions, choose_pool
from contrasim_cli.extraction.networks.tokenization import KEEP, POOL_WITHOUT, SPECIAL_TOKENS
from contrasim_cli.extraction.pooling import SUBWORDS, TEXT_POOLS


def text_pooling(options: ModelOptions) -> str:
    """What is done with the states of a text's tokens.

    Raises:
        UsageError: the options do not go together.
    """
    special = choose_pool(options.special_tokens, SPECIAL_TOKENS, KEEP, "special tokens", "--special-tokens")
    if options.unit == "word":
        if special == POOL_WITHOUT:
            raise UsageError("--special-tokens pool-without: no word has special tokens; leave it out")
        return _subword_pool(options)
    pool = choose_pool(options.pool, TEXT_POOLS, "mean", "text")
    if special == POOL_WITHOUT and pool == "cls":
        raise UsageError(
            "--pool cls takes a special token, which --special-tokens pool-without leaves out; give --pool first"
        )
    return pool


def _subword_pool(options: ModelOptions) -> str:
    if options.pool is not None:
        raise UsageError("--pool does not go with --unit word; --subword says how a word's tokens become its row")
    choose_pool(options.subword, SUBWORDS, "mean", "sub-words", "--subword")
    return f"subword-{options.subword}"
