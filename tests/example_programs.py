"""The example programs that tests run, as the gate compiles them."""
import json
import os
import subprocess

from all import COMPILED, ROOT


def built(name, compiled=COMPILED, env=None):
  """The path of an example, compiled as `cargo test` of the gate does: nothing is built twice. `env` names one that is built already."""
  if env and env in os.environ:
    return os.environ[env]
  told = subprocess.run(['cargo', 'build', '-q', *compiled, '--example', name, '--message-format=json'],
                        cwd=ROOT, capture_output=True, text=True, check=True)
  messages = [json.loads(line) for line in told.stdout.splitlines() if line.startswith('{')]
  return next(m['executable'] for m in messages if m.get('executable') and m['target']['name'] == name)
