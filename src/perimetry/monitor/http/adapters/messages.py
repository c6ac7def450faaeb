"""Messages of the OpenAI shape as rows: their words, without images and calls of tools."""

from collections.abc import Sequence
from typing import Any, Final

from perimetry.monitor.engine import Row
from perimetry.monitor.http.judging import chat

__all__ = ["chat_rows", "words_of"]

_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def words_of(message: dict[str, Any]) -> str:
    r"""The words of a message: its content, or the text parts of it.

    >>> words_of({"content": [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]})
    'a\nb'
    """
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [
        part.get("text") for part in parts if isinstance(part, dict) and part.get("type") in ("text", "input_text")
    ]
    return "\n".join(text for text in texts if isinstance(text, str))


def chat_rows(messages: Sequence[dict[str, Any]]) -> list[Row]:
    """One row of all messages with words in them; none where there are no words."""
    said = [(_ROLES.get(str(message.get("role")), "user"), words_of(message)) for message in messages]
    kept = [(role, content) for role, content in said if content.strip()]
    return [chat(kept)] if kept else []
