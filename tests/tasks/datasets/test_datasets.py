"""What importing the data sets loads."""

import subprocess
import sys


def test_no_library_is_loaded_before_it_is_needed() -> None:
    code = (
        "import sys, unrolled.tasks.datasets, unrolled.tasks.codecs._subword;"
        "import unrolled.tasks.data._tables;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "torch" in loaded
    assert not loaded & {"matplotlib", "pandas", "pyarrow", "sklearn", "statsmodels", "tokenizers"}
