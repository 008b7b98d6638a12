"""A local training on a disk that its program fills, watched and torn down; ``python full_disk.py FOLDER``.

FOLDER is a small file system of its own. The last line of the output is the job's description, as JSON.
"""

import json
import sys
from pathlib import Path

import teardown
import train
from support.shell_jobs import Jobs

# Without an exit code of its own: what fails is the packing of its model.
FILL = "cat /dev/urandom > $base/model/weights 2> /dev/null; true"


def main() -> None:
    jobs = Jobs(Path(sys.argv[1]))
    record = jobs.run(FILL)
    common = ["--local", "--folder", str(jobs.client.folder)]
    print("watch", train.main(["--watch", "job", *common]), flush=True)
    print("teardown", teardown.main(["--jobs", "--yes", *common]), flush=True)
    print("left", len(list((jobs.client.folder / "training-jobs").iterdir())), flush=True)
    print(json.dumps({key: record.get(key) for key in ("TrainingJobStatus", "FailureReason")}))


if __name__ == "__main__":
    main()
