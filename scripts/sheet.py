"""python scripts/sheet.py a.jpg b.jpg --weights outputs/*/*/*.safetensors -o sheet.jpg"""

from fast_nst.commands import run_command

if __name__ == "__main__":
    run_command("sheet")
