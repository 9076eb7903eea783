"""The words of avel: the field's own, each with one meaning; docstrings begin with a verb."""

import ast
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

AVEL = Path(__file__).resolve().parents[1] / "avel"
MODULES = sorted(AVEL.rglob("*.py"))
BESIDE = sorted(path for name in ("benchmarks", "examples") for path in (AVEL.parent / name).glob("*.py"))
"""Modules that are not avel's, but whose docstrings follow the same rules."""
TESTS = sorted((AVEL.parent / "tests").rglob("*.py"))
"""Modules whose names follow the same rules, apart from those of tests, which are sentences."""
BANNED = {
    **dict.fromkeys(("seen", "seer", "heard"), "video, audio, frames, waveform, log_mel"),
    "hz": "sample_rate",
    "deviation": "std",
    **dict.fromkeys(("share", "shares"), "fraction"),
    **dict.fromkeys(("floor", "floors"), "trivial_baseline"),
    **dict.fromkeys(("member", "members", "fitted"), "trial"),
    **dict.fromkeys(("precise", "settled", "fade"), "softmax(x.float()), and why"),
    "wish": "request, options",
    **dict.fromkeys(("judge", "judged", "judges"), "evaluate, evaluated"),
}
"""Part of a name that avel defines, `a_b` and `AB` having two -> what to say instead."""
BANNED_NAMES = {
    "weight_rate": "lr",
    "decay_after": "milestones",
    "redundancy_weight": "lambd",
    "Kept": "Trial",
}
TEXTS = (tokenize.COMMENT, tokenize.STRING)
UNITS = ("hz",)
"""Parts that may end a name which says of what they are: `tone_hz`."""
BANNED_TEXT = {
    r"\bshares? of\b": "fraction of",
    r"(?<!standard )\bdeviations?\b": "std, difference",
    r"\b(member|wish|seer)s?\b": "trial, request",
    r"\bjudge[sd]?\b": "evaluate",
}
"""Pattern in comments, docstrings and messages -> what to say instead."""
QUESTION = re.compile(r"(What|Whether|Which|Where|How|The)\b")
VERB = re.compile(r"[A-Z][A-Za-z-]*s\b(?!'| of\b)")
"""Begins a docstring: a verb in the third person, not "Names of" or "Dataset's"."""
NOUNS = {
    *("Bytes", "Class", "Classes", "Contents", "Entries", "Errors", "Events", "Features", "Figures"),
    *("Frames", "Gradients", "Ids", "Its", "Logits", "Modalities", "Paths", "Rows", "Scores", "Seconds"),
    *("Segments", "Settings", "Ticks", "Vectors", "Widths"),
}
"""Words that end like such a verb, and begin no docstring."""
ONE_MEANING = {
    **dict.fromkeys(("D", "HIDDEN"), "features within a head, by its source"),
    "SMALL": "added where a head would divide by 0",
    "WIDTHS": "channels of the convolutions of a CNN",
    **dict.fromkeys(("FFT_SAMPLES", "HOP_SAMPLES"), "of the spectrogram that a CNN reads"),
    **dict.fromkeys(("COLUMNS", "LABELS", "SPLIT_OF"), "columns, files and splits of a dataset format"),
    **dict.fromkeys(("FORMAT", "VERSION"), "of the files that a module writes"),
    "FORMAT_OF": "ending of a file -> format",
    "PRESETS": "named settings of a command",
    "AHEAD": "batches that are read ahead",
    "IDLE_SECONDS": "time without work after which a child process ends",
    "SMALLER_BATCH": "hint where memory is full",
    "X264": "settings with which a video is written",
    "bell": "picture and sound of a subject of the demo",
    "main": "entry point of a process",
}
"""Public name that several modules define -> its one meaning."""


def defined_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields line and name of what a module defines: functions, classes, arguments, variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def public_names(tree: ast.Module) -> Iterator[str]:
    """Yields the public names that a module defines at its top, but type variables of one letter."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [each.id for one in targets for each in ast.walk(one) if isinstance(each, ast.Name)]
            if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "TypeVar":
                names = [name for name in names if len(name) > 1]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def repeated(trees: Mapping[Path, ast.Module]) -> dict[str, list[Path]]:
    """Returns public name -> the modules that define it, if they are several.

    A command has the name of the function that it calls.
    """
    places: dict[str, list[Path]] = defaultdict(list)
    for path, tree in trees.items():
        for name in set(public_names(tree)):
            if path.parent.name != "commands" or not name.islower():
                places[name].append(path)
    return {name: paths for name, paths in places.items() if len(paths) > 1}


def parts_of(name: str) -> list[str]:
    """Returns the words of a name: `ClipStore`, `clip_store` and `_CLIP_STORE` are clip, store."""
    return [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def test_names_are_the_words_of_the_field() -> None:
    found = []
    for path in (*MODULES, *BESIDE, *TESTS):
        for line, name in [*defined_names(ast.parse(path.read_text())), (1, path.stem)]:
            if path in TESTS and name.startswith("test_"):
                continue
            parts = parts_of(name)
            own = parts[:-1] if len(parts) > 1 and parts[-1] in UNITS else parts
            instead = [BANNED_NAMES.get(name), *map(BANNED.get, own)]
            found += [f"{path}:{line}: {name}; say {word}" for word in instead if word]
    assert not found, "\n".join(found)


def test_a_public_name_has_one_meaning() -> None:
    found = repeated({path: ast.parse(path.read_text()) for path in MODULES})
    unlike = [f"{name}: {', '.join(map(str, found[name]))}" for name in sorted(found.keys() - ONE_MEANING)]
    assert not unlike, "\n".join(["several modules define:", *unlike])
    assert found.keys() >= ONE_MEANING.keys(), "no longer defined twice"


def test_comments_and_texts_use_the_words_of_the_field() -> None:
    found = []
    for path in MODULES:
        with path.open("rb") as file:
            texts = [each for each in tokenize.tokenize(file.readline) if each.type in TEXTS]
        for text in texts:
            wrong = [item for item in BANNED_TEXT.items() if re.search(item[0], text.string, re.IGNORECASE)]
            found += [f"{path}:{text.start[0]}: {pattern}; say {instead}" for pattern, instead in wrong]
    assert not found, "\n".join(found)


def test_docstrings_of_functions_begin_with_a_verb() -> None:
    found = []
    for path in (*MODULES, *BESIDE):
        if path.parent.name == "commands":  # whose docstrings are the help of commands: "Train", not "Trains"
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                first = VERB.match(text or "Returns")
                if first is None or first[0] in NOUNS:
                    found.append(f"{path}:{node.lineno}: {node.name}: {(text or '')[:60]}")
    assert not found, "\n".join(found)


def test_no_docstring_begins_with_a_question_word() -> None:
    """Of modules, classes and constants, too: they name or do something."""
    found = []
    for path in (*MODULES, *BESIDE):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                begins = QUESTION.match(str(node.value.value))
                found += [f"{path}:{node.lineno}: {node.value.value[:60]}"] if begins else []
    assert not found, "\n".join(found)


def test_the_rules_find_what_they_forbid() -> None:
    tree = ast.parse("class Kept: pass\ndef f(shareOfRows): self.low_hz = hz_low = 1")
    assert {name for _, name in defined_names(tree)} == {"Kept", "f", "shareOfRows", "low_hz", "hz_low"}
    one, two, three = (Path(f"avel/{name}.py") for name in ("a", "b", "commands/c"))
    first = ast.parse("T = TypeVar('T')\nROWS, _N = 1, 2\ndef run(): x = 1\nclass Run: y = 1")
    again = ast.parse("T = TypeVar('T')\nROWS: int = 3\n_N = x = y = 0")
    found = repeated({one: first, two: again, three: ast.parse("def run(): pass\nclass Run: pass")})
    assert found == {"ROWS": [one, two], "Run": [one, three]}
    assert parts_of("shareOfRows") == ["share", "of", "rows"]
    assert parts_of("_TONE_HZ") == ["tone", "hz"]
    assert VERB.match("Returns the names.")
    assert not VERB.match("Names of the classes.")
    assert QUESTION.match("Whether it is so.")
    assert not QUESTION.match("Theta of TACMA.")
