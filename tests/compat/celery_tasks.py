"""The Celery application that celery_test.py sends tasks to and its worker processes run."""

import os
import time

from celery import Celery

from harness import URL


def application(queue, queue_type=None):
    """An application with one queue; queue_type "quorum" is what Celery's manual advises for RabbitMQ 4."""
    app = Celery("compat", broker=URL, backend="rpc://")
    app.conf.update(
        task_default_queue=queue,
        worker_prefetch_multiplier=1,
        worker_redirect_stdouts=False,
        worker_send_task_events=True,
        task_send_sent_event=True,
        broker_connection_retry_on_startup=False,
        broker_connection_timeout=5,
        result_expires=120,
    )
    if queue_type:
        app.conf.update(
            task_default_queue_type=queue_type,
            task_default_exchange_type="topic",
            task_default_exchange=queue,
            task_default_routing_key=queue,
            broker_transport_options={"confirm_publish": True},
        )

    @app.task(name="add", shared=False)
    def add(left, right):
        return left + right

    @app.task(name="finished_at", shared=False)
    def finished_at():
        return time.time()

    @app.task(name="third_time", shared=False, bind=True, max_retries=5)
    def third_time(self):
        if self.request.retries < 2:
            raise self.retry(countdown=1)
        return self.request.retries

    @app.task(name="hold_once", shared=False, bind=True, acks_late=True)
    def hold_once(self):
        """Holds the worker the first time it is delivered, and returns at once when it is redelivered."""
        if self.request.delivery_info["redelivered"]:
            return "redelivered"
        print("holding", flush=True)
        time.sleep(600)
        return "held"

    return app


app = application(os.environ.get("CELERY_QUEUE", "celery"), os.environ.get("CELERY_QUEUE_TYPE"))
