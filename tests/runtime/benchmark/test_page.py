"""step-bench --html: what stands on the page, names as text, many rows, full disks."""

import errno
import os
import re
from pathlib import Path

import pytest
from benchmark_results import make_results, make_row
from step_runtime.benchmark.page import write_page
from step_runtime.benchmark.verdict import verdict_lines

from step import StepError

ROWS = (
    make_row("torch-plain", [400] * 4, threads=2, mean_ap=0.85),
    make_row("openvino", [80] * 4, threads=2, mean_ap=0.85),
    make_row("tensorrt", [], problem="tensorrt is not installed"),
)


def _page(results, tmp_path):
    write_page(results, verdict_lines(results), tmp_path / "p.html")
    return (tmp_path / "p.html").read_text()


def test_the_verdict_and_what_it_is_about_come_first(tmp_path):
    page = _page(make_results(*ROWS, model="bundle", data="ava val", clip="noise", missing=("torch: none",)), tmp_path)
    head, main = page.split("</header>")
    assert "<title>step-bench: bundle</title>" in head
    assert re.findall('<p class="verdict">(Deploy [^:]*)', head) == ["Deploy openvino fp32 fused"]
    facts = dict(re.findall("<dt>(.*)</dt><dd>(.*)</dd>", head))
    assert list(facts) == ["Model", "Clip", "mAP on", "Machine", "Threads", "Date"]
    assert (facts["Model"], facts["Threads"]) == ("bundle", "2 threads")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d .+", facts["Date"])
    assert "tensorrt is not installed" in main
    assert "torch: none" in main
    assert 'width="19.6%"' in main  # a fifth of the longest bar's 98 %
    assert "http" not in page
    assert "/tmp" not in page


def test_a_part_is_marked(tmp_path):
    page = _page(make_results(*ROWS, partial="interrupted after 4 rounds"), tmp_path)
    assert '<p class="note">Partial: interrupted after 4 rounds</p>' in page
    assert '<p class="verdict">So far: deploy ' in page


def test_names_are_text(tmp_path):
    row = make_row("openvino", threads=2, configuration={"label": """'"<script>alert(1)</script>"""})
    bad = make_row("tensorrt", [], problem="<img src=x>\x1b[2J")
    page = _page(make_results(row, bad, model="""a"b'<i>""", clip="<b>.mp4"), tmp_path)
    assert "(&#39;&#34;&lt;script&gt;alert(1)&lt;/script&gt;)" in page
    assert "<title>step-bench: a&#34;b&#39;&lt;i&gt;</title>" in page
    assert "&lt;img src=x&gt;\\x1b[2J" in page
    assert not re.search("<script|<i>|<img|<b>\\.mp4|\x1b", page)


def test_a_page_of_many(tmp_path):
    """10,000 rows: the page says how many there are, and shows what can be looked at."""
    some = make_results(*ROWS[:2])
    rows = [some.rows[0].model_copy(update={"name": f"torch {index}"}) for index in range(10_000)]
    failed = [make_results(ROWS[2]).rows[0]] * 10_000
    page = _page(some.model_copy(update={"rows": rows + failed}), tmp_path)
    assert len(page) < 1_000_000
    assert "The first 100 of 10,000 configurations, fastest first." in page
    assert "The first 500 of 10,000 configurations; --json FILE has all of them." in page
    assert "The first 500 of 10,000 configurations." in page


def test_a_full_disk_leaves_the_old_page(tmp_path, monkeypatch):
    results = make_results(*ROWS)
    with pytest.raises(StepError, match="cannot write /dev/full: No space left on device"):
        write_page(results, [], Path("/dev/full"))
    (tmp_path / "p.html").write_text("old")
    write_text = Path.write_text

    def full(path, text, **options):
        write_text(path, text[:100], **options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(StepError, match="p.html: No space left on device; free space"):
            write_page(results, [], tmp_path / "p.html")
    assert [path.name for path in tmp_path.iterdir()] == ["p.html"]
    assert (tmp_path / "p.html").read_text() == "old"
