"""Forks a process of `data/formats/hdf5_child.py` for each file it is told of: a campaign's quick start.

Its argument is the folder of that module; its standard input, a socket: a path, with the pipes' two ends.
"""

import os
import signal
import socket
import sys

sys.path.insert(0, sys.argv[1])

import hdf5_child  # type: ignore[import-not-found]  # found at run time

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
asker = socket.socket(fileno=0)
while True:
    message, descriptors, _, _ = socket.recv_fds(asker, 1 << 16, 2)
    if not message:
        break
    pid = os.fork()
    if pid == 0:
        asker.close()
        try:
            asked, told = (os.fdopen(fd, mode) for fd, mode in zip(descriptors, ("rb", "wb"), strict=True))
            hdf5_child.serve(message.decode(), asked, told)
        finally:
            os._exit(1)
    for fd in descriptors:
        os.close(fd)
    asker.sendall(str(pid).encode())
