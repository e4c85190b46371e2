"""A detector behind an HTTP interface. Address and token come from the environment, the token shows nowhere:
DETECTOR_URL=https://host/detect DETECTOR_TOKEN=... pytest suites/ --audit-model http_detector.py"""

import audit


def model(device):  # noqa: ARG001 the service computes where it computes
    return audit.adapters.http_detector(
        None,
        url_env="DETECTOR_URL",
        classes=["face"],
        score_threshold=0.5,
        auth_env="DETECTOR_TOKEN",
        timeout=30,
        retries=4,
        rate_limit=5,  # requests per second
        max_queries=20_000,
        price=0.001,  # per image
    )
