"""An Airflow DAG: each night's pairs are scored, checked and ranked.

A task that is tried again, by Airflow or by hand, goes on where it stopped: the same command
resumes. So retries need no care, and a machine that is lost costs what was in flight.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    dag_id="rgpt_batch_nightly",
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # A night that runs late is waited for: both would need the GPUs.
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=10)},
):
    score = BashOperator(
        task_id="score",
        bash_command=(
            "rgpt-batch score --config /data/jobs/bloom-560m.yaml "
            "--input /data/pairs/{{ ds }} --output /data/scored/{{ ds }} --quiet"
        ),
    )
    verify = BashOperator(task_id="verify", bash_command="rgpt-batch verify /data/scored/{{ ds }}")
    rank = BashOperator(
        task_id="rank",
        bash_command="rgpt-batch rank /data/scored/{{ ds }} --output /data/runs/{{ ds }}.parquet",
    )
    score >> verify >> rank
