"""`python -m backlane` is the command `backlane`."""

from backlane.cli import main

if __name__ == "__main__":
    main(prog_name="backlane")
