"""`python -m pipelines.lab.bench [--quick] [--install-peers]`: the same as `srghn bench`."""

from __future__ import annotations

import argparse

from pipelines.lab.bench import run_bench
from serving.settings import load_settings

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--install-peers", action="store_true")
    chosen = parser.parse_args()
    run_bench(load_settings(), quick=chosen.quick, install_peers=chosen.install_peers)
