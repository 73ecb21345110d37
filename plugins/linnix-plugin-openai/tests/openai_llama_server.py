"""llama.cpp's own HTTP server over a model file, until standard input ends.

Run by a test in a process of its own: what is native may crash, and keeps threads.
"""

import sys


def main():
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_ctx = 2048
    params.n_parallel = 1
    params.warmup = False
    params.ui = False
    # Several threads that share busy processors mostly wait for each other.
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.verbosity = -1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
