"""What ``python -m monai.bundle`` is, in a process that is there already; see `monai_bundle`.

Run with the globals ``words``, ``cwd``, ``environment`` and ``console``, the files of the output.
"""

import multiprocessing
import os
import runpy
import sys


def main(words, cwd, environment, console):
    for stream, path in zip((sys.stdout, sys.stderr), console, strict=True):
        with open(path, "w", encoding="utf-8") as file:
            os.dup2(file.fileno(), stream.fileno())
        stream.reconfigure(encoding="utf-8")
    multiprocessing.set_start_method("fork", force=True)  # Linux's own; the server's is inherited
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path[0] = cwd
    sys.argv = ["monai.bundle", *words]
    code = 0
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


main(words, cwd, environment, console)  # noqa: F821
