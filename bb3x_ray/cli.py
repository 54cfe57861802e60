"""Commands. Config is parsed first; a room is imported only inside its command (`--help` under 0.5 s)."""


def main() -> None:
    raise SystemExit("not yet")
