"""What runs jobs when it is told an id: threads of this process, or with REDIS_URL the workers behind a Celery queue.

An engine may forget: the row of a job is the truth, and app/jobs/queue.py sends again what got lost. It may do so while
a job still waits for its turn here: then once is enough.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Thread
from typing import Any
from uuid import UUID

from app.core import metrics

QUEUES = ("high", "default")  # in the order in which a worker looks into them
TASK = "muster.run"
TIMEOUT = 5  # seconds for each command to Redis


class Threads:
    """One thread for each queue of this process. What waits at the end is found again at the next start."""

    def __init__(self, run: Callable[[UUID], None]) -> None:
        self._run = run
        self._closing = False
        self._waiting: set[UUID] = set()
        self._queues = {name: SimpleQueue[UUID | None]() for name in QUEUES}
        self._threads = [Thread(target=self._work, args=(queue,), daemon=True) for queue in self._queues.values()]
        for thread in self._threads:
            thread.start()

    def send(self, job_id: UUID, queue: str) -> None:
        """Have it run. Returns at once and never fails, here and below."""
        if job_id not in self._waiting:
            self._waiting.add(job_id)
            self._queues[queue].put(job_id)

    def is_empty(self, queue: str) -> bool:
        """Whether nothing waits there: then what says it was sent got lost."""
        return self._queues[queue].empty()

    def close(self) -> None:
        """The jobs under way are finished first."""
        self._closing = True
        for queue in self._queues.values():
            queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, queue: SimpleQueue[UUID | None]) -> None:
        while (job_id := queue.get()) is not None and not self._closing:
            self._waiting.discard(job_id)
            self._run(job_id)


class Broker:
    """Celery's queues in Redis. A message holds an id and nothing else. A thread sends them: Redis may be away."""

    def __init__(self, redis_url: str, on_sent: Callable[[UUID], None]) -> None:
        from redis import Redis  # noqa: PLC0415  # a tenth of a second that others need not wait

        self._on_sent = on_sent
        self._unsent: set[UUID] = set()
        self._celery = make_celery(redis_url)
        self._redis = Redis.from_url(redis_url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jobs")

    def send(self, job_id: UUID, queue: str) -> None:
        if job_id not in self._unsent:
            self._unsent.add(job_id)
            self._thread.submit(self._publish, job_id, queue)

    def is_empty(self, queue: str) -> bool:
        return self._redis.llen(queue) == 0

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._celery.close()
        self._redis.close()

    def _publish(self, job_id: UUID, queue: str) -> None:
        self._unsent.discard(job_id)
        try:
            self._celery.send_task(TASK, [str(job_id)], queue=queue, retry=False)
            self._on_sent(job_id)
        except Exception:  # whatever it was: the row says that it was not sent
            metrics.count("dispatch_failures")


def make_celery(redis_url: str) -> Any:
    """Celery as both sides use it (docs/decisions/0008-job-rows-and-queues.md)."""
    from celery import Celery  # noqa: PLC0415  # half a second that a process without Redis need not wait

    app: Any = Celery("muster", broker=redis_url, set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # Redis may be away for as long as it likes
        broker_transport_options={
            "queue_order_strategy": "priority",  # in the order of QUEUES, always; the default takes turns
            "priority_steps": [0],  # one list for each queue: Redis priorities are not used
            # A message whose worker died comes back after so many seconds, and finds its job done: the sweep is faster.
            # Longer than any job, or every job that takes longer would be delivered again and again.
            "visibility_timeout": 3600,
            "socket_timeout": TIMEOUT,
            "socket_connect_timeout": TIMEOUT,
        },
        task_queues={name: {"exchange": name, "routing_key": name} for name in QUEUES},
        task_default_queue="default",
        task_acks_late=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
        worker_pool="threads",  # jobs wait for databases and mail servers; a heartbeat beats beside each
        worker_concurrency=4,
        worker_send_task_events=True,  # for flower
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the row says whose job it is, not the connection
    )
    return app
