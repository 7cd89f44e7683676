"""The encoder of measures that comes with the package. Light: names and paths alone."""

from pathlib import Path

NAME = "universal"
ABOUT = (
    "no --encoder given: universal, a network over closed-form measures that was trained on other models; `contrasim inspect "
    "universal` tells how it was tested"
)
FILE = Path(__file__).with_name("universal.pt")


def resolve(path: Path) -> Path:
    """The file that an --encoder stands for: `universal` is the one of the package, whatever lies in the folder."""
    return FILE if str(path) == NAME else path


def shown(path: Path) -> str:
    """What results call an encoder."""
    return NAME if path == FILE else path.name
