"""python scripts/train.py style=starry_night"""

from fast_nst.commands import run_command

if __name__ == "__main__":
    run_command("train")
