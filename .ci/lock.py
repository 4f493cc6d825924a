"""Turn pip's resolution report into a lock file: one `name==version` a line, sorted."""

import json
import re
import sys
from pathlib import Path

report = json.loads(Path(sys.argv[1]).read_text())
pins = {
    re.sub(r"[-_.]+", "-", item["metadata"]["name"].lower()): item["metadata"]["version"]
    for item in report["install"]
}
sys.stdout.write(
    "# Every version this project is tested with. Written by `make lock`, read by `make install`.\n"
)
for name, version in sorted(pins.items()):
    if name != "srghn":
        sys.stdout.write(f"{name}=={version.split('+')[0]}\n")  # any build of it: CPU or CUDA
