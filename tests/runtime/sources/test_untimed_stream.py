"""A camera that sends JPEG after JPEG: its format holds no times, so that frames are timed as they come."""

import http.server
import threading
from fractions import Fraction

import cv2
import numpy as np
import pytest
from step_runtime.sources.live import LiveOptions
from step_runtime.sources.open import open_stream

FRAMES, INTERVAL_S = 30, 0.1


@pytest.fixture
def camera():
    _, content = cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))
    part = b"--f\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(content) + content.tobytes() + b"\r\n"
    pace = threading.Event()  # never set: it waits without sleeping

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_words: object) -> None:
            """Says nothing."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=f")
            self.end_headers()
            for _ in range(FRAMES):
                try:
                    self.wfile.write(part)
                except OSError:
                    return
                pace.wait(INTERVAL_S)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/x.mjpg"
    server.shutdown()
    thread.join()
    server.server_close()


def test_frames_are_timed_as_they_come(camera):
    said = []
    source = open_stream(camera, name="camera", live=LiveOptions(say=said.append))
    times = [frame.time_s for frame in source.frames()]
    assert source.is_live
    assert len(times) >= FRAMES - 1
    assert times[0] == 0
    # FFmpeg would count 25 a second: 1.16 s. A busy machine makes the camera slower, never faster.
    assert times[-1] >= Fraction(9, 10) * Fraction(INTERVAL_S) * (len(times) - 1)
    assert any("its format holds no times; frames are timed as they come" in line for line in said)
