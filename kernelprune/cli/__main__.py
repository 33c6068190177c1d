"""``python -m kernelprune.cli`` is ``kernelprune``."""

from __future__ import annotations

from kernelprune.cli.entry import main

if __name__ == "__main__":
    main()
