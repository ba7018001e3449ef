"""Compress the photographs that scikit-image ships, report on them, query the metrics, and decompress them again."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import skimage

ROOT = Path(__file__).parents[1]
OUTPUT = Path("demo-output")
PHOTOGRAPHS = OUTPUT / "photographs"
COMPRESSED = OUTPUT / "compressed"
DECOMPRESSED = OUTPUT / "decompressed"
REPORT = OUTPUT / "report.html"

# The photographs among the files that come with the package itself, so nothing is downloaded.
COLOUR = ["astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "motorcycle_right.png", "rocket.jpg"]
GRAY = ["brick.png", "camera.png", "coins.png", "grass.png", "gravel.png", "moon.png"]

QUERY = f"""\
SELECT key, width, height, mode, source_num_bytes, num_bytes,
       round(bpp, 3) AS bpp, round(psnr_db, 2) AS psnr_db, round(ms_ssim, 4) AS ms_ssim
FROM '{COMPRESSED}/metrics/*.parquet'
ORDER BY bpp"""


def main() -> None:
    os.chdir(ROOT)
    collect_photographs()
    run("jobs/compress_dataset.py", "--input", PHOTOGRAPHS, "--output", COMPRESSED, "--quality", 4)
    run("jobs/report.py", "--input", COMPRESSED, "--output", REPORT, "--compare", 4)
    print(f"\nWhich photographs took the fewest bits? In DuckDB:\n\n{QUERY}\n")
    rows = duckdb.sql(QUERY)
    assert rows is not None, "a SELECT has a result"
    rows.show(max_width=120)
    run("jobs/decompress_dataset.py", "--input", COMPRESSED, "--output", DECOMPRESSED, "--format", "png")
    print(f"\nCompare {ROOT / PHOTOGRAPHS}\n   with {ROOT / DECOMPRESSED}")
    print(f"The report opens in any browser: {ROOT / REPORT}")
    print(f"Metrics are in {ROOT / COMPRESSED / 'metrics'}, bitstreams in {ROOT / COMPRESSED / 'bitstreams'}.")


def collect_photographs() -> None:
    """Copy the photographs to a fresh folder; what an earlier demo wrote is removed."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    PHOTOGRAPHS.mkdir(parents=True)
    for name in COLOUR + GRAY:
        shutil.copy(Path(skimage.__file__).parent / "data" / name, PHOTOGRAPHS)
    print(f"{len(COLOUR)} colour and {len(GRAY)} gray photographs of scikit-image are in {PHOTOGRAPHS}.")


def run(job: str, *arguments: object) -> None:
    """Run a job as a user would, and show how; end the demo with the job's exit code if it fails."""
    python = os.path.relpath(sys.executable)
    command = [python if not python.startswith("..") else sys.executable, job, *map(str, arguments)]
    print(f"\n$ {shlex.join(command)}", flush=True)
    if code := subprocess.run(command).returncode:
        sys.exit(code)


if __name__ == "__main__":
    main()
