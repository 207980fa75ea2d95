"""python scripts/optimize.py style=starry_night content=photo.jpg"""

from fast_nst.commands.optimize import command_line

if __name__ == "__main__":
    command_line()
