"""`python -m pipelines.stages NAME`, as the `dvc.yaml` of workspaces made before 0.3 calls it."""

from __future__ import annotations

import sys

from pipelines.runs.stages import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
