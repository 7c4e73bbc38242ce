"""The back ends that run jobs: threads of this process, or with REDIS_URL the workers behind Celery's queues.

A back end may lose a job: its row is the truth, and app/jobs/queue.py sends it again. The job may still be waiting
then, so each back end ignores an id that it already holds.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from uuid import UUID

from app.core import metrics
from app.core.redis import CLIENT_OPTIONS, TIMEOUTS
from app.core.settings_types import REDIS_OPTIONS
from app.models.job import QueueName

QUEUES: tuple[QueueName, ...] = ("high", "default")  # in the order in which a worker polls them
TASK = "muster.run"
WORKER_TIMEOUT = 5  # seconds for each command of a worker to Redis: its reads wait there for the next message


class ThreadBackend:
    """Runs jobs in one thread per queue. A later sweep finds the jobs that still wait when the process ends."""

    def __init__(self, run: Callable[[UUID, QueueName], None]) -> None:
        self._run = run
        self._waiting: set[UUID] = set()
        self._threads = {name: ThreadPoolExecutor(1, f"jobs-{name}") for name in QUEUES}

    def send(self, job_id: UUID, queue: QueueName) -> None:
        """Run the job in the queue's thread. Returns at once and never fails."""
        if job_id not in self._waiting:
            self._waiting.add(job_id)
            with suppress(RuntimeError):  # a job that ends while this closes may send another
                self._threads[queue].submit(self._take, job_id, queue)

    def oldest(self, _queue: QueueName) -> UUID | None:
        """The job that has waited longest in the queue. None here, since these jobs are never recorded as sent."""
        return None

    def close(self) -> None:
        """Let the running jobs finish."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)  # no queue begins a job while another ends its own
        for threads in self._threads.values():
            threads.shutdown()

    def _take(self, job_id: UUID, queue: QueueName) -> None:
        self._waiting.discard(job_id)
        self._run(job_id, queue)


class CeleryBackend(ThreadBackend):
    """Sends jobs to Celery's queues in Redis, from threads, since Redis may be down. Messages hold only ids."""

    def __init__(self, redis_url: str, on_sent: Callable[[UUID], None]) -> None:
        from redis import Redis  # noqa: PLC0415  # importing it takes 0.1 s, which only Redis users need

        super().__init__(self._send_to_worker)
        self._on_sent = on_sent
        self._celery = make_celery(redis_url, **TIMEOUTS, max_retries=0)  # a sweep repeats what failed
        self._redis = Redis.from_url(redis_url, **CLIENT_OPTIONS)

    def oldest(self, queue: QueueName) -> UUID | None:
        """The job that has waited longest in the queue. Jobs sent before it that still wait were lost."""
        message: Any = self._redis.lindex(queue, -1)
        return UUID(json.loads(message)["headers"]["id"]) if message else None

    def close(self) -> None:
        super().close()
        self._celery.close()
        self._redis.close()

    def _send_to_worker(self, job_id: UUID, queue: QueueName) -> None:
        try:
            self._celery.send_task(TASK, [str(job_id)], task_id=str(job_id), queue=queue, retry=False)
            self._on_sent(job_id)
        except Exception:  # whatever went wrong, the row still says that the job was not sent
            metrics.count("dispatch_failures")


def make_celery(redis_url: str, **transport: Any) -> Any:
    """Celery as the service and the worker configure it (docs/decisions/0008-job-rows-and-queues.md).

    `transport` replaces options of kombu's Redis transport, which are those of a worker.
    """
    from celery import Celery  # noqa: PLC0415  # importing it takes half a second, which only Redis users need
    from redis.connection import parse_url  # noqa: PLC0415  # the same

    # kombu knows few options in a URL, and verifies no certificate unless it is told to.
    parsed: Any = parse_url(redis_url)  # type: ignore[no-untyped-call]  # not typed by redis-py
    options = {name: value for name, value in parsed.items() if name in REDIS_OPTIONS}
    tls = {"ssl_cert_reqs": "required"} | {name: options.pop(name) for name in list(options) if name.startswith("ssl_")}
    scheme, _, place = redis_url.partition("?")[0].partition("://")
    app: Any = Celery("muster", broker=f"redis://{place}", set_as_current=False)
    app.conf.update(
        broker_use_ssl=tls if scheme == "rediss" else None,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # Redis may be down for any length of time
        broker_channel_error_retry=True,  # it may be full, or read-only after a failover
        broker_transport_options={
            "queue_order_strategy": "priority",  # always in the order of QUEUES; the default is round robin
            "priority_steps": [0],  # one list for each queue: Redis priorities are not used
            # Seconds until a message whose worker died is delivered again. The sweep is faster, so its job is
            # done by then. It must exceed the run time of any job: longer ones would be delivered repeatedly.
            "visibility_timeout": 3600,
            "socket_timeout": WORKER_TIMEOUT,
            "socket_connect_timeout": WORKER_TIMEOUT,
            **transport,
            **options,
        },
        task_queues={name: {"exchange": name, "routing_key": name} for name in QUEUES},
        task_default_queue="default",
        task_acks_late=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
        worker_pool="threads",  # jobs wait for databases and mail servers, and each has a heartbeat thread
        worker_concurrency=4,
        worker_send_task_events=True,  # for Flower
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the row decides who runs a job, not the connection
    )
    return app
