"""What stands below the options of every command's help: three examples, and the page of the guide."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "extract": (
        "contrasim extract --model bert-base-cased --text sents.txt -o a.h5",
        "contrasim extract --model gpt2 --text sents.tsv --column en --layers 0-8 --pool last -o b.h5",
        "contrasim extract --from activations.npz -o c.h5",
    ),
    "train": (
        "contrasim train s0.h5 s1.h5 s2.h5 --task layers --inputs measures -o mine.pt",
        "contrasim train en.h5 de.h5 fr.h5 --task pairs -o pairs.pt",
        "contrasim train en.h5 de.h5 --task pairs --resume -o pairs.pt",
    ),
    "score": (
        "contrasim score a.h5 b.h5",
        "contrasim score a.h5 b.h5 --encoder mine.pt --layers -1 --format value",
        "contrasim score a.h5 b.h5 --null 99 --plot scores.png",
    ),
    "baseline": (
        "contrasim baseline a.h5 b.h5",
        "contrasim baseline a.h5 b.h5 --measure cka_debiased --measure procrustes --plot grids.png",
        "contrasim baseline a.h5 b.h5 --measure cka --permutations 200 -o cka.tsv",
    ),
    "inspect": (
        "contrasim inspect a.h5 b.h5",
        "contrasim inspect activations.npz --format json",
        "contrasim inspect universal",
    ),
    "guide": ("contrasim guide", "contrasim guide quickstart", "contrasim guide files | less"),
    "layers": (
        "contrasim bench layers s0.h5 s1.h5 s2.h5",
        "contrasim bench layers s0.h5 s1.h5 --measure cka --measure procrustes",
        "contrasim bench layers s0.h5 s1.h5 --encoder mine.pt --format table",
    ),
    "multilingual": (
        "contrasim bench multilingual en.h5 de.h5 fr.h5",
        "contrasim bench multilingual en.h5 de.h5 --encoder pairs.pt --negatives faiss",
        "contrasim bench multilingual en.h5 de.h5 fr.h5 --train en.h5 --train de.h5 --seeds 5",
    ),
    "image-caption": (
        "contrasim bench image-caption images.h5 captions.h5",
        "contrasim bench image-caption images.h5 captions.h5 --encoder pairs.pt --negatives faiss",
        "contrasim bench image-caption images.h5 captions.h5 --group-by '^[0-9]+'",
    ),
    "compare": (
        "contrasim bench compare trials.json --measure mine.pt --measure cka",
        "contrasim bench compare one.json other.json --measure cka --measure norm --format table",
        "contrasim bench compare trials.json --measure 'contrasim, seed 0' --measure 'contrasim, seed 1'",
    ),
    "sanity": (
        "contrasim bench sanity a.h5",
        "contrasim bench sanity a.h5 --measure cka --measure norm",
        "contrasim bench sanity a.h5 --layers -1 --format table",
    ),
}
PAGES = dict.fromkeys(("layers", "multilingual", "image-caption", "compare"), "benchmarks") | {
    "extract": "models", "train": "train", "score": "unseen", "baseline": "measures", "inspect": "files", "guide": "quickstart",
    "sanity": "trust",
}  # fmt: skip


def epilog(name: str) -> str:
    """The examples of a command, and its page of the guide, each a paragraph."""
    return "\n\n".join(["Examples:", *EXAMPLES[name], f"More: contrasim guide {PAGES[name]}"])
