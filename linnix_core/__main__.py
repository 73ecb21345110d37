"""``python -m linnix_core`` is ``linnix``, for when the script is not on the path."""

from linnix_core.cli import main

main()
