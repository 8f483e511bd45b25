"""Packages with job processors, laid as an installer would lay them: no installer, no network."""

import textwrap
from pathlib import Path


def install(directory: Path, source: str, **classes: str) -> dict[str, str]:
    """Lay a package of one module; returns the environment in which it is installed.

    Args:
        directory: is made; the package gets its name.
        source: of the module.
        classes: names of job processors and of their classes.
    """
    module = directory.name
    information = directory / f"{module}-1.0.dist-info"
    information.mkdir(parents=True)
    (directory / f"{module}.py").write_text(textwrap.dedent(source))
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    points = "".join(f"{name} = {module}:{found}\n" for name, found in classes.items())
    (information / "entry_points.txt").write_text(f"[dicom_adapter.job_processors]\n{points}")
    return {"PYTHONPATH": str(directory)}


_WAYWARD = """
    import ctypes
    import os
    import sys
    import time
    from pathlib import Path

    from protocol.job_processors import JobPlan, JobProcessor

    STUDY = "0020000D"


    def do_nothing():
        pass


    def loop():
        while True:
            pass


    def wait():
        time.sleep(3600)


    def crash():
        ctypes.string_at(0)


    def leave():
        os._exit(3)


    def leave_politely():
        sys.exit(4)


    def take_all_memory():
        taken = []
        while True:
            taken.append(bytes(64 * 1024 * 1024))


    def raise_an_error():
        raise KeyError("PAT-SECRET")


    def close_everything():
        os.closerange(3, 100)
        time.sleep(3600)


    def talk_nonsense():
        for fd in range(3, 100):
            try:
                os.write(fd, b"nonsense" * 100)
            except OSError:
                pass
        time.sleep(3600)


    def print_much():
        for _ in range(20000):
            print("much")
        sys.stdout.flush()


    def fork():
        if os.fork() == 0:
            time.sleep(3600)


    class Wayward(JobProcessor):
        tags = (STUDY,)

        def __init__(self, ae_title, settings):
            super().__init__(ae_title, settings)
            self.timeout_seconds = float(settings.get("seconds", "5"))
            self.retry_delay_seconds = 0.5
            misbehave(settings, "init")

        @classmethod
        def validate(cls, settings):
            misbehave(settings, "validate")
            return [] if "pipeline" in settings else ["pipeline is missing: give the ID of a pipeline"]

        def group_key(self, instance):
            misbehave(self.settings, "group_key", instance.study_uid)
            return "study " + instance.attributes[STUDY]

        def plan(self, group_key, instances):
            misbehave(self.settings, "plan", group_key.removeprefix("study "))
            labels = self.settings.get("labels", "wayward").split()
            if "count" in self.settings:
                labels = [f"{len(instances)}-{len({each.sop_instance_uid for each in instances})}"]
            return [JobPlan(label=label, pipeline_id=self.settings["pipeline"], priority="higher") for label in labels]


    def misbehave(settings, step, study=""):
        told = Path(settings.get("directory", "/nonexistent")) / step
        if told.exists():
            how, _, of = told.read_text().partition(" ")
            if of in ("", study):
                globals()[how]()
"""


def install_wayward(directory: Path) -> dict[str, str]:
    """A job processor `wayward`, which does what files tell it to; returns its environment.

    Its settings: `pipeline`; `directory`, in which a file named after a step (`validate`, `init`, `group_key`, `plan`)
    names a function of the module above to call there, and maybe a study, to restrict that to; `labels` of the jobs;
    `count` makes one job whose label is how many instances there are, and how many different ones; `seconds` of quiet.
    """
    return install(directory / "wayward_processors", _WAYWARD, wayward="Wayward")
