#!/usr/bin/env python3
"""Finds circles among the top modules of the SDK's crates: `a` uses `b`, and `b`, perhaps by way of others, uses `a`.

The modules that a crate's `lib.rs` names may build on each other in one direction only, so that each can be read, tested and
moved on its own. A module uses another where its code names `crate::other`, or an item that `lib.rs` re-exports from it.
Code of tests counts for nothing.

    tests/circles.py            checks the crates in sdk/
    tests/circles.py -v CRATE   prints who uses whom, and in which files
"""

import graphlib
import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent


def strip(text):
    """Without comments, strings and the bodies of `#[cfg(test)] mod name { ... }`."""
    pattern = r'//[^\n]*|/\*.*?\*/|r(#+)".*?"\1|r"[^"]*"|"(?:\\.|[^"\\])*"|\'(?:\\[^\']+|[^\'\\])\''
    text = re.sub(pattern, lambda m: ' ' if m[0][0] == '/' else '""', text, flags=re.S)
    while m := re.search(r'#\[cfg\(test\)\]\s*(?:pub\s+)?mod\s+\w+\s*\{', text):
        depth, end = 1, m.end()
        while depth and end < len(text):
            depth += {'{': 1, '}': -1}.get(text[end], 0)
            end += 1
        text = text[:m.start()] + text[end:]
    return text


def tree(text, prefix=()):
    """The paths that a `use` tree names, each as a tuple of segments."""
    text = text.strip()
    depth, start, parts = 0, 0, []
    for i, c in enumerate(text):
        depth += {'{': 1, '}': -1}.get(c, 0)
        if c == ',' and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    for part in filter(None, (p.strip() for p in parts)):
        head, brace, rest = part.partition('{')
        path = prefix + tuple(s for s in re.sub(r'\s+as\s+\w+', '', head).replace(' ', '').split('::') if s)
        if brace:
            yield from tree(rest.rstrip().removesuffix('}'), path)
        else:
            yield path


def paths(text, depth):
    """The paths of the crate, without `crate`, that the code of a module `depth` levels below `lib.rs` names."""
    found = []
    for m in re.finditer(r'\buse\s+([^;]+);', text):
        found.extend(tree(m[1]))
    for m in re.finditer(r'\b(?:crate|super)(?:::\w+)+', re.sub(r'\buse\s+[^;]+;', '', text)):
        found.append(tuple(m[0].split('::')))
    for path in found:
        ups = 0
        while ups < len(path) and path[ups] == 'super':
            ups += 1
        if path[0] == 'crate':
            yield path[1:]
        elif ups and ups == depth:
            yield path[ups:]


def files(module):
    """The files of a top module with their depth below `lib.rs`, tests left out."""
    single, folder = module.with_suffix('.rs'), module
    if single.exists():
        yield single, 1
    tests = set()
    for file in sorted(folder.rglob('*.rs')):
        for m in re.finditer(r'#\[cfg\((?:test|all\(test[^\]]*)\)\]\s*mod\s+(\w+);', file.read_text()):
            base = file.parent if file.name == 'mod.rs' else file.with_suffix('')
            tests |= {base / f'{m[1]}.rs', base / m[1]}
    for file in sorted(folder.rglob('*.rs')):
        if file in tests or tests & set(file.parents):
            continue
        depth = len(file.relative_to(folder).parts) + (0 if file.name == 'mod.rs' else 1)
        yield file, depth


def graph(source):
    """Who uses whom among the top modules of the crate at `source`: `{module: {used: {files}}}`."""
    lib = strip((source / 'lib.rs').read_text())
    tests = set(re.findall(r'#\[cfg\((?:test|doctest)\)\]\s*mod\s+(\w+)', lib))
    modules = set(re.findall(r'\bmod\s+(\w+)\s*;', lib)) - tests
    exports = {}
    for m in re.finditer(r'^(?:pub(?:\([^)]*\))? )?use\s+([^;]+);', lib, flags=re.M):
        for path in tree(m[1]):
            path = path[1:] if path[0] in ('crate', 'self') else path
            if path[0] in modules:
                exports[path[-1]] = path[0]
    uses = {module: {} for module in sorted(modules)}
    for module in uses:
        for file, depth in files(source / module):
            for path in paths(strip(file.read_text()), depth):
                used = path[0] if path and path[0] in modules else exports.get(path[0]) if path else None
                if used and used != module:
                    uses[module].setdefault(used, set()).add(str(file.relative_to(source)))
    return uses


def circle(uses):
    """Modules of which each is used by the next, the first again at the end. Empty: there is no circle."""
    try:
        graphlib.TopologicalSorter(uses).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def main():
    members = tomllib.loads((ROOT / 'Cargo.toml').read_text())['workspace']['members']
    if sys.argv[1:2] == ['-v']:
        uses = graph(ROOT / sys.argv[2] / 'src')
        print('circle:', ' <- '.join(circle(uses)) or 'none')
        for module, used in uses.items():
            for other, where in sorted(used.items()):
                print(f"{module} -> {other}: {', '.join(sorted(where))}")
        return 0
    failed = False
    for member in (m for m in members if m.split('/')[0] == 'sdk'):
        source = ROOT / member / 'src'
        if not (source / 'lib.rs').exists():
            continue
        if found := circle(graph(source)):
            failed = True
            print(f"{member}: modules use each other in a circle: {' <- '.join(found)}")
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
