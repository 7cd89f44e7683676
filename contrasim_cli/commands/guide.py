"""`contrasim guide`: the pages of the guide, on the terminal or as Markdown."""

import sys
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated

import typer

from contrasim_cli import console, distributed
from contrasim_cli.commands.emit import write_stdout
from contrasim_cli.errors import UsageError
from contrasim_cli.measures import MEASURES
from contrasim_cli.names import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from importlib.resources.abc import Traversable


def pages() -> "dict[str, Traversable]":
    """The pages by topic, sorted; the topic is the file's name without `.md`."""
    found: Iterable[Traversable] = files("contrasim_cli").joinpath("guide").iterdir()
    named = {page.name.removesuffix(".md"): page for page in found if page.name.endswith(".md")}
    return dict(sorted(named.items()))


def _topics() -> list[str]:
    return list(pages())


def guide(
    topic: Annotated[
        str | None,
        typer.Argument(
            help="A page, or a measure; without one, the topics are listed.", autocompletion=_topics, show_default=False
        ),
    ] = None,
) -> None:
    """Show a page of the guide or the description of a measure, or list the pages."""
    distributed.check_alone("contrasim guide")
    if topic is None:
        write_stdout(_contents())
        return
    page = pages().get(topic)
    if page is None and topic in MEASURES:
        from contrasim_cli.commands.baseline import show_measures

        show_measures([topic], long=True)
        return
    if page is None:
        raise UsageError(
            f"guide: no page {quoted(topic)}; the topics are {', '.join(pages())}, and every measure (contrasim baseline --list)"
        )
    text = page.read_text(encoding="utf-8")
    write_stdout(_rendered(text) if sys.stdout.isatty() else text)


def _contents() -> str:
    titles = {
        topic: page.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for topic, page in pages().items()
    }
    width = max(map(len, titles))
    return "".join(f"{topic:<{width}}  {title}\n" for topic, title in titles.items())


def _rendered(text: str) -> str:
    """Markdown as a terminal shows it."""
    from rich.console import Console
    from rich.markdown import Markdown

    terminal = Console(no_color=not console.settings.color)
    with terminal.capture() as shown:
        terminal.print(Markdown(text, hyperlinks=False))
    return shown.get()
