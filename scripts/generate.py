"""python scripts/generate.py agn.safetensors --style picture.png -n 16 -o sheet.png"""

from fast_nst.commands import run_command

if __name__ == "__main__":
    run_command("generate")
