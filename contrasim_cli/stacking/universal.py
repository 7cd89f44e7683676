"""The encoders of measures that come with the package. Light: names and paths alone."""

from pathlib import Path

NAME, SCALE_FREE = "universal", "universal_scale_free"
FILE, SCALE_FREE_FILE = (Path(__file__).with_name(f"{name}.pt") for name in (NAME, SCALE_FREE))
SHIPPED = {NAME: FILE, SCALE_FREE: SCALE_FREE_FILE}
ABOUT = (
    "no --encoder given: universal, a network over closed-form measures that was trained on other models; `contrasim inspect "
    "universal` tells how it was tested"
)


def resolve(path: Path) -> Path:
    """The file that an --encoder stands for: a name of the package's is the package's, whatever lies in the folder."""
    return SHIPPED.get(str(path), path)
