# syntax=docker/dockerfile:1
# An image of a worker: your program, and `leveret work` to run it. Build `leveret` first (see Dockerfile), then, where your
# program is:
#   docker build -f worker.Dockerfile -t mailer .
#   docker run -e LEVERET_URL=amqp://worker:secret@broker/ --stop-timeout 30 mailer
# The runner is process 1: when it ends, or is killed, so are its jobs.
FROM leveret AS leveret

FROM python:3.12-slim
COPY --from=leveret /leveret /usr/local/bin/leveret
COPY worker.py /app/worker.py
USER 65532:65532
STOPSIGNAL SIGTERM
ENTRYPOINT ["leveret", "work", "--log", "json", "--grace", "25s"]
CMD ["--queue", "mails", "--mode", "lines", "--pipeline", "10", "--", "python3", "/app/worker.py"]
