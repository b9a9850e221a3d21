"""`python -m modelwright`, the `modelwright` command of this interpreter."""

from modelwright.cli.main import main

if __name__ == "__main__":
    main()
