"""The Celery worker, which runs jobs in processes of their own: ./scripts/worker [--queues high]."""

import logging
import sys
from contextlib import ExitStack
from typing import Any
from uuid import UUID

from anyio.from_thread import start_blocking_portal
from celery import signals
from kombu.transport.redis import Channel, QoS

from app.core.database import Database
from app.core.logs import configure_logging
from app.core.settings import get_settings
from app.jobs.backends import TASK, make_celery
from app.jobs.handlers import Handlers
from app.jobs.queue import Jobs
from app.oauth2.access_tokens import Signers

settings = get_settings()
if settings.redis_url is None:
    sys.exit("muster: REDIS_URL: a worker needs redis://host:port/0; without it, jobs run in the service itself")


class LenientQoS(QoS):
    """When Redis goes away, kombu acknowledges and puts back messages on a channel that is closed, and the worker ends
    of an AttributeError. Neither is needed: a message that comes again finds its job done, and the sweep puts back."""

    restore_at_shutdown = False

    def ack(self, delivery_tag: str) -> None:
        if not self.channel.closed:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call]  # kombu types a part of itself


Channel.QoS = LenientQoS
celery = make_celery(settings.redis_url)
_running = ExitStack()


def log_like_the_service(**_: Any) -> None:
    configure_logging(settings)
    logging.root.handlers[:] = logging.getLogger("muster").handlers
    logging.root.setLevel(logging.WARNING)  # Celery's own lines


def start(**_: Any) -> None:
    """Before the first message is taken."""
    portal = _running.enter_context(start_blocking_portal())
    database = Database(settings, portal)
    _running.callback(database.close)
    celery.jobs = jobs = Jobs(database, settings.redis_url)
    _running.callback(jobs.close)
    signers = Signers.derive(settings.secret_keys, settings.public_url)
    jobs.start(Handlers(settings, database, signers, jobs).by_kind())


def hand_back(**_: Any) -> None:
    """At SIGTERM, before Celery waits for what runs."""
    celery.jobs.stop()


def stop(**_: Any) -> None:
    _running.close()


def run(job_id: str) -> None:
    celery.jobs.run(UUID(job_id))


signals.setup_logging.connect(log_like_the_service)
signals.worker_init.connect(start)
signals.worker_shutting_down.connect(hand_back)
signals.worker_shutdown.connect(stop)
celery.task(name=TASK)(run)
