"""python scripts/infer.py outputs/starry_night/…/starry_night.safetensors photo.jpg"""

from fast_nst.commands import run_command

if __name__ == "__main__":
    run_command("infer")
