#!/usr/bin/env python3
"""namespaces.py COMMAND...: runs a command where it may mount, as a Docker engine must.

Root of a container often may not. Where it may make namespaces of its own, the command runs in new ones (user, mount and
network; ids stay as they are, and only the loopback interface is there); everywhere else it runs as it is.
"""
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys

# Of Linux: <sched.h>, <linux/sockios.h>, <linux/if.h>.
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def may_mount():
  return subprocess.run(['unshare', '-m', 'true'], capture_output=True, check=False).returncode == 0


def unshare():
  """New namespaces for this process. A child that stays in the old ones says which ids are whose."""
  ask, answer = os.pipe(), os.pipe()
  parent = os.getpid()
  if os.fork() == 0:
    os.close(ask[1])
    made = os.read(ask[0], 1)
    try:
      for ids in ('uid_map', 'gid_map') if made else ():
        with open('/proc/%d/%s' % (parent, ids), 'w', encoding='ascii') as f:
          f.write('0 0 65536\n')
      os.write(answer[1], made)
    finally:
      os._exit(0)  # pylint: disable=protected-access
  os.close(answer[1])
  libc = ctypes.CDLL(None, use_errno=True)
  made = libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET) == 0
  why = os.strerror(ctypes.get_errno())
  if made:
    os.write(ask[1], b'.')
  os.close(ask[1])
  mapped = os.read(answer[0], 1)
  os.wait()
  if not made:
    print('namespaces: none can be made here: ' + why, file=sys.stderr)
  elif not mapped:
    sys.exit('namespaces: the ids of this one cannot be used in a new one')
  else:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
      fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack('16sh14x', b'lo', IFF_UP))


if __name__ == '__main__':
  if len(sys.argv) < 2:
    sys.exit(__doc__)
  if os.getuid() == 0 and not may_mount():
    unshare()
  os.execvp(sys.argv[1], sys.argv[1:])
