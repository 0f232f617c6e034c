"""``python -m cvj_ml`` is ``cvj-ml``."""

from cvj_ml.cli import main

main()
