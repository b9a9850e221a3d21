"""Streamers: `generate` hands them each token as it is chosen, and they make text of it."""

from collections.abc import Iterator
from queue import Queue
from typing import Any

from modelwright.core.errors import InputError
from modelwright.generation.stopping_criteria import REPLACEMENT, Decoder

# A stretch of this many tokens is decoded again for each new one; then it is cut back to the last few, which are kept
# because the text of a token may depend on its neighbours (a character of several bytes, the space before a word).
_WINDOW, _CONTEXT = 64, 16
# A character of UTF-8 has at most four bytes, so that at most three can wait for the rest.
_MOST_PENDING = 3


class BaseStreamer:
    """Base of everything that receives tokens during `generate`."""

    def put(self, value: Any) -> None:
        """Receive token ids: first the prompt [1, tokens], then each new token [1]."""
        raise NotImplementedError(f"{type(self).__name__} must define put(value).")

    def end(self) -> None:
        """Learn that the last token has come."""
        raise NotImplementedError(f"{type(self).__name__} must define end().")

    def fail(self, error: BaseException) -> None:  # noqa: ARG002
        """Learn that `generate` ends with `error`; by default like `end`."""
        self.end()


class TextPieces:
    """Decodes a growing row of ids piece by piece, without ever giving out half a character.

    decode_kwargs: for the tokenizer's `decode`, such as `skip_special_tokens=True`.
    """

    def __init__(self, tokenizer: Decoder, **decode_kwargs: Any) -> None:
        self._tokenizer, self._decode_kwargs = tokenizer, decode_kwargs
        self.reset()

    def reset(self) -> None:
        """Forget all ids."""
        self._ids: list[int] = []
        self._given = 0

    def add(self, ids: list[int]) -> str:
        """Return the text that became certain with these further ids, "" if there is none yet."""
        self._ids += ids
        try:
            text = self._decode()
        except UnicodeDecodeError as error:
            if error.end < len(error.object):
                raise
            return ""  # A tokenizer that decodes strictly, in the middle of a character.
        certain = _without_pending(text)
        piece = certain[self._given :]
        self._given = max(self._given, len(certain))
        if len(self._ids) > _WINDOW and len(certain) == len(text):
            self._ids = self._ids[-_CONTEXT:]
            self._given = len(self._decode())
        return piece

    def finish(self) -> str:
        """Return the text that was still held back, and forget all ids."""
        rest = self._decode()[self._given :] if self._ids else ""
        self.reset()
        return rest

    def _decode(self) -> str:
        return self._tokenizer.decode(self._ids, **self._decode_kwargs)


def _without_pending(text: str) -> str:
    """Return `text` without the marks at its end that further bytes may still turn into a character."""
    end = len(text)
    while (
        end
        and len(text) - end < _MOST_PENDING
        and (text[end - 1] == REPLACEMENT or "\udc80" <= text[end - 1] <= "\udcff")
    ):
        end -= 1
    return text[:end]


class TextStreamer(BaseStreamer):
    """Prints the text of one row as it comes.

    skip_prompt: do not print the prompt. decode_kwargs: for the tokenizer's `decode`.
    """

    def __init__(self, tokenizer: Decoder, skip_prompt: bool = False, **decode_kwargs: Any) -> None:
        self.tokenizer, self.skip_prompt, self.decode_kwargs = tokenizer, skip_prompt, decode_kwargs
        self._pieces = TextPieces(tokenizer, **decode_kwargs)
        self._next_is_prompt = True

    def put(self, value: Any) -> None:
        """Receive ids [1, tokens] or [tokens] and print what became certain; raises InputError for a larger batch."""
        if value.ndim > 2 or (value.ndim == 2 and value.shape[0] != 1):
            raise InputError(f"{type(self).__name__}: expected one row, got ids of shape {tuple(value.shape)}.")
        ids = value.reshape(-1).tolist()
        skipped = self.skip_prompt and self._next_is_prompt
        self._next_is_prompt = False
        # The end of the prompt stays as context: the first new byte may complete a character that it began.
        piece = self._pieces.add(ids[-_CONTEXT:] if skipped else ids)
        if piece and not skipped:
            self.on_finalized_text(piece)

    def end(self) -> None:
        """Print what was held back, and a line feed."""
        self._next_is_prompt = True
        self.on_finalized_text(self._pieces.finish(), stream_end=True)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print `text`, and a line feed at the end of the stream; a subclass may do something else with it."""
        print(text, flush=True, end="\n" if stream_end else "")


class TextIteratorStreamer(TextStreamer):
    """Gives out the text piece by piece as an iterator, for a `generate` that runs in another thread.

    timeout: seconds to wait for the next piece, then queue.Empty; None waits for ever. An error in `generate` is raised
    again by the iterator.
    """

    def __init__(
        self, tokenizer: Decoder, skip_prompt: bool = False, timeout: float | None = None, **decode_kwargs: Any
    ) -> None:
        super().__init__(tokenizer, skip_prompt, **decode_kwargs)
        self.timeout = timeout
        self.text_queue: Queue[str | BaseException | None] = Queue()

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Put `text` in the queue."""
        if text:
            self.text_queue.put(text)
        if stream_end:
            self.text_queue.put(None)

    def fail(self, error: BaseException) -> None:
        """Hand `error` to the iterator."""
        self._pieces.reset()
        self._next_is_prompt = True
        self.text_queue.put(error)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        piece = self.text_queue.get(timeout=self.timeout)
        if piece is None:
            raise StopIteration
        if isinstance(piece, BaseException):
            raise piece
        return piece
