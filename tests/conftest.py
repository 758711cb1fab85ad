"""Settings that every test module relies on."""

from hypothesis import settings

# The first example of a test may compile a kernel, which takes seconds: no deadline. The examples
# are the same in every run, so that a failure is there again when it is looked for.
settings.register_profile("fastrnn", deadline=None, derandomize=True)
settings.load_profile("fastrnn")
