"""``python -m kima_stream``: the command line."""

from kima_stream.cli import main

if __name__ == "__main__":
    main()
