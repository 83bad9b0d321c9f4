#!/usr/bin/env python3
"""Merges the jars of a folder into one, as Beam ships its job servers.

    setup/merge_jars.py FOLDER JAR MAIN_CLASS

Of files that several jars hold the first is kept, in the order of the jars' names; lists of services are joined, and signatures left
out, as they are of jars that are no more.
"""
import os
import sys
import zipfile


def merge(folder, jar, main_class):
  services = {}
  partial = jar + '.partial'
  with zipfile.ZipFile(partial, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as merged:
    merged.writestr('META-INF/MANIFEST.MF', f'Manifest-Version: 1.0\r\nMain-Class: {main_class}\r\nMulti-Release: true\r\n\r\n')
    taken = {'META-INF/MANIFEST.MF'}
    for name in sorted(os.listdir(folder)):
      with zipfile.ZipFile(os.path.join(folder, name)) as source:
        for entry in source.infolist():
          path = entry.filename
          if path.startswith('META-INF/services/') and not entry.is_dir():
            services.setdefault(path, []).extend(
                line for line in source.read(entry).decode().splitlines() if line.strip() and not line.startswith('#'))
          elif path not in taken and not is_signature(path) and path != 'module-info.class':
            taken.add(path)
            merged.writestr(entry, source.read(entry), zipfile.ZIP_DEFLATED)
    for path, lines in services.items():
      merged.writestr(path, ''.join(line + '\n' for line in dict.fromkeys(lines)))
  os.replace(partial, jar)


def is_signature(path):
  return path.startswith('META-INF/') and path.count('/') == 1 and path.rsplit('.', 1)[-1] in ('SF', 'RSA', 'DSA', 'EC')


if __name__ == '__main__':
  if len(sys.argv) != 4:
    sys.exit(__doc__)
  merge(*sys.argv[1:])
