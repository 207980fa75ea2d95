"""python scripts/optimize.py style=starry_night content=photo.jpg"""

from fast_nst.commands import run_command

if __name__ == "__main__":
    run_command("optimize")
