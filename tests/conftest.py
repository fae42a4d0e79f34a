"""What holds for all tests."""

import signal

# Started in the background of a script (`make test &`), a process ignores Ctrl-C and so would all that the tests
# start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
