"""Where the files of a model are: well-known names, and repositories that hand out local paths."""
