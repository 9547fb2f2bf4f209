"""What a YAML file or an override says, before a config is made of it: text of a bounded size, depth and vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

MOST_BYTES = 100_000  # a config that gives every key has 3,000
MOST_LEVELS = 12
MOST_VALUES = 10_000  # with every alias written out
MOST_CHARACTERS = 4096  # of a value, the longest path that a system takes

_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")}
_MERGE = "tag:yaml.org,2002:merge"
_RESOLVER = re.compile(r"\$\{[^{}]*[:$]")  # of which the name may itself be an interpolation
_KEY = re.compile(r"\w+(\.\w+)*")


def read_config_text(path: Path) -> str:
    """The text of a config file, which `check_yaml` has found to be one mapping of plain values."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{path}: has {size:,} bytes, where a config has at most {MOST_BYTES:,}; give a YAML file")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 at byte {error.start + 1}; give a YAML file, saved as UTF-8") from None
    root = check_yaml(text, str(path))
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
        raise ValueError(f"{path}: is empty; write a mapping of sections, such as 'optimization: {{steps: 1000}}'")
    mapping = isinstance(root, yaml.MappingNode)
    if not mapping:
        raise ValueError(f"{path}: must be a mapping of sections; write it as 'optimization: {{steps: 1000}}'")
    return text


def split_override(override: str) -> tuple[str, str]:
    """The key and the value of `section.key=value`."""
    key, equals, value = override.partition("=")
    if not equals or not _KEY.fullmatch(key):
        raise ValueError(f"{override!r}: an override must read section.key=value")
    check_yaml(value, override)
    return key, value


def check_yaml(text: str, source: str) -> yaml.Node | None:
    """The root of a YAML document of plain values; a one-line `ValueError` for anything else.

    No tag of a language, no resolver, which could read the environment, and nothing that would fill the memory.
    """
    with yaml_errors(source):
        _check_depth(text, source)
        root = yaml.compose(text, yaml.SafeLoader)
    if root is not None:
        _count(root, source, "", {}, set())
    return root


@contextmanager
def yaml_errors(source: str) -> Iterator[None]:
    """Turn what YAML's reader raises into a `ValueError` that says where it came from."""
    try:
        yield
    except yaml.YAMLError as error:
        raise ValueError(f"{source}: {' '.join(str(error).split())}; correct the YAML") from None


def _check_depth(text: str, source: str) -> None:
    depth = documents = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if depth > MOST_LEVELS:
            raise ValueError(f"{source}: nested more than {MOST_LEVELS} deep; a config has sections of keys, use these")
        if documents > 1:
            raise ValueError(f"{source}: holds a second document; give each config a file of its own")


def _count(node: yaml.Node, source: str, key: str, counted: dict[int, int], above: set[int]) -> int:
    """The values in a node, each alias written out."""
    if id(node) in above:
        raise ValueError(f"{source}: {key}: an alias of what it is in; write out what it stands for")
    if id(node) in counted:
        return counted[id(node)]
    _check_plain(node, source, key)
    children: list[tuple[str, yaml.Node]] = []
    if isinstance(node, yaml.SequenceNode):
        children = [(f"{key}[{place}]", child) for place, child in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        children = [(_name(named, source, key), child) for named, child in node.value]
    total = 1 + sum(_count(child, source, name, counted, above | {id(node)}) for name, child in children)
    if total > MOST_VALUES:
        raise ValueError(f"{source}: {key}: more than {MOST_VALUES:,} values, every alias counted; leave some out")
    counted[id(node)] = total
    return total


def _check_plain(node: yaml.Node, source: str, key: str) -> None:
    if node.tag not in _TAGS:
        name = node.tag.removeprefix("tag:yaml.org,2002:")
        raise ValueError(f"{source}: {key}: the tag {name!r} is not read; use numbers, text, lists and mappings")
    if not isinstance(node, yaml.ScalarNode):
        return
    if len(node.value) > MOST_CHARACTERS:
        raise ValueError(f"{source}: {key}: a value of {len(node.value):,} characters; use at most {MOST_CHARACTERS:,}")
    if node.value == "???":
        raise ValueError(f"{source}: {key}: ??? stands for a value that is missing; give it, or leave the key out")
    if found := _RESOLVER.search(node.value):
        raise ValueError(f"{source}: {key}: {found[0]}...}} is not read in a config; write out what it stands for")


def _name(named: yaml.Node, source: str, key: str) -> str:
    """The key that a key's node names, with the keys that it is in."""
    if named.tag == _MERGE:
        return key
    if not isinstance(named, yaml.ScalarNode) or named.tag != "tag:yaml.org,2002:str":
        what = named.value if isinstance(named, yaml.ScalarNode) else "a list or a mapping"
        raise ValueError(f"{source}: the key {what} {f'in {key} ' if key else ''}is no name; use the name of a key")
    return f"{key}.{named.value}" if key else str(named.value)
