import pendulum
from airflow.decorators import dag, task
from airflow.operators.bash import BashOperator


@dag(start_date=pendulum.datetime(2024, 1, 1), default_args={"executor": "CeleryExecutor"})
def mixed():
    @task(executor="KubernetesExecutor")
    def big(): ...

    @task(executor="KubernetesExecutor", queue="gpu")
    def bigger(): ...

    @task(queue="kubernetes")
    def named_like_an_executor_but_run_by_celery(): ...

    old = BashOperator(task_id="old", bash_command="true", executor="LocalExecutor")
    big() >> bigger() >> named_like_an_executor_but_run_by_celery() >> old


mixed()
