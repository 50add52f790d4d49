"""Which record each answer of the API is."""

from __future__ import annotations

from reelsense.client import records

RECORDS: dict[str, type[records.Record]] = {
    "GET /api/v1/videos": records.VideoPage,
    "GET /api/v1/videos/{video}": records.Video,
    "GET /api/v1/videos/{video}/similar": records.SimilarVideos,
    "DELETE /api/v1/videos/{video}": records.Deleted,
    "GET /api/v1/search": records.SearchResult,
    "GET /api/v1/duplicates": records.Duplicates,
    "POST /api/v1/events": records.EventTaken,
    "POST /api/v1/events/batch": records.EventsTaken,
    "GET /api/v1/viewers/{user}/recommend": records.Feed,
    "GET /api/v1/viewers/{user}/profile": records.Profile,
    "DELETE /api/v1/viewers/{user}": records.Forgotten,
    "GET /api/v1/queues": records.Queues,
    "GET /api/v1/workers": records.Workers,
    "GET /api/v1/dead": records.DeadLetters,
    "GET /api/v1/jobs": records.Jobs,
    "GET /api/v1/training": records.Jobs,
    "GET /api/v1/models": records.Models,
    "GET /health/live": records.Health,
}
