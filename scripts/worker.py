"""Run the jobs that wait in Redis, as ./scripts/worker does: a Celery worker for app/worker.py."""

# First, so that Ctrl-C leaves no traceback from here on.
from scripts.command_line import Parser

# isort: split

import logging
import sys

from celery.__main__ import main as celery
from celery.apps import worker as celery_worker

from app.core.logs import configure_logging
from app.core.migrations import reason_not_to_start
from app.core.settings import get_settings
from app.jobs.backends import QUEUES
from scripts.terminal import say


def main() -> None:
    parser = Parser(prog="./scripts/worker", description=__doc__)
    parser.add_argument("--queues", metavar="NAMES", help="separated by commas; high and default unless given")
    parser.add_argument("--concurrency", metavar="N", type=int, help="jobs at once, each in a thread (4 unless given)")
    parser.add_argument("celery", nargs="*", metavar="-- CELERY_OPTION", help="for `celery worker`")
    options = parser.parse_args()
    queues = options.queues.split(",") if options.queues else QUEUES
    if unknown := set(queues) - set(QUEUES):
        parser.error(f"there is no queue {min(unknown)}: {', '.join(QUEUES)}")
    if options.concurrency is not None and options.concurrency < 1:
        parser.error("--concurrency has to be at least 1")
    settings = get_settings()
    if settings.redis_url is None:
        sys.exit("muster: REDIS_URL: a worker needs redis://host:port/0; without it, jobs run in the service itself")
    if reason := reason_not_to_start(settings):
        sys.exit(reason)
    arguments = ["--without-mingle", "--without-gossip", "--queues", ",".join(queues), *options.celery]
    if options.concurrency:
        arguments += ["--concurrency", str(options.concurrency)]
    configure_logging(settings)
    logging.captureWarnings(True)  # Celery's, before it sets up logging itself
    say(settings, f"Worker      runs jobs of the queues {', '.join(queues)}; Ctrl-C stops it")
    celery_worker.install_worker_int_handler.keywords["exitcode"] = 0  # Ctrl-C stops it as cleanly as SIGTERM
    vars(sys.modules["__main__"])["__package__"] = None  # Celery's own refusals would say "python -m scripts.celery"
    sys.argv = ["celery", "--quiet", "--app", "app.worker", "worker", *arguments]
    celery()


if __name__ == "__main__":
    main()
