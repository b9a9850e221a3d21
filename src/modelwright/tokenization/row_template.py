"""Special tokens before and after each text of a row, for tokenizers in Python."""


class RowTemplateMixin:
    """Builds rows from `_frame`: the ids before and after a row's text; the special tokens are those of the frame."""

    # The token type of the second text.
    second_token_type = 1

    def _frame(self, second: bool) -> tuple[list[int], list[int]]:  # noqa: ARG002
        """Return the ids before and after the first text, or the `second` one."""
        return [], []

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return the ids of one row: each text with the special tokens around it."""
        before, after = self._frame(False)
        row = [*before, *token_ids_0, *after]
        return row if token_ids_1 is None else row + self._around(token_ids_1)

    def _around(self, ids: list[int]) -> list[int]:
        before, after = self._frame(True)
        return [*before, *ids, *after]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Return 0 for the first text and its special tokens, and the type of the second text for the rest."""
        first = len(self.build_inputs_with_special_tokens(token_ids_0))
        total = len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))
        return [0] * first + [self.second_token_type] * (total - first)

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """Return 1 for each token that the frame adds (of a built row: each special token), 0 for tokens of text."""
        if already_has_special_tokens:
            return super().get_special_tokens_mask(token_ids_0, None, True)  # type: ignore[misc, no-any-return]
        mask: list[int] = []
        for second, ids in ((False, token_ids_0), (True, token_ids_1)):
            if ids is not None:
                before, after = self._frame(second)
                mask += [1] * len(before) + [0] * len(ids) + [1] * len(after)
        return mask
