"""`python -m relayd` is `relayd`."""

from relayd.cli.main import main

if __name__ == "__main__":
    main()
