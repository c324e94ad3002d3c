"""For all tests."""

import signal

# A shell starts its background jobs with Ctrl-C ignored, and every process that they start inherits that: tests that
# press Ctrl-C would press in vain. A handler here is the default again in what is started.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
