"""Operators that look at jobs and models, and change neither labels nor videos."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fiftyone_plugin import jobs, registry, weights

pytestmark = pytest.mark.fiftyone


@pytest.fixture
def operator(foo: ModuleType) -> Any:
    return lambda name: foo.get_operator(f"@shepherd/tracking/{name}")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHEPHERD_HOME", str(tmp_path))


def test_status_without_jobs_says_so(operator: Any, dataset: Any) -> None:
    assert operator("tracking_status")(dataset).result["message"] == "There are no tracking jobs"


def test_status_shows_jobs_of_this_dataset_or_of_all(operator: Any, dataset: Any) -> None:
    folder = jobs.jobs_folder()
    with jobs.Job(folder / "elsewhere-1", title="Track 'cow' in other", dataset="other") as job:
        job.finish(jobs.JobState.FINISHED, message="2 tracks")
    with jobs.Job(folder / "here-1", title="Track 'sheep' in this", dataset=dataset.name):
        found = operator("tracking_status")(dataset).result
        assert found["message"] == "1 running, 1 known"
        assert (found["rows"][0]["job"], found["rows"][0]["state"]) == ("Track 'sheep' in this", "running")
        everything = operator("tracking_status")(dataset, all_datasets=True).result
        assert [row["state"] for row in everything["rows"]] == ["running", "finished"]


def test_status_shows_scheduled_jobs_that_wait_for_a_worker(operator: Any, dataset: Any) -> None:
    dataset.persistent = True
    operator("track_objects")(dataset, "sheep", delegate=True)
    (row,) = operator("tracking_status")(dataset).result["rows"]
    assert (row["job"], row["state"]) == ("Track 'sheep'", "queued")
    assert "fiftyone delegated launch" in row["where"]


def test_cancel_sets_the_flag_of_the_running_job(operator: Any, form: Any, dataset: Any) -> None:
    cancel = operator("cancel_tracking")
    assert "No tracking job is running" in form(cancel, dataset, {}).errors["job_id_missing"]
    with jobs.Job(jobs.jobs_folder() / "here-1", title="Track 'sheep'", dataset=dataset.name) as job:
        assert form(cancel, dataset, {}).properties["job_id"].view.choices[0].label.startswith("Track 'sheep': running")
        result = cancel(dataset).result
        assert result == {"message": "Track 'sheep': stops after the current frame", "job_id": "here-1"}
        assert job.should_stop()
        with pytest.raises(Exception, match="No tracking job is running"):
            cancel(dataset)


def test_models_lists_state_and_licence(operator: Any, form: Any, dataset: Any) -> None:
    found = operator("manage_models")(dataset).result
    assert found["message"] == "nothing was downloaded"
    rows = {row["name"]: row for row in found["models"]}
    assert rows["sam2:bundled"]["state"] == "bundled"
    assert rows["dinov2:small"]["licence"] == "Apache-2.0"
    assert form(operator("manage_models"), dataset, {}).errors == {}


def test_models_downloads_only_with_consent(
    operator: Any, form: Any, dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manage = operator("manage_models")
    asked: list[str] = []
    monkeypatch.setattr(weights, "is_cached", lambda model: False)
    monkeypatch.setattr(registry, "download", lambda kind, spec: asked.append(f"{kind}/{spec}") or Path("/cache"))
    drawn = form(manage, dataset, {"download": "embedders/dinov2:small"})
    assert drawn.errors["consent"] == "Tick this to download it"
    with pytest.raises(Exception, match="Tick this"):
        manage(dataset, download="embedders/dinov2:small")
    with pytest.raises(Exception, match="Download 'embedders/colour': must be one of"):
        manage(dataset, download="embedders/colour")
    assert asked == []
    assert manage(dataset, download="embedders/dinov2:small", consent=True).result["message"].endswith("/cache")
    assert asked == ["embedders/dinov2:small"]


def test_models_without_network_says_what_to_do(operator: Any, dataset: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*args: Any, **options: Any) -> Any:
        raise ConnectionError("no network")

    monkeypatch.setattr(weights, "_cached_directory", lambda model: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(Exception, match="neither cached nor reachable"):
        operator("manage_models")(dataset, download="embedders/dinov2:small", consent=True)
