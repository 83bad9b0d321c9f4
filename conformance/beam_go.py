"""Programs of Beam's Go SDK, which are compiled from Go's module proxy or cache."""
import os
import shutil
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# What setup/go.sh fetches comes last.
GO = next(filter(os.path.exists, filter(None, [
    os.environ.get('GO'), shutil.which('go'), '/usr/local/go/bin/go', os.path.join(ROOT, 'third_party', 'go-sdk', 'go', 'bin', 'go'),
])), 'go')
# That of the Python SDK whose suites run here.
VERSION = 'v2.77.0'
MODULE = 'github.com/apache/beam/sdks/v2'


class NoGo(Exception):
  """Why there are no programs."""


class Programs:
  """A folder in which programs of the module are built."""
  def __init__(self, folder):
    """Raises NoGo where Go or the module is missing."""
    self.folder = folder
    if not os.path.exists(GO):
      raise NoGo('Go is not installed; GO names its program')
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, 'go.mod'), 'w', encoding='utf-8') as out:
      out.write('module programs\n\ngo 1.25\n\nrequire %s %s\n' % (MODULE, VERSION))
    try:
      self._go('mod', 'download', MODULE)
    except NoGo as missing:
      raise NoGo('Beam %s is neither in Go\'s module cache nor to be had: %s' % (VERSION, missing)) from None

  def build(self, name, package):
    """The path of a program."""
    self._go('build', '-o', name, MODULE + package)
    return os.path.join(self.folder, name)

  def build_tests(self, name, package):
    """The path of a package's tests."""
    self._go('test', '-c', '-o', name, MODULE + package)
    return os.path.join(self.folder, name)

  def _go(self, *arguments, limit=1800):
    try:
      done = subprocess.run(
          [GO, *arguments], cwd=self.folder, env=dict(os.environ, GOFLAGS='-mod=mod'), stdout=subprocess.PIPE,
          stderr=subprocess.STDOUT, text=True, errors='replace', timeout=limit)
    except subprocess.TimeoutExpired:
      raise NoGo('"go %s" took more than %d s' % (arguments[0], limit)) from None
    if done.returncode:
      raise NoGo('"go %s": %s' % (arguments[0], done.stdout.strip()[-500:] or 'no output'))
