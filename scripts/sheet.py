"""python scripts/sheet.py a.jpg b.jpg --weights outputs/*/*/*.safetensors -o sheet.jpg"""

from fast_nst.commands.sheet import command_line

if __name__ == "__main__":
    command_line()
