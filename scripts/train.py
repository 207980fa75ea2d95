"""python scripts/train.py style=starry_night"""

from fast_nst.commands.train import command_line

if __name__ == "__main__":
    command_line()
