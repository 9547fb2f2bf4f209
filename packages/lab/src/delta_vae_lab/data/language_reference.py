"""The built-in text: the English prose of the Python language reference that every CPython carries."""

import re
from collections.abc import Iterator
from hashlib import sha256
from platform import python_version
from pydoc_data.topics import topics

NAME = "cpython-language-reference"
SOURCE = f"pydoc_data.topics of CPython {python_version()}"
HELDOUT_ONE_IN = 10  # 5 % of so little text would be too little to judge by

# What Sphinx writes into plain text beside the prose.
_BULLET = re.compile(r"\A\s*(\*|\d+\.|\[\d+\])(?=\s)")
_NOT_PROSE = re.compile(r"^\s*(>>>|\.\.\.|->|\$|[|+@#]|\W{3,}$)|::=|^\s*-\[", re.MULTILINE)
_BROKEN_WORD = re.compile(r"(?<=\w-)\n\s*")
_TYPOGRAPHY = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})
_EMPHASIS = re.compile(r"(?<![\w*\"'])(\*{1,2})(?=[\w(])([^*\"]*[\w):.])\1(?![\w*\"])")
_DOUBLE_QUOTES = re.compile(r'""([^"]+)""')
_FOOTNOTE = re.compile(r"(?<=\S) \[\d+\]")
_LABEL = re.compile(
    r"((Notes?|See also|Warning|Important|Programmer's note|CPython implementation detail):"
    r"|(New|Added|Changed|Deprecated) (in|since) version [^:]*(:|$))\s*"
)
_SENTENCE_END = re.compile(r"(?:(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!\.\.\.)|(?<=[.!?]\)))\s+(?=[A-Z\"(])")
_QUOTED = re.compile(r'"[^"]*"')
_CODE = re.compile(r"[=<>{}\[\]\\|#@`^~$&+*]|\w\(|--")
_SENTENCE = re.compile(r'(\(?[A-Z]|\(?").*[.!?][")]?')


def language_reference() -> tuple[list[str], list[str]]:
    """Train and held-out sentences without repeats; a sentence's own hash decides its side and its place in the order.

    About 2,000 and 200, depending on the Python version, whose text differs.
    """
    prose = {sentence for topic in topics.values() for sentence in _sentences(topic)}
    digests = sorted((int.from_bytes(sha256(sentence.encode()).digest()), sentence) for sentence in prose)
    train = [sentence for digest, sentence in digests if digest % HELDOUT_ONE_IN]
    heldout = [sentence for digest, sentence in digests if digest % HELDOUT_ONE_IN == 0]
    return train, heldout


def _sentences(topic: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", topic):
        if not _NOT_PROSE.search(paragraph):
            yield from filter(_is_prose, _SENTENCE_END.split(_unwrap(paragraph)))


def _unwrap(paragraph: str) -> str:
    """The paragraph on one line, without its bullet, the term it defines, its mark-up and its label ("Note:")."""
    lines = _BULLET.sub(lambda bullet: " " * len(bullet[0]), paragraph.strip("\n")).split("\n")
    if len(lines) > 1 and _indent(lines[0]) < _indent(lines[1]):
        lines = lines[1:]
    text = _BROKEN_WORD.sub("", "\n".join(lines)).translate(_TYPOGRAPHY)
    text = _EMPHASIS.sub(r"\2", " ".join(text.split()))
    text = _FOOTNOTE.sub("", _DOUBLE_QUOTES.sub(r'"\1"', text))
    return text[label.end() :] if (label := _LABEL.match(text)) else text


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_prose(sentence: str) -> bool:
    """A whole sentence of 3 to 60 words, mostly English: code stands in quotes, and quotes are the lesser part."""
    words, unquoted = len(sentence.split()), _QUOTED.sub("", sentence)
    return (
        3 <= words <= 60
        and _SENTENCE.fullmatch(sentence) is not None
        and sentence.count('"') % 2 == 0
        and sentence.count("(") == sentence.count(")")
        and not _CODE.search(unquoted)
        and len(unquoted.split()) >= words / 2
    )
