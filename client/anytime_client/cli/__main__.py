"""`python -m anytime_client.cli`."""

from anytime_client.cli.app import main

if __name__ == "__main__":
    main()
