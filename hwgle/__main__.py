"""`python -m hwgle` is the command line."""

from hwgle.cli.main import main

if __name__ == "__main__":
    main()
