"""The Celery worker, which runs jobs in processes of its own: ./scripts/worker [--queues high]."""

import logging
import sys
from contextlib import ExitStack
from typing import Any
from uuid import UUID

from anyio.from_thread import start_blocking_portal
from celery import signals
from celery.apps import worker as celery_worker
from kombu.transport.redis import Channel, QoS

from app.accounts.limits import AccountLimits
from app.core.database import Database
from app.core.logs import configure_logging
from app.core.settings import get_settings
from app.jobs.backends import TASK, make_celery
from app.jobs.handlers import JobHandlers
from app.jobs.queue import JobQueue
from app.oauth2.access_tokens import Signers

log = logging.getLogger("muster.worker")
settings = get_settings()
if settings.redis_url is None:
    sys.exit("muster: REDIS_URL: a worker needs redis://host:port/0; without it, jobs run in the service itself")


class LenientQoS(QoS):
    """Kombu's record of unacknowledged messages, which does nothing on a closed channel. When Redis goes down, kombu
    would use one, and the worker would exit with an AttributeError. A redelivered message finds its job done, and the
    sweep sends the others again.
    """

    restore_at_shutdown = False

    def ack(self, delivery_tag: str) -> None:
        if not self.channel.closed:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]  # kombu is only partly typed


Channel.QoS = LenientQoS
if settings.environment == "production":
    celery_worker.safe_say = lambda *_: None  # it prints a farewell, which would not be JSON like the log
celery = make_celery(settings.redis_url)
_resources = ExitStack()


def set_up_logging(**_: Any) -> None:
    """Log in the service's format."""
    configure_logging(settings)
    logging.root.handlers[:] = logging.getLogger("muster").handlers
    logging.root.setLevel(logging.WARNING)  # Celery's own lines


def start(**_: Any) -> None:
    """Build the services before the first message arrives."""
    portal = _resources.enter_context(start_blocking_portal())
    database = Database(settings, portal)
    _resources.callback(portal.call, database.close)
    celery.jobs = jobs = JobQueue(database, settings.redis_url)
    _resources.callback(jobs.close)
    limits = AccountLimits(settings.limit_login_account, settings.redis_url)
    jobs.start(JobHandlers(settings, Signers(settings.secret_keys, settings.public_url), limits.may_mail).handle)


def say_ready(**_: Any) -> None:
    log.info("The worker is ready.")


def release_jobs(**_: Any) -> None:
    """Release the running jobs at SIGTERM, before Celery waits for them."""
    celery.jobs.stop()


def close(**_: Any) -> None:
    _resources.close()
    log.info("The worker has stopped.")


def run(job_id: str) -> None:
    celery.jobs.run(UUID(job_id))


signals.setup_logging.connect(set_up_logging)
signals.worker_init.connect(start)
signals.worker_ready.connect(say_ready)
signals.worker_shutting_down.connect(release_jobs)
signals.worker_shutdown.connect(close)
celery.task(name=TASK)(run)
