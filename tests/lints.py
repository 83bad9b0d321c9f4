#!/usr/bin/env python3
"""What the compiler and clippy said of this workspace when its tests were built (tests/rustc.sh): a word is an error.

What is not built yet, as benches are, is built. Cargo keeps what was said of what is.
"""
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, 'tests'))
from all import COMPILED  # pylint: disable=wrong-import-position


def main():
  if not shutil.which('clippy-driver'):
    print('skipped: clippy is missing: rustup component add clippy')
    return 1 if os.environ.get('CI') else 0
  built = subprocess.run(
      ['cargo', 'test', '-q', *COMPILED, '--no-run', '--all-targets', '--color=never'], cwd=ROOT, stderr=subprocess.PIPE, text=True,
      check=False)
  sys.stdout.write(built.stderr)
  said = re.search(r'^(warning|error)\b', built.stderr, re.MULTILINE)
  return 1 if said or built.returncode else 0


if __name__ == '__main__':
  sys.exit(main())
