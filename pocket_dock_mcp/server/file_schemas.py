"""What goes over the wire for files: parameters with their descriptions, and structured results."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

Path = Annotated[
    str,
    Field(description="Absolute, or relative to the home directory, which ~ means too. Links are followed."),
]


class EditIn(BaseModel):
    """One replacement."""

    old: str = Field(description="Exact present text; it must be in the file once, so add lines around it.")
    new: str = Field(description="What takes its place.")
    all: bool = Field(default=False, description="Replace it everywhere instead.")


class WriteReply(BaseModel):
    """What a write did."""

    sandbox_id: str
    path: str
    size: int = Field(description="Bytes of the whole file now.")
    overwrote: bool = Field(description="Whether there was a file before.")


class EditReply(BaseModel):
    """What edits did."""

    sandbox_id: str
    path: str
    size: int
    replacements: list[int] = Field(description="By edit.")
    diff: str = Field(description="Unified, without a file header.")
    diff_truncated: bool
    control_chars_removed: bool = Field(description="Whether the diff is without some that the file has.")


class ReadReply(BaseModel):
    """A file, or a part of it."""

    sandbox_id: str
    path: str
    content: str = Field(description="Empty for an image, which comes as image content.")
    encoding: Literal["utf-8", "base64", "image"]
    control_chars_removed: bool = Field(
        description="From the content; encoding='base64' returns exact bytes."
    )
    size: int = Field(description="Bytes of the whole file.")
    total_lines: int | None = Field(description="Null where it is no text or too long to count.")
    start_line: int | None = Field(description="Of the content, from 1; null if not by lines.")
    end_line: int | None
    start_byte: int | None = Field(description="Of the content, from 0; null for an image.")
    next_byte: int | None = Field(description="start_byte to go on with; null at the end.")
    truncated: bool = Field(description="Whether less came than was asked for.")


class Found(BaseModel):
    """A file."""

    path: str
    type: Literal["file", "directory", "symlink", "other"]
    size: int
    escaped: bool = Field(description="Whether the path is not as here: \\xNN stands for a byte.")


class Match(BaseModel):
    """A line."""

    path: str
    line: int
    text: str
    escaped: bool


class FindReply(BaseModel):
    """What was found: files, or lines for grep."""

    sandbox_id: str
    files: list[Found]
    matches: list[Match]
    more: bool = Field(description="Whether there are more than max_results.")
    timed_out: bool = Field(description="Whether the time was up before all was searched.")
    skipped: int = Field(description="Hidden and vendored entries that were not looked at.")
