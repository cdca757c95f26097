"""The rows of a data set, from a file, a folder or the hub: JSONL, JSON, CSV or parquet.

    rows = read("mine.jsonl")           # or read("owner/name"), or read(report.dataset)

What cannot be read is told with the file and the line, in one kind of error.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

from helpers.finale.hub import DATASET_FILES, HubError, Source, find_token, hub_errors, look_up

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
SHOWN = 10  # bad rows in a table and in an error


class RowsError(ValueError):
    """A data set that cannot be trained on; the message says what was found and what to do."""


def read(source: str | Path | Source, strict: bool = True) -> list[Any]:
    """The rows of a local file or folder, or of a data set on the hub (an id, or what `look_up` said of it).

    Of a folder, the files whose names say `train`, else all that do not say test or validation; a README.md that names
    its files (`configs:`) decides instead, through `datasets.load_dataset`. What the hub has is downloaded once.
    strict: a byte that is not UTF-8 is an error; else its row is read, with half a character in the byte's place
    (Python's `surrogateescape`), by which `to_conversations` tells the row.
    Raises RowsError for what is not there or cannot be read, with file and line; HubError if the hub cannot be reached.
    """
    if isinstance(source, str | Path) and Path(source).expanduser().exists():
        path = Path(source).expanduser()
    elif not isinstance(source, Source) and Path(source).suffix.lower() in SUFFIXES:
        raise RowsError(f"{Path(source).name} does not exist: give the path of a file, or a hub id (owner/name).")
    else:
        found = source if isinstance(source, Source) else look_up(str(source), repo_type="dataset")
        path = found.folder or _fetch(found)
    if path.is_dir():
        declared = _declares(path / "README.md")
        rows = _declared(path) if declared else [row for file in _train_files(path) for row in _file(file, strict)]
    else:
        rows = _file(path, strict)
    if not rows:
        raise RowsError(f"{path.name} holds no rows: give a file with one row a line, or one list of rows.")
    return rows


def _fetch(found: Source) -> Path:
    from huggingface_hub import snapshot_download

    if not found.ok:
        raise HubError(found.state, found.problem, found.remedy)
    with hub_errors(found.repo):
        return Path(snapshot_download(found.repo, repo_type="dataset", revision=found.revision,
                                      allow_patterns=list(DATASET_FILES), token=find_token()))


def _declares(readme: Path) -> bool:
    """Whether the head of a data set's card names its files."""
    if not readme.is_file():
        return False
    head = readme.read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0]
    return head.startswith("---") and "\nconfigs:" in head


def _declared(folder: Path) -> list[Any]:
    from datasets import load_dataset

    try:
        return list(load_dataset(str(folder), split="train"))
    except Exception as error:  # datasets raises what its readers raise, of many types
        raise RowsError(f"{folder.name} cannot be read as its README.md says: {type(error).__name__}: {error}\nRemedy: "
                        "give one of its files as COURSE_DATASET instead.") from error


def _train_files(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()
                   and not any(part.startswith(".") for part in p.relative_to(folder).parts))
    names = {path: path.relative_to(folder).as_posix().lower() for path in files}
    train = [path for path in files if "train" in names[path]]
    train = train or [path for path in files if not any(w in names[path] for w in ("test", "valid", "eval", "dev"))]
    if not train:
        raise RowsError(f"{folder.name} holds no file of rows to train on: put a {', '.join(SUFFIXES)} file into it.")
    return train


def _file(path: Path, strict: bool = True) -> list[Any]:
    """The rows of one file, by its ending."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        import pyarrow as arrow
        from pyarrow import parquet

        try:
            return parquet.read_table(path).to_pylist()
        except (arrow.ArrowException, OSError) as error:
            raise RowsError(f"{path.name} is no parquet file that can be read: {error}") from error
    if suffix not in SUFFIXES:
        raise RowsError(f"{path.name} ends in {suffix or 'nothing'}: rows are read from {', '.join(SUFFIXES)} files.")
    text = _text(path, strict)
    if not text.strip():
        raise RowsError(f"{path.name} is empty: give a file with one row a line.")
    if suffix in (".csv", ".tsv"):
        return _csv(path.name, text)
    return _json(path.name, text)


def _text(path: Path, strict: bool) -> str:
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as spreadsheets save "Unicode text"
        raise RowsError(f"{path.name} is in UTF-16.\nRemedy: save it again as UTF-8.")
    try:
        return data.decode("utf-8-sig", "strict" if strict else "surrogateescape")
    except UnicodeDecodeError as error:
        line = data[:error.start].count(b"\n") + 1
        raise RowsError(f"{path.name} is not in UTF-8: line {line} holds the byte 0x{data[error.start]:02X}.\nRemedy: "
                        "save it again as UTF-8 (editors and spreadsheets ask for the encoding when they save).") \
            from error


def _json(name: str, text: str) -> list[Any]:
    listed = text.lstrip().startswith("[")
    rows, wrong = [], []
    for number, line in [(0, text)] if listed else enumerate(text.split("\n"), 1):
        try:
            rows += json.loads(line) if listed else [json.loads(line)] if line.strip() else []
        except json.JSONDecodeError as error:
            wrong.append((f"line {number or error.lineno}, column {error.colno}", error.msg))
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits; a thousand brackets
            wrong.append((f"line {number or 1}", str(error)))
    if wrong:
        (place, reason), *others = wrong
        more = [f"\nNor is {where}: {why}." for where, why in others[:SHOWN - 1]]
        rest = f"\nNor are {len(wrong) - SHOWN:,} more." if len(wrong) > SHOWN else ""
        raise RowsError(f"{name}, {place}, is not JSON: {reason}.{''.join(more)}{rest}\nRemedy: one row a line as "
                        "JSON, with double quotes, no comma at the end; or one list of rows.")
    return rows


def _csv(name: str, text: str) -> list[dict[str, Any]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a long answer is no error; the limit is 131,072 by default
    header = text.lstrip("\n").split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise RowsError(f"{name} is not CSV: {error}.\nRemedy: put every text in double quotes, and double the quotes "
                        "inside it.") from error
    for number, row in enumerate(rows, 1):
        if None in row:
            raise RowsError(f"{name}, row {number} has more fields than the header has columns.\nRemedy: put every "
                            "text in double quotes, and double the quotes inside it.")
    return rows
