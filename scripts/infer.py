"""python scripts/infer.py outputs/starry_night/…/starry_night.safetensors photo.jpg"""

from fast_nst.commands.infer import command_line

if __name__ == "__main__":
    command_line()
