#!/usr/bin/env python3
"""Lists the crates that are built more than once for the programs and the gate, with the features that differ.

Cargo tells what it would build without building it, by an option that is unstable: hence RUSTC_BOOTSTRAP.
"""
import collections
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, 'tests'))
from all import COMPILED  # pylint: disable=wrong-import-position

BUILDS = {
    'example': ['build', '--release', '-p', 'image-classification'],
    'services': ['build', '--release', '-p', 'purlin-job-service', '-p', 'purlin-worker-pool'],
    'tests': ['test', '--no-run', *COMPILED],
}

# What is linked, not built upon.
PROGRAMS = {'bench', 'bin', 'custom-build', 'example', 'test'}


def crates_of(arguments):
  """{what tells a crate's build from others: (its name and version, features)} of all libraries that a build needs."""
  told = subprocess.run(
      ['cargo', *arguments, '--unit-graph', '-Z', 'unstable-options'], cwd=ROOT, env=dict(os.environ, RUSTC_BOOTSTRAP='1'),
      stdout=subprocess.PIPE, check=True)
  units = json.loads(told.stdout)['units']
  keys = {}

  def key(index):
    if index not in keys:
      unit = units[index]
      profile = {name: value for name, value in unit['profile'].items() if name != 'name'}
      needs = sorted(key(other['index']) for other in unit['dependencies'])
      keys[index] = hash((unit['pkg_id'], str(unit['target']), str(profile), unit['mode'], str(unit['features']), tuple(needs)))
    return keys[index]

  return {
      key(index): (unit['pkg_id'].rpartition('#')[2], unit['profile']['opt_level'], ' '.join(unit['features']))
      for index, unit in enumerate(units)
      if unit['mode'] == 'build' and not PROGRAMS & set(unit['target']['kind'])}


def main():
  found = {build: crates_of(arguments) for build, arguments in BUILDS.items()}
  versions = collections.defaultdict(dict)
  for build, crates in found.items():
    for key, (name, level, features) in crates.items():
      versions[name, level].setdefault(key, (features, []))[1].append(build)
  for (name, level), by_key in sorted(versions.items()):
    if len(by_key) > 1:
      print('%s, opt-level %s' % (name, level))
      for features, builds in by_key.values():
        print('    %s: %s' % (', '.join(builds), features))


if __name__ == '__main__':
  main()
