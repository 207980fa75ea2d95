"""python scripts/evaluate.py starry_night.safetensors --content photographs"""

from fast_nst.commands.evaluate import command_line

if __name__ == "__main__":
    command_line()
