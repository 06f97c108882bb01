"""Which of several processes this one is, by torchrun's and by SLURM's variables."""

import pytest

from CPS4Core.processes import first_host, join_slurm_step, share_of

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


def test_srun_s_tasks_find_each_other():
    tasks = [STEP | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % 4)} for rank in range(8)]
    for task in tasks:
        join_slurm_step(task)
    assert [task["RANK"] for task in tasks] == [str(rank) for rank in range(8)]
    assert [task["LOCAL_RANK"] for task in tasks] == ["0", "1", "2", "3"] * 2
    assert {task["WORLD_SIZE"] for task in tasks} == {"8"}
    assert {task["MASTER_ADDR"] for task in tasks} == {"gpu007"}
    (port,) = {task["MASTER_PORT"] for task in tasks}
    other = STEP | {"SLURM_JOB_ID": "4712"}
    join_slurm_step(other)
    assert 1024 < int(port) < 65536 and other["MASTER_PORT"] != port


@pytest.mark.parametrize(
    "environment",
    [
        {},
        # The script of a job, and a step of one task, as where accelerate starts the processes of a node.
        {name: value for name, value in STEP.items() if "STEP" not in name} | {"SLURM_NTASKS": "8"},
        STEP | {"SLURM_STEP_NUM_TASKS": "1"},
        STEP | {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
    ],
)
def test_a_process_alone_or_of_another_launcher_is_left_alone(environment):
    before = dict(environment)
    join_slurm_step(environment)
    assert environment == before


def test_a_task_with_one_gpu_of_its_own_takes_the_first_that_it_sees():
    bound, all_of_them = STEP | {"CUDA_VISIBLE_DEVICES": "0"}, STEP | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    join_slurm_step(bound)
    join_slurm_step(all_of_them)
    assert (bound["LOCAL_RANK"], all_of_them["LOCAL_RANK"]) == ("0", "1")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu007", "gpu007"),
        ("login1,gpu007", "login1"),
        ("gpu[007-009,012],login1", "gpu007"),
        ("rack2-gpu[3,9]-ib", "rack2-gpu3-ib"),
        ("node-a.cluster", "node-a.cluster"),
    ],
)
def test_the_first_node_of_a_list(nodes, first):
    assert first_host(nodes) == first


def test_processes_share_a_list_without_gap_or_overlap(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    items = list(range(10))
    assert share_of(items) == items
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shares += share_of(items)
    assert sorted(shares) == items
