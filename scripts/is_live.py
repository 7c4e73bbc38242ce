"""Exit with 0 if the service on PORT of this machine answers: the health check of the image, which has no curl."""

import os
import sys
from urllib.request import urlopen


def main() -> None:
    try:
        urlopen(f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/health/live", timeout=2).close()
    except OSError as error:
        sys.exit(f"muster: the service does not answer: {error}")


if __name__ == "__main__":
    main()
