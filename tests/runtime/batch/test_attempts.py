"""What becomes of a video that fails, crashes its worker, or was under way when somebody was killed."""

import pytest
from batch_stand_ins import StandIn, attempts, video
from step_runtime.batch.local_run import run_here
from step_runtime.batch.manifest import fold, forget_failures, read_rows
from step_runtime.batch.messages import CannotGoOn
from step_runtime.batch.output import Output
from step_runtime.batch.records import VideoRecord

from step import StepError


def test_a_video_is_done_once(tmp_path):
    worker = StandIn()
    first = attempts(tmp_path, worker).settle(video("a"))
    again = attempts(tmp_path, worker, run="later").settle(video("a"))
    assert isinstance(first, VideoRecord)
    assert (first.status, first.attempts, first.clips, first.worker) == ("done", 1, 3, "stand-in")
    assert again == first
    assert worker.seen == ["a"]


def test_a_failure_has_its_reason(tmp_path):
    record = attempts(tmp_path, StandIn()).settle(video("bad"))
    assert isinstance(record, VideoRecord)
    assert (record.status, record.reason) == ("failed", "/videos/bad.mp4: not a video")


def test_one_crash_is_tried_again(tmp_path):
    record = attempts(tmp_path, StandIn(crashes={"a": 1})).settle(video("a"))
    assert isinstance(record, VideoRecord)
    assert (record.status, record.attempts, record.crashes, record.reason) == ("done", 2, 1, None)


def test_two_crashes_set_it_aside(tmp_path):
    worker = StandIn(crashes={"a": 5})
    record = attempts(tmp_path, worker).settle(video("a"))
    assert isinstance(record, VideoRecord)
    assert (record.status, record.crashes, record.reason) == ("set aside", 2, "its worker was ended by SIGSEGV")
    assert worker.seen == ["a", "a"]


def test_crashes_are_remembered_by_the_next_run(tmp_path):
    """Killed between the first crash and the second attempt's end: the next run has one attempt left."""
    output = Output(tmp_path)
    output.records.write(
        VideoRecord(name="a", location="/videos/a.mp4", status="begun", crashes=1, run="earlier", node="node")
    )
    worker = StandIn(crashes={"a": 1})
    record = attempts(tmp_path, worker).settle(video("a"))
    assert isinstance(record, VideoRecord)
    assert record.status == "set aside"
    assert worker.seen == ["a"]


@pytest.mark.parametrize(
    ("run", "node", "crashes"),
    [("run", "node", 1), ("earlier", "node", 0), ("run", "another node", 0)],
    ids=["the supervisor crashed", "the whole run was killed", "the node was lost"],
)
def test_what_was_under_way_counts_where_the_video_may_be_at_fault(tmp_path, run, node, crashes):
    Output(tmp_path).records.write(
        VideoRecord(name="a", location="/videos/a.mp4", status="begun", attempts=1, run=run, node=node)
    )
    record = attempts(tmp_path, StandIn()).settle(video("a"))
    assert isinstance(record, VideoRecord)
    assert (record.status, record.crashes, record.attempts) == ("done", crashes, 2)


def test_a_full_disk_is_not_the_videos_fault(tmp_path):
    stopped = attempts(tmp_path, StandIn()).settle(video("full"))
    assert stopped == CannotGoOn(reason="cannot write people: No space left on device")
    assert fold(Output(tmp_path)).settled == {}


def test_a_record_that_cannot_be_written_stops_the_run(tmp_path):
    (tmp_path / "records").write_text("")
    stopped = attempts(tmp_path, StandIn()).settle(video("a"))
    assert isinstance(stopped, CannotGoOn)
    assert "a file is in the way" in stopped.reason


def test_a_name_of_another_video_is_refused(tmp_path):
    attempts(tmp_path, StandIn()).settle(video("a"))
    other = attempts(tmp_path, StandIn()).settle(type(video("a"))(name="a", location="/elsewhere/a.mp4"))
    assert isinstance(other, CannotGoOn)
    assert "/videos/a.mp4, and now of /elsewhere/a.mp4" in other.reason


def test_workers_share_the_videos_and_are_ended(tmp_path):
    workers: list[StandIn] = []

    def make() -> StandIn:
        workers.append(StandIn())
        return workers[-1]

    names = [f"v{number}" for number in range(20)]
    records = list(run_here([video(name) for name in names], Output(tmp_path), make, workers=3, detections=True))
    assert sorted(record.name for record in records) == sorted(names)
    assert sorted(name for worker in workers for name in worker.seen) == sorted(names)
    assert all(worker.closed for worker in workers)


def test_what_stops_one_worker_stops_all(tmp_path):
    with pytest.raises(StepError, match="No space left"):
        list(run_here([video("full"), video("a")], Output(tmp_path), StandIn, workers=1, detections=True))
    assert not Output(tmp_path).records.path("a").exists()


def test_the_manifest_has_each_video_once_and_keeps_what_is_settled(tmp_path):
    output = Output(tmp_path)
    own = attempts(tmp_path, StandIn(crashes={"c": 2}))
    for name in ("b", "bad"):
        own.settle(video(name))
    output.records.write(VideoRecord(name="a", location="/videos/a.mp4", status="begun"))
    known = fold(output)
    assert known.settled == {"b": "done", "bad": "failed"}
    assert known.begun == {"a"}
    assert known.names["/videos/b.mp4"] == "b"
    assert [(row["name"], row["status"]) for row in read_rows(output)] == [
        ("a", "begun"),
        ("b", "done"),
        ("bad", "failed"),
    ]
    output.records.path("b").unlink()  # what is settled in the manifest is not read again
    for name in ("a", "c"):
        own.settle(video(name))
    fold(output)
    assert [row["status"] for row in read_rows(output)] == ["done", "done", "failed", "set aside"]
    assert forget_failures(output) == 2
    assert fold(output).settled == {"a": "done", "b": "done"}
    assert [row["name"] for row in read_rows(output)] == ["a", "b"]


def test_a_damaged_manifest_is_said_and_can_be_made_anew(tmp_path):
    output = Output(tmp_path)
    attempts(tmp_path, StandIn()).settle(video("a"))
    output.manifest.write_bytes(b"PAR1 no")
    with pytest.raises(StepError, match="remove it, and it is made anew"):
        fold(output)
    output.manifest.unlink()
    assert fold(output).settled == {"a": "done"}


def test_a_damaged_record_is_done_again(tmp_path):
    attempts(tmp_path, StandIn()).settle(video("a"))
    Output(tmp_path).records.path("a").write_bytes(b"")  # as a power cut leaves it
    record = attempts(tmp_path, StandIn()).settle(video("a"))
    assert isinstance(record, VideoRecord)
    assert (record.status, record.attempts) == ("done", 1)
