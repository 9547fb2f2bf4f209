"""The built-in text is clean English prose, the same every time, its held-out part unseen."""

import re
from pydoc_data.topics import topics

import pytest

from delta_vae_lab.data import language_reference

TRAIN, HELDOUT = language_reference.language_reference()

TOPIC = """\
The "with" statement
********************

The "with" statement wraps a block in a *context manager* (see Context
Managers). This allows common "try"…"finally" patterns to be
encapsulated.  It’s built-
in, i.e. always there. [1]

   with_stmt ::= "with" ( "(" with_stmt_contents ","? ")" )

+-------+--------+
| Right | Wrong. |
+-------+--------+

1. The context expression is evaluated:

      >>> Foo.bar()
      A result, as a Sentence.

      with EXPRESSION as TARGET:
          SUITE = value

Integers ("int")
   These represent numbers in an unlimited range.

**CPython implementation detail:** Some of it is not portable.

Changed in version 3.1: Support for multiple context expressions.

New in version 3.4.

-[ Footnotes ]-

[1] This is a footnote's text.
"""


def test_prose_is_taken_and_all_else_left() -> None:
    assert list(language_reference._sentences(TOPIC)) == [
        'The "with" statement wraps a block in a context manager (see Context Managers).',
        'This allows common "try"..."finally" patterns to be encapsulated.',
        "It's built-in, i.e. always there.",
        "These represent numbers in an unlimited range.",
        "Some of it is not portable.",
        "Support for multiple context expressions.",
        "This is a footnote's text.",
    ]


def test_there_is_enough_of_it() -> None:
    assert len(TRAIN) > 1500
    assert 0.07 < len(HELDOUT) / len(TRAIN) < 0.15


def test_every_sentence_is_a_whole_one_without_code() -> None:
    for sentence in TRAIN + HELDOUT:
        assert 3 <= len(sentence.split()) <= 60, sentence
        assert sentence == " ".join(sentence.split())
        assert re.search(r"[.!?][\")]?$", sentence), sentence
        assert not re.search(r">>>|::=|\+--|\*\*\w+\*\*|\[\d\]$|^\W*(def|class|import) ", sentence), sentence


def test_no_sentence_is_there_twice_nor_on_both_sides() -> None:
    assert len({*TRAIN, *HELDOUT}) == len(TRAIN) + len(HELDOUT)


def test_a_sentence_keeps_its_side_when_others_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_reference, "topics", dict(list(topics.items())[::2]))
    train, heldout = language_reference.language_reference()
    assert set(train) < set(TRAIN)
    assert set(heldout) < set(HELDOUT)


def test_the_order_does_not_follow_the_topics() -> None:
    """So that the first few held-out sentences are a fair sample."""
    topic = {sentence: name for name, text in topics.items() for sentence in language_reference._sentences(text)}
    assert len({topic[sentence] for sentence in HELDOUT[:20]}) > 8
