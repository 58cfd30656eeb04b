"""Never ends, and does not listen to a polite request; it has started another process."""

import signal
import subprocess
import sys

from gpu_check.stage import Report, StageOptions, run_stage


def measure(report: Report, options: StageOptions) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.sigwait([signal.SIGUSR1])"])
    report.figure("child", child.pid)
    signal.sigwait([signal.SIGUSR1])


if __name__ == "__main__":
    run_stage("hanging", measure)
