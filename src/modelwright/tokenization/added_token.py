"""The class for a token with flags, where 4.x code looks for it; it is the `tokenizers` library's."""

import tokenizers

AddedToken = tokenizers.AddedToken
