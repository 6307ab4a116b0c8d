"""A strict reader of BibTeX: comment lines and entries with fields in braces, nothing else."""

import re

REQUIRED = {
    "article": {"author", "title", "journal", "year"},
    "book": {"author", "title", "publisher", "year"},
    "inproceedings": {"author", "title", "booktitle", "year"},
    "misc": {"author", "title", "year"},
    "software": {"author", "title", "version"},
}


def parse(text):
    """Fields of every entry, by key; the entry's kind is the field "kind"."""
    found, at = {}, 0
    while match := re.compile(r"(?:%[^@\n]*\n|\s)*@(\w+)\{([\w:-]+),\n").match(text, at):
        kind, key = match.groups()
        fields, at = _fields(text, match.end())
        assert key not in found, key
        assert REQUIRED[kind] <= set(fields), key
        found[key] = {"kind": kind, **fields}
    assert re.fullmatch(r"(?:%[^@\n]*(?:\n|$)|\s)*", text[at:]), text[at : at + 80]
    return found


def _fields(text, at):
    fields = {}
    while match := re.compile(r" *([a-z]+) *= \{").match(text, at):
        end = match.end()
        depth = 1
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        value = " ".join(text[match.end() : end - 1].split())
        assert value, match[1]
        assert match[1] not in fields, match[1]
        assert value.isascii(), value
        assert not re.search(r"(?<!\\)[&%#$_]", value) or match[1] == "url", value
        fields[match[1]] = value
        assert text[end : end + 2] == ",\n", text[match.start() : end + 2]
        at = end + 2
    assert text[at : at + 1] == "}", text[at : at + 80]
    return fields, at + 1


def first_family(author):
    """Family name of the first author, without accents."""
    return re.sub(r"\\.|[{}]", "", author.split(" and ")[0].split(",")[0])
