#!/usr/bin/env python3
"""The documentation of this workspace's libraries, with every warning an error: links that lead nowhere, HTML that is none.

`cargo doc` compiles all third-party crates once more, to see their types only. This takes them as the tests have built them.
"""
import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, 'tests'))
from all import COMPILED  # pylint: disable=wrong-import-position


def built(compiled):
  """What cargo says that it has built: (libraries by package, build scripts' results by package)."""
  told = subprocess.run(
      ['cargo', 'test', '-q', *compiled, '--no-run', '--message-format=json'], cwd=ROOT, stdout=subprocess.PIPE, check=True)
  libraries, scripts = {}, {}
  for line in told.stdout.splitlines():
    message = json.loads(line)
    if message['reason'] == 'build-script-executed':
      scripts[message['package_id']] = message
    elif message['reason'] == 'compiler-artifact' and not message['profile']['test']:
      if {'lib', 'rlib', 'proc-macro'} & set(message['target']['kind']):
        libraries.setdefault(message['package_id'], []).append(message)
  return libraries, scripts


def linked(libraries):
  """Of a package's libraries the one that programs are linked with; the other is for build scripts, which are not optimised."""
  return max(libraries, key=lambda library: library['profile']['opt_level'])


def rustdoc(package, library, externs, script):
  """The command, and what it needs of the environment that cargo gives a compiler."""
  target = library['target']
  command = [
      'rustdoc', '-D', 'warnings', '--edition', target['edition'], '--crate-name', target['name'].replace('-', '_'),
      '--crate-type', target['crate_types'][0], '-o', os.path.join(ROOT, 'target', 'tests', 'doc'),
      '-L', 'dependency=' + os.path.join(ROOT, 'target', 'release', 'deps'), target['src_path'], *externs]
  if target['crate_types'] == ['proc-macro']:
    command += ['--extern', 'proc_macro']
  for feature in library['features']:
    command += ['--cfg', 'feature="%s"' % feature]
  env = dict(os.environ, CARGO_MANIFEST_DIR=os.path.dirname(package['manifest_path']), CARGO_PKG_NAME=package['name'],
             CARGO_PKG_VERSION=package['version'], CARGO_CRATE_NAME=target['name'])
  if script:
    env |= dict(script['env'], OUT_DIR=script['out_dir'])
    for cfg in script['cfgs']:
      command += ['--cfg', cfg]
  return command, env


def tests(compiled, *arguments, env=None):
  """Builds and runs tests as these arguments of cargo compile them. Whether all went well; what the compiler says is an error."""
  process = subprocess.Popen(['cargo', 'test', *compiled, *arguments], cwd=ROOT, env=env, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)
  said = False
  for line in process.stdout:
    sys.stdout.write(line)
    said |= bool(re.match(r'(warning|error)\b', line))
  return process.wait() == 0 and not said


def document(compiled, is_wanted=lambda name: True):
  """Documents libraries as these arguments of cargo compile them. Whether all went well."""
  told = subprocess.run(
      ['cargo', 'metadata', '--format-version=1', '--features', compiled[-1]], cwd=ROOT, stdout=subprocess.PIPE, check=True)
  metadata = json.loads(told.stdout)
  packages = {package['id']: package for package in metadata['packages']}
  needs = {node['id']: node['deps'] for node in metadata['resolve']['nodes']}
  libraries, scripts = built(compiled)
  wrong = []
  for name in metadata['workspace_members']:
    if name not in libraries or not is_wanted(packages[name]['name']):
      continue
    externs = []
    for need in needs[name]:
      normal = any(kind['kind'] is None for kind in need['dep_kinds'])
      if normal and need['pkg'] in libraries:
        files = linked(libraries[need['pkg']])['filenames']
        externs += ['--extern', '%s=%s' % (need['name'], files[0])]
    command, env = rustdoc(packages[name], linked(libraries[name]), externs, scripts.get(name))
    if subprocess.run(command, cwd=ROOT, env=env, check=False).returncode:
      wrong.append(packages[name]['name'])
  if wrong:
    print('error: the documentation of %s' % ', '.join(wrong))
  return not wrong


def main():
  return 0 if document(COMPILED) else 1


if __name__ == '__main__':
  sys.exit(main())
