"""What a scrape is answered with: the sum over replicas, which never falls."""

from __future__ import annotations

from rlplatform.serve.telemetry import SHARE_EVERY_S, Tally, Telemetry, exposition


def counted(*seconds: float) -> Telemetry:
    """Return the counters of a replica that has answered so many requests."""
    telemetry = Telemetry()
    for taken in seconds:
        telemetry.count("GET", "/models", 200, taken)
    return telemetry


def test_a_scrape_has_the_sum_over_replicas() -> None:
    tally = Tally(lambda: 0.0)
    tally.share("a", counted(0.002, 0.3).counts(streams=2))
    text = exposition(tally.share("b", counted(0.002).counts(streams=1))).decode()
    labels = 'method="GET",route="/models",status="200"'
    assert f"rlplatform_http_requests_total{{{labels}}} 3.0" in text
    assert f'rlplatform_http_request_seconds_bucket{{le="0.0025",{labels}}} 2.0' in text
    assert f'rlplatform_http_request_seconds_bucket{{le="+Inf",{labels}}} 3.0' in text
    assert f"rlplatform_http_request_seconds_sum{{{labels}}} 0.304" in text
    assert "rlplatform_open_streams 3.0" in text


def test_what_an_ended_replica_counted_stays_but_its_streams_are_closed() -> None:
    now = [0.0]
    tally = Tally(lambda: now[0])
    tally.share("old", counted(0.1).counts(streams=5))
    now[0] += 4 * SHARE_EVERY_S
    text = exposition(tally.share("new", counted(0.1).counts())).decode()
    assert 'status="200"} 2.0' in text
    assert "rlplatform_open_streams 0.0" in text


def test_a_replica_that_shares_again_is_counted_once() -> None:
    tally, telemetry = Tally(lambda: 0.0), counted(0.1)
    first = telemetry.counts()
    tally.share("a", first)
    telemetry.count("GET", "/models", 200, 0.1)
    (again,) = tally.share("a", telemetry.counts())
    assert [sum(series.buckets) for series in again.requests.values()] == [2]
    assert [sum(series.buckets) for series in first.requests.values()] == [1]
