"""Write the pages of the gallery, `docs/gallery`, from the code; pages of removed components are deleted.

    python scripts/gallery.py
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dassl.utils import starting

    starting.begin()

from dassl.config.cli import Parser, command
from dassl.utils.errors import UserError
from scripts.documenting.gallery import PROJECT, pages


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages that differ from the code, print how many, and return the exit code."""
    try:
        Parser(prog="gallery.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
        wanted = {PROJECT / name: text for name, text in pages().items()}
    except UserError as error:
        print(f"gallery.py: {error}", file=sys.stderr)
        return error.exit_code
    changed = [path for path, text in wanted.items() if not path.is_file() or path.read_text() != text]
    gone = [path for path in (PROJECT / "docs/gallery").rglob("*.md") if path not in wanted]
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    for path in gone:
        path.unlink()
    print(f"{len(wanted)} pages: {len(changed)} written, {len(gone)} removed")
    return 0


if __name__ == "__main__":
    command("gallery.py", main)
