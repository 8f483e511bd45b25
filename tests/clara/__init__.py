"""A Clara Platform for tests: a gRPC server with jobs, payloads and pipelines on disk, as strict as the real one.

    with ClaraServer(tmp_path / "clara") as clara:
        pipeline_id = clara.store.add_pipeline("covid")
        clara.faults.add("Jobs/Create", Fault.CUT_AFTER)
        ...
        assert clara.faults.count("Jobs/Create") == 1

By hand: `python -m tests.clara DIRECTORY --port 50051 --pipeline covid --fault Payloads/Upload:cut-after:3`.
"""
