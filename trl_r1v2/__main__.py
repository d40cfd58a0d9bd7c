# Copyright 2026 The trl_r1v2 Team. Licensed under the Apache License, Version 2.0.
"""`python -m trl_r1v2 <command>`: the same as `trl-r1v2 <command>`."""

import sys

from .scripts.main import main


if __name__ == "__main__":
    sys.exit(main())
