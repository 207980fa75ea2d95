"""python scripts/evaluate.py starry_night.safetensors --content photographs"""

from fast_nst.commands import run_command

if __name__ == "__main__":
    run_command("evaluate")
