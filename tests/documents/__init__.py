"""The HTTP examples of the documents that the service keeps to, word for word, and their reader."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Example:
    """A block of code in a document."""

    heading: str
    """The nearest heading above it, without its marks."""
    language: str
    text: str


def examples(document: str) -> list[Example]:
    """Return the blocks of a document in their order."""
    found, heading = [], ""
    for line_block in re.split(r"^(?=```\w)", (_FOLDER / document).read_text(encoding="utf-8"), flags=re.MULTILINE):
        if block := re.match(r"```(\w+)\n(.*?)\n```\n", line_block, re.DOTALL):
            found.append(Example(heading, block[1], block[2]))
        for title in re.findall(r"^#+ (.*)$", line_block[block.end() if block else 0 :], re.MULTILINE):
            heading = title
    return found


def example(document: str, heading: str, language: str, number: int = 0) -> str:
    """Return the text of one block.

    Args:
        document: File in this folder.
        heading: Its nearest heading, without marks and backticks.
        language: Of the block.
        number: Which of several under that heading.
    """
    fitting = [
        one.text for one in examples(document) if (one.heading.replace("`", ""), one.language) == (heading, language)
    ]
    return fitting[number]
