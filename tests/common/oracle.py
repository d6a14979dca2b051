"""The filter as a dict: writes the lines of stdin whose id, named by a dotted path, is new, and those that have none."""

import json
import sys

path, seen = sys.argv[1].split("."), set()
for line in sys.stdin.buffer:
    try:
        value = json.loads(line)
        for name in path:
            value = value[name]
        if not isinstance(value, (str, int)) or value == "":
            raise ValueError("no id")
    except (ValueError, KeyError, TypeError):
        sys.stdout.buffer.write(line)
        continue
    if (type(value), value) not in seen:
        seen.add((type(value), value))
        sys.stdout.buffer.write(line)
