"""Uses an installed usae, and checks which libraries it loads. test_wheel.sh runs it."""

import re
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import usae

PACKAGE = Path(usae.__file__).resolve().parent
SITE = PACKAGE.parent
SYSTEM = re.compile(r"(libc|libm|libpthread|libdl|librt|libgcc_s|ld-linux[-\w]*)\.so\.\d+")


def check_that_the_package_is_complete() -> None:
    for file in ("py.typed", "_usae.pyi", "demo/weights", "demo/activations.npz", "demo/pretrained/photographs.zip"):
        assert (PACKAGE / file).exists(), f"{file} is not in the wheel"
    assert any((PACKAGE / "demo/weights").glob("*.safetensors")), "the wheel has no demo weights"


def check_that_it_learns() -> None:
    train, held_out = usae.demo.activations()
    sae = usae.UniversalSAE(n_concepts=128, k=8, seed=0).fit(train, steps=200)
    codes = sae.encode(held_out["masked"], "masked")
    assert codes.values.shape == (1280, 8)
    assert sae.decode(codes, "classifier").shape == (1280, 96)
    assert sae.evaluate(held_out).r2.min() > 0.3
    with tempfile.TemporaryDirectory() as folder:
        sae.save(Path(folder, "run"))
        again = usae.load(Path(folder, "run"))
    assert again.encode(held_out["masked"], "masked") == codes


def check_that_its_own_blas_is_the_one_in_use() -> None:
    loaded = {line.split(maxsplit=5)[5].strip() for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    blas = {path for path in loaded if "openblas" in Path(path).name}
    strangers = {path for path in blas if not Path(path).resolve().is_relative_to(SITE)}
    assert not strangers, f"loaded from outside the environment: {strangers}"
    assert any(Path(path).parent.name in ("usae", "usae.libs") for path in blas), f"not the bundled OpenBLAS: {blas}"
    assert not any("swift" in Path(path).name.lower() for path in loaded), "a Swift runtime was loaded"


def check_that_it_needs_nothing_from_elsewhere() -> None:
    libraries = [*PACKAGE.rglob("*.so*"), *(SITE / "usae.libs").glob("*.so*")]
    own = {library.name for library in libraries}
    for library in libraries:
        words = subprocess.run(["/usr/bin/readelf", "-d", library], check=True, capture_output=True, text=True).stdout
        for needed in re.findall(r"\(NEEDED\).*\[(.*)\]", words):
            assert needed in own or SYSTEM.fullmatch(needed), f"{library.name} needs {needed}"


def main() -> int:
    checks = [check for name, check in globals().items() if name.startswith("check_")]
    failed = 0
    for check in checks:
        try:
            check()
        except Exception:
            failed += 1
            traceback.print_exc()
    print(f"{len(checks) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
