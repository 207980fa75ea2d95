"""python scripts/export.py outputs/starry_night/<time>/starry_night.safetensors -o starry_night.onnx"""

from fast_nst.commands import run_command

if __name__ == "__main__":
    run_command("export")
