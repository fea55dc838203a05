"""What /metrics tells: vLLM's names under an own prefix, and no word of any user."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from dl_techniques.serving.engine import Engine
from dl_techniques.serving.replies import Reply

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64)
REASONS = {"cancelled": "abort"}


class Counters:
    """Counts what an engine answers.

    Args:
        engine: whose numbers of running and waiting answers are shown.
    """

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()

        def named(kind: type, name: str, what: str, **more: object) -> object:
            return kind(f"fastvlm:{name}", what, registry=self.registry, **more)

        def histogram(name: str, what: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
            made = named(Histogram, name, what, buckets=buckets)
            assert isinstance(made, Histogram)
            return made

        def counter(name: str, what: str, labels: tuple[str, ...] = ()) -> Counter:
            made = named(Counter, name, what, labelnames=labels)
            assert isinstance(made, Counter)
            return made

        for name, what, number in (
            ("num_requests_running", "answers being written", lambda: engine.running),
            ("num_requests_waiting", "questions waiting for a row", lambda: engine.waiting),
        ):
            gauge = named(Gauge, name, what)
            assert isinstance(gauge, Gauge)
            gauge.set_function(number)
        self.prompt_tokens = counter("prompt_tokens", "tokens of prompts")
        self.cached_tokens = counter("prompt_tokens_cached", "of these, read before")
        self.generation_tokens = counter("generation_tokens", "tokens of answers")
        self.pictures = counter("pictures", "pictures of questions")
        self.ended = counter("request_success", "answers that ended", ("finished_reason",))
        self.refused = counter("requests_refused", "requests answered by an error", ("status",))
        self.frames = counter("frames", "frames of cameras", ("result",))
        clients = named(Gauge, "websocket_clients", "clients that send frames")
        assert isinstance(clients, Gauge)
        self.clients = clients
        self.first = histogram("time_to_first_token_seconds", "from question to first token")
        self.between = histogram("inter_token_latency_seconds", "mean time between two tokens")
        self.whole = histogram("e2e_request_latency_seconds", "from question to end")
        self.queued = histogram("request_queue_time_seconds", "from question to a row")
        self.rows = histogram("batch_size", "answers in the batch when one ended", ROWS)
        self._engine = engine

    def count(self, reply: Reply) -> None:
        """Counts a reply that has ended."""
        times, tokens = reply.times, len(reply.token_ids)
        self.prompt_tokens.inc(len(reply.question.token_ids))
        self.cached_tokens.inc(reply.cached)
        self.generation_tokens.inc(tokens)
        self.pictures.inc(len(reply.question.pictures))
        reason = reply.finish_reason or "cancelled"
        self.ended.labels(REASONS.get(reason, reason)).inc()
        self.rows.observe(self._engine.running)
        if times.started is not None:
            self.queued.observe(times.started - times.submitted)
        if times.ended is not None:
            self.whole.observe(times.ended - times.submitted)
        if times.first is not None:
            self.first.observe(times.first - times.submitted)
            if times.ended is not None and tokens > 1:
                self.between.observe((times.ended - times.first) / (tokens - 1))

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
