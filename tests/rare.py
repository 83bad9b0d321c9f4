#!/usr/bin/env python3
"""A step of the gate for a crate that no other step builds, since few need it: its tests and its documentation. `rare.py kafka`.

What the compiler, clippy or rustdoc says of it is an error.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from all import KAFKA  # pylint: disable=wrong-import-position
import docs  # pylint: disable=wrong-import-position

CRATES = {'kafka': KAFKA}


def main():
  [name] = sys.argv[1:]
  good = docs.tests(CRATES[name], '--no-fail-fast')
  good &= docs.document(CRATES[name], lambda package: package == 'purlin-' + name)
  return 0 if good else 1


if __name__ == '__main__':
  sys.exit(main())
